import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A part may import itself, these parts, and for token_learner these packages only (safetensors
# where a file of it is read or written: the test below).
ALLOWED = {
    'token_learner': set(),
    'datasets': set(),
    'configs': {'ml_collections'},
    'trainers': {'token_learner', 'datasets'},
    'benchmarks': {'token_learner', 'datasets', 'configs', 'trainers'},
}
LIBRARY = {'jax', 'flax', 'numpy', 'jaxtyping', 'safetensors'}
PARTS = {*ALLOWED, 'main', 'tests'}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition('.')[0]


@pytest.mark.parametrize('part', ALLOWED)
def test_imports_point_one_way(part):
    files = sorted((ROOT / part).rglob('*.py'))
    assert files
    for path in files:
        for name in set(imported(path)) - {part} - set(sys.stdlib_module_names):
            message = f'{path.relative_to(ROOT)} imports {name}'
            if part == 'token_learner':
                assert name in LIBRARY, message
            elif part == 'configs':
                assert name in ALLOWED[part], message
            else:
                assert name not in PARTS - ALLOWED[part], message
            if part == 'datasets':
                assert name not in ('jax', 'flax'), message


def python(code):
    return subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_the_library_loads_nothing_of_the_trainer():
    out = python(
        'import sys, token_learner\n'
        '[getattr(token_learner, name) for name in token_learner.__all__]\n'
        'import token_learner.pretrained, token_learner.maps\n'
        "print({m.partition('.')[0] for m in sys.modules})"
    )
    loaded = ast.literal_eval(out)
    assert 'flax' in loaded
    foreign = {'tensorflow', 'optax', 'orbax', 'clu', 'ml_collections', 'grain', 'safetensors'}
    assert not loaded & {*foreign, 'trainers', 'datasets', 'configs', 'matplotlib'}


def test_specs_need_no_jax():
    out = python(
        'import sys; sys.modules["jax"] = None\n'
        'from token_learner import spec; print(spec.parse_spec("B/16-8at6").tokens)'
    )
    assert out == '8\n'


def test_no_config_key_is_read_with_a_fallback():
    """`.get(key, default)` hides a misspelt key."""
    for part in ('token_learner', 'datasets', 'trainers'):
        for path in (ROOT / part).rglob('*.py'):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and node.attr == 'get':
                    owner = ast.unparse(node.value)
                    assert not re.search('config|settings', owner), f'{path}: {owner}.get'


def test_public_names_have_docstrings():
    for part in ('token_learner', 'datasets', 'trainers'):
        for path in (ROOT / part).rglob('*.py'):
            tree = ast.parse(path.read_text())
            assert ast.get_docstring(tree), path
            for node in tree.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != '_':
                    assert ast.get_docstring(node), f'{path}: {node.name}'
