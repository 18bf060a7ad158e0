"""The wheel, and the code in README.md."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)


def test_only_the_library_is_in_the_wheel(tmp_path):
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / 'token_learner').symlink_to(ROOT / 'token_learner')
    subprocess.run(
        [
            sys.executable,
            '-m',
            'build',
            '--wheel',
            '--no-isolation',
            '--outdir',
            tmp_path,
            tmp_path,
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob('*.whl')
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split('/')[0] for n in names if '.dist-info' not in n} == {'token_learner'}
    assert {'token_learner/py.typed', 'token_learner/pretrained/names.py'} <= set(names)
    metadata = zipfile.ZipFile(wheel).read(next(n for n in names if n.endswith('METADATA')))
    core = [x for x in metadata.decode().splitlines() if x.startswith('Requires-Dist')]
    core = [x.split()[1].rstrip(',;') for x in core if 'extra ==' not in x]
    assert sorted(re.match('[a-z]+', x)[0] for x in core) == ['flax', 'jax', 'jaxtyping', 'numpy']


@pytest.mark.parametrize('code', BLOCKS, ids=range(len(BLOCKS)))
def test_the_code_in_the_readme_runs(code):
    scope = {}
    exec(code, scope)
    if 'get_config' in scope:
        config = scope['get_config']('epochs=12')
        assert (config.epochs, config.model.pooling) == (12, 'mean')


def test_the_readme_s_examples_are_found():
    assert len(BLOCKS) == 3
