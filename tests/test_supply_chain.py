"""What the locks say, and that no reader of ours runs what it reads."""

import ast
from pathlib import Path

import pytest

from tests.supply_chain import ROOT, below_floors, check, declared, different, missing, read_lock

HASH = f'--hash=sha256:{"0" * 64}'
PARTS = ('benchmarks', 'configs', 'datasets', 'token_learner', 'trainers')


def test_nothing_is_wrong_with_the_locks_or_this_environment():
    assert check() == []


@pytest.mark.parametrize(
    ('line', 'problem'),
    [
        (f'numpy>=2 {HASH}', 'is not pinned by =='),
        (f'numpy==2.* {HASH}', 'is not pinned by =='),
        (f'numpy {HASH}', 'is not pinned by =='),
        ('numpy==2.4.6', 'is not pinned by sha256'),
        ('numpy==2.4.6 --hash=md5:00', 'is not pinned by sha256'),
        (f'numpy @ https://example.org/numpy.whl {HASH}', 'does not come from the index'),
        (f'numpy @ git+https://example.org/numpy {HASH}', 'does not come from the index'),
        (f'-e . {HASH}', 'is no requirement of the index'),
        (f'--index-url https://example.org {HASH}', 'is no requirement of the index'),
    ],
)
def test_a_lock_pins_everything(line, problem):
    _, problems = read_lock(f'# made by uv\n{line.replace(" --", " " + chr(92) + chr(10) + " --")}')
    assert len(problems) == 1
    assert problem in problems[0]


def test_versions_are_compared():
    pinned, problems = read_lock(
        f'Pillow==10.2.0 {HASH}\nnone-such==1 ; python_version < "3" {HASH}'
    )
    assert problems == []
    assert list(below_floors(pinned)) == ['pillow 10.2.0 has CVE-2025-48379; take 11.3.0 or later']
    assert list(missing(pinned, ['pillow>=10.3', 'numpy'])) == [
        'pillow>=10.3 is asked for, not 10.2.0',
        'numpy is asked for and missing',
    ]
    (found,) = different(pinned)
    assert found.startswith('pillow 10.2.0 is installed as ')
    assert 'numpy' in declared(('train',))


# Names whose call runs what a file says, or hands text to a shell.
FORBIDDEN = {'eval', 'exec', 'compile', '__import__', 'extractall', 'extract', 'system', 'popen'}
MODULES = {
    'pickle',
    'cPickle',
    'dill',
    'cloudpickle',
    'marshal',
    'shelve',
    'joblib',
    'torch',
    'yaml',
}
MODULES |= {'xml', 'msgpack', 'h5py'}


def unsafe(tree):
    """What a program does that its input could misuse."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ''] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names]
            yield from (name for name in names if name.partition('.')[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        text, options = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        *owner, name = text.split('.')
        if name in FORBIDDEN and (owner in ([], ['os']) or name.startswith('extract')):
            yield ast.unparse(node)
        if (
            options.get('shell', 'False') != 'False'
            or options.get('allow_pickle', 'False') != 'False'
        ):
            yield ast.unparse(node)


def test_no_code_of_ours_runs_what_it_reads():
    files = [ROOT / 'main.py', *(path for part in PARTS for path in (ROOT / part).rglob('*.py'))]
    assert len(files) > 100
    found = {
        str(path.relative_to(ROOT)): list(unsafe(ast.parse(path.read_text()))) for path in files
    }
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    'code',
    [
        'import pickle',
        'from yaml import load',
        'import xml.etree.ElementTree',
        'np.load(path, allow_pickle=True)',
        'eval(text)',
        'os.system(text)',
        'subprocess.run(text, shell=True)',
        'archive.extractall(path)',
    ],
)
def test_what_would_is_found(code):
    assert len(list(unsafe(ast.parse(code)))) == 1


def test_the_policy_names_files_that_are_there():
    text = Path(ROOT / 'SECURITY.md').read_text()
    assert all((ROOT / name).exists() for name in ('tests/supply_chain.py', 'tests/test_fuzz.py'))
    assert 'make audit' in text
