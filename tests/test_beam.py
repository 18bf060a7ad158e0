"""Preparation as a pipeline of Apache Beam, which has a Python environment of its own."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.test_decode import encode
from tests.test_prepare import same

ROOT = Path(__file__).parents[1]
# `make test-all` names one, which is then to be there.
GIVEN = os.environ.get('BEAM_PYTHON')
PYTHON = Path(GIVEN or ROOT / '.venv-beam/bin/python')

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not GIVEN and not PYTHON.exists(),
        reason='needs Apache Beam in .venv-beam; use make test-all',
    ),
]

# Stands for a cluster: workers have what is packed for them.
RUNNER = """
import shutil
from apache_beam.options.pipeline_options import SetupOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner

class Cluster(BundleBasedDirectRunner):
    def run_pipeline(self, pipeline, options):
        (package,) = options.view_as(SetupOptions).extra_packages
        shutil.copy(package, {folder!r})
        return super().run_pipeline(pipeline, options)
"""

SILENT = """
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner

class DirectRunner(BundleBasedDirectRunner):
    def run_pipeline(self, pipeline, options):
        raise AssertionError
"""


def run(*args, cwd=ROOT, path=None):
    """Runs Python with Apache Beam; its exit status and the last line of its errors."""
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    env |= {'PYTHONPATH': str(path)} if path else {}
    done = subprocess.run(
        [PYTHON, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=120
    )
    return done.returncode, (done.stderr.splitlines() or [''])[-1]


@pytest.fixture(scope='module')
def prepare(tmp_path_factory):
    """A function that prepares a set of 5 videos, one of them missing, in 3 files."""
    root = tmp_path_factory.mktemp('avid')
    names = [f'video{i}' for i in range(5)]
    for name in names[:4]:
        encode(root / f'{name}.mp4', n=30, size=(48, 32))
    labels = ', '.join(f'"{name}.mp4": "a"' for name in names)
    (root / 'avid_val.json').write_text(f'{{{labels}}}')

    def prepare(out, *more, **where):
        given = [f'--annotations={root / "avid_val.json"}', f'--videos={root}', f'--out={out}']
        settings = ['--classes=1', '--videos_per_file=2', '--processes=1']
        return run('-m', 'datasets.prepare', 'avid', *given, *settings, *more, **where)

    return prepare


@pytest.fixture(scope='module')
def plain(prepare, tmp_path_factory):
    """What is prepared without a pipeline."""
    out = tmp_path_factory.mktemp('plain')
    assert prepare(out)[0] == 0
    return out


def test_a_pipeline_makes_the_same_files(prepare, plain, tmp_path):
    assert prepare(tmp_path, '--shard=1/3') == (0, '')
    status, said = prepare(tmp_path, '--beam', '--runner=DirectRunner')
    assert status == 0, said
    assert same(plain, tmp_path)


def test_workers_elsewhere_have_what_they_run(prepare, plain, tmp_path):
    for name in ('runner', 'packed', 'installed', 'elsewhere'):
        (tmp_path / name).mkdir()
    (tmp_path / 'runner' / 'cluster.py').write_text(RUNNER.format(folder=str(tmp_path / 'packed')))
    flags = ('--beam', '--runner=cluster.Cluster')
    status, said = prepare(tmp_path / 'out', *flags, path=tmp_path / 'runner')
    assert status == 0, said
    assert same(plain, tmp_path / 'out')
    (package,) = (tmp_path / 'packed').iterdir()
    pip = ['-m', 'pip', 'install', '-q', '--no-index', '--no-deps', '--no-build-isolation']
    status, said = run(*pip, f'--target={tmp_path / "installed"}', package)
    assert status == 0, said
    where = {'cwd': tmp_path / 'elsewhere', 'path': tmp_path / 'installed'}
    assert prepare(tmp_path / 'again', **where) == (0, '')
    assert same(plain, tmp_path / 'again')


def test_a_pipeline_that_fails(prepare, tmp_path):
    status, said = prepare(tmp_path, '--beam', '--runner=Nowhere')
    assert status == 1
    assert said.startswith('error: the pipeline failed: Unexpected pipeline runner: Nowhere.')


def test_a_pipeline_that_fails_without_a_message(prepare, tmp_path):
    (tmp_path / 'silent.py').write_text(SILENT)
    where = {'path': tmp_path}
    status, said = prepare(tmp_path / 'out', '--beam', '--runner=silent.DirectRunner', **where)
    assert (status, said) == (1, 'error: the pipeline failed: AssertionError()')
