"""docs/tutorial.ipynb: executed as a reader executes it, and what it claims."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.forked import as_users

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[1] / 'docs'
PATH = DOCS / 'tutorial.ipynb'


def read():
    return nbformat.read(PATH, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == 'code']


def printed(cells):
    return ''.join(
        o.text for cell in cells for o in cell.outputs if o.get('output_type') == 'stream'
    )


def pictures(cells):
    return sum('image/png' in o.get('data', {}) for cell in cells for o in cell.outputs)


@pytest.fixture(scope='module')
def executed(tmp_path_factory):
    """The notebook, run in docs/ by a kernel of this Python, without the tests' own settings."""
    notebook = read()
    for cell in code(notebook):
        cell.outputs = []
    env = as_users() | {'IPYTHONDIR': str(tmp_path_factory.mktemp('ipython'))}
    resources = {'metadata': {'path': str(DOCS)}}
    client = NotebookClient(notebook, timeout=300, kernel_name='python3', resources=resources)
    client.execute(env=env)
    return code(notebook)


def test_what_the_lesson_says_holds(executed):
    text = printed(executed)
    assert float(re.search('largest difference (.*?),', text)[1]) < 1e-4
    assert 0.5 < float(re.search('plain: (.*) of the operations', text)[1]) < 0.7
    accuracies = [float(x) for x in re.findall(r'([\d.]+) % of 1000 test images', text)]
    assert len(accuracies) == 2
    assert min(accuracies) > 50
    assert '(6, 1, 8, 7, 7)' in text
    assert pictures(executed) == 2


def test_the_committed_lesson_was_executed(executed):
    committed = code(read())
    assert [c.execution_count for c in committed] == list(range(1, len(committed) + 1))
    assert pictures(committed) == 2
    figures = re.compile(r'[\d.]+(e-\d+)?')  # of another machine
    assert figures.sub('', printed(committed)) == figures.sub('', printed(executed))
    assert PATH.stat().st_size < 400_000
