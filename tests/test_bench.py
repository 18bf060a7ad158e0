"""`make bench` in its small form, and the page that names all programs and results."""

import json
from pathlib import Path

import pytest

from benchmarks import bench

FOLDER = Path(__file__).parents[1] / 'benchmarks'


def test_the_small_form_makes_a_table_and_a_file(tmp_path, capsys):
    file = tmp_path / 'folder' / 'bench.json'
    bench.main(['--small', '--only', 'imports', 'attention', f'--json={file}'])
    found = json.loads(file.read_text())
    assert {'date', 'device', 'machine', 'revision', 'packages', 'load_average'} <= set(found)
    assert found['small']
    assert list(found['parts']) == ['imports', 'attention']
    figures = [figure for part in found['parts'].values() for figure in part['figures']]
    for figure in figures:
        low, high = figure['spread']
        assert 0 < low <= figure['value'] <= high
        assert figure['unit']
        assert figure['rounds'] == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('| ')]
    assert len(lines) == 1 + len(figures)


def test_stages_of_a_compilation_are_told_apart():
    import jax

    times = bench.stage_times(jax.jit(lambda x: x + 1), 1.0)
    assert set(times) == set(bench.STAGES)
    assert min(times.values()) > 0


def test_a_ratio_says_how_many_times_as_fast():
    first, faster, compared = bench.against_first({'a': [2.0, 4.0, 2.0], 'b': [1.0, 2.0, 1.0]})
    assert (first.value, faster.value) == (2000, 1000)
    assert (compared.name, compared.value) == ('b, against a', 2)
    assert compared.spread == pytest.approx((2, 2))


def test_the_page_names_every_program_and_every_result():
    text = (FOLDER / 'README.md').read_text()
    programs = {path.name for path in FOLDER.glob('*.py')} - {'__init__.py'}
    results = {path.name for path in (FOLDER / 'results').iterdir()}
    assert {name for name in programs | results if f'`{name}`' not in text} == set()
