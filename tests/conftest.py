"""Eight devices on the CPU, and shapes in signatures checked while tests run."""

import os

from tests.forked import QUICK

os.environ['XLA_FLAGS'] = f'--xla_force_host_platform_device_count=8 {QUICK}'
os.environ['JAX_PLATFORMS'] = 'cpu'
# Programs that several tests or processes need are compiled once.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', os.path.abspath('.pytest_cache/jax'))
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '1'
os.environ['TF_ENABLE_ONEDNN_OPTS'] = '0'

import contextlib
import io
import subprocess
import sys

import pytest
from jaxtyping import install_import_hook
from PIL import Image

from tests.forked import ROOT, run

CHECKED = [
    'token_learner',
    *map('trainers.{}'.format, ('augment', 'batch', 'color', 'loss', 'mixup', 'rand_augment')),
]
install_import_hook(CHECKED, 'beartype.beartype')


def slow(*values):
    """A case of `parametrize` that is in `make test-all` alone."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope='session')
def fakes(tmp_path_factory):
    """A folder of small prepared sets, 160 examples of each to train on and 40 to test on."""
    root = tmp_path_factory.mktemp('fakes')
    names = ['imagenet2012', 'imagenet2012_real', 'caltech101', 'dtd', 'jft']
    run_module('datasets.make_fake', *names, f'--out={root}', '--examples=160')
    return root


def run_module(name, *args):
    """Runs a program of ours in another process, as TensorFlow is none of the tests'."""
    status, _, err = run('-m', name, *args)
    assert status == 0, err[-2000:]


def run_script(folder, code):
    """Runs a program of its own file, as worker processes need; what it prints."""
    (folder / 'script.py').write_text(code)
    run = subprocess.run(
        [sys.executable, folder / 'script.py'],
        env=os.environ | {'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


def examples(dataset, split):
    source = dataset.split(split)
    return [source[i] for i in range(len(source))]


def photo(color, size=(48, 40)):
    file = io.BytesIO()
    Image.new('RGB', size, color).save(file, 'JPEG')
    return file.getvalue()


@contextlib.contextmanager
def small_disk(folder, size):
    """A disk of its own with so much room."""
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('only root can mount a small disk')
    try:
        yield folder
    finally:
        subprocess.run(['umount', folder], check=True)


def fill(path):
    """Takes all the room that a disk has."""
    with path.open('wb', buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
