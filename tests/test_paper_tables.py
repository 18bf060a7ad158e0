import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks.paper import FINETUNE, TABLES
from benchmarks.paper_tables import MARKED, count_model, describe, digits, find_results
from token_learner import build_model, parse_spec
from token_learner.counting import count

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / 'shared'
PROGRAM = [sys.executable, '-m', 'benchmarks.paper_tables']

# GFLOPs from closed forms that are not this project's code, and whether they, rounded to the
# printed digits, are what is printed.
COMPUTED = {
    ('S/32', 384): 3.442,
    ('B/32', 384): 12.998,
    ('B/16', 384): 55.630,
    ('S/32-8at6', 384): 1.896,
    ('B/16-8at6', 384): 28.362,
    ('S/32+10-8at11', 384): 3.330,
    ('B/32+8-8at10', 384): 11.466,
    ('B/16+9-8at10', 384): 47.076,
    ('B/16+9-16at10', 384): 47.740,
    ('L/16', 512): 363.124,
    ('L/16-16at12', 512): 184.564,
    ('L/16+11-16at12', 512): 186.790,
    ('L/16+11-16at12-fuser', 512): 191.373,
    ('L/16+6-8at18', 512): 273.840,
    ('L/14+11-16at18', 512): 361.553,
    ('L/16-16at2', 384): 20.912,
    ('L/16-16at3', 384): 28.664,
    ('L/16-16at6', 384): 51.922,
    ('B/16-8at6-fuser', 384): 28.589,
    ('B/16-16at6', 384): 28.741,
    ('B/16-16at6-fuser', 384): 29.194,
    ('L/16-16at12-fuser', 512): 186.875,
    ('L/16-8at18', 512): 273.234,
    ('L/16-8at18-fuser', 512): 273.774,
    ('L/10+11-16at18', 512): 848.472,
    ('L/10+11-16at18-fuser', 512): 857.057,
    ('L/8+11-16at18', 512): 1563.0,
    ('L/16-pool2at9at18', 512): 144.319,
    ('L/16-pool2at12at18', 512): 187.161,
    ('L/16-pool4at12', 512): 184.392,
}
INEXACT = {
    ('1', 'B/32'),
    ('1', 'B/16-8at6'),
    ('2', 'L/16-16at12'),
    ('2', 'L/16+6-8at18'),
    ('talk', 'L/16+11-16at12-fuser'),
    ('3', 'H/14'),
    ('3', 'L/10+11-16at18'),
    ('3', 'L/8+11-16at18'),
    ('5', 'B/16-8at6'),
    ('5', 'B/16-8at6-fuser'),
    ('5', 'B/16-16at6-fuser'),
    ('5', 'L/16-16at12-fuser'),
    ('5', 'L/10+11-16at18'),
    ('5', 'L/10+11-16at18-fuser'),
}
COLUMNS = ('top1', 'gflops', 'params_m')
ROWS = [(name, row) for name, table in TABLES.items() for row in table.rows]


@pytest.mark.parametrize(('spec', 'resolution'), COMPUTED)
def test_counts_are_those_of_the_closed_forms(spec, resolution):
    ours = count_model(spec, resolution, ()).gflops
    assert abs(ours - COMPUTED[spec, resolution]) <= 1e-4 * ours + 0.0005  # three decimals


def test_every_printed_count_is_met_or_explained():
    inexact = set()
    for name, row in ROWS:
        entry = describe(row, TABLES[name].config, {})
        if any(same != 'equal' for same in entry['digits'].values()):
            inexact.add((name, row.spec))
        far = any(abs(d) > MARKED for d in entry['deviation_percent'].values())
        if far or (name, row.spec) in inexact or row.spec is None:
            assert row.note, row.name
    assert inexact == INEXACT


def test_every_row_builds_and_traces():
    models = {(r.spec, r.resolution, *r.settings.items()) for _, r in ROWS if r.spec is not None}
    for spec, resolution, *settings in models:
        model = build_model({'spec': spec, **dict(settings)}, 1000)
        images = jax.ShapeDtypeStruct((1, resolution, resolution, 3), jnp.float32)
        logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
        assert logits.shape == (1, 1000)


@pytest.mark.skipif(not SHARED.exists(), reason='the reference tables are not here')
def test_no_image_row_of_the_reference_is_missing():
    def describe_spec(row):
        spec = parse_spec(row.spec)
        at = spec.at[0] if spec.tokens else None
        return spec.size, spec.patch, row.resolution, spec.layers, at, spec.tokens, spec.fuser

    ours = {
        (*(row.paper.get(k) and float(row.paper[k]) for k in COLUMNS), *describe_spec(row))
        for _, row in ROWS
        if row.spec
    }
    rows = json.loads((SHARED / 'paper_tables.json').read_text())['rows']
    rows = [row for row in rows if row.get('settings', {}).get('family') == 'vit']
    assert len(rows) == 34
    for row in rows:
        settings = row['settings']
        keys = ('variant', 'patch', 'resolution', 'layers', 'tokenlearner_loc', 'num_tokens')
        built = [settings.get(key) for key in keys]
        printed = [row['paper'].get(k) for k in COLUMNS]
        assert (*printed, *built, settings.get('fuser', False)) in ours, row['row']


def test_the_specs_of_the_figures():
    specs = {
        name: ' '.join(row.spec for row in TABLES[name].rows) for name in TABLES if 'fig' in name
    }
    assert specs['fig4'] == 'B/16 B/16-8at0 B/16-8at3 B/16-8at6 B/16-8at9'
    assert specs['fig7'] == 'B/16 B/16-8at6' + 3 * ' B/16-8at6-fuser'
    assert [row.settings for row in TABLES['fig7'].rows[2:]] == [
        {},
        {'fuser': 'unpool'},
        {'fuser': 'reprojection'},
    ]
    for place in (2, 3, 6, 12):
        assert f'L/16-16at{place} ' in specs['fig11']
    assert {row.resolution for name in specs for row in TABLES[name].rows if name != 'fig7'} == {
        224
    }


def test_the_parameters_that_the_notes_name():
    def millions(spec, resolution):
        model = build_model({'spec': spec, 'scan': True}, 18_291)
        images = jax.ShapeDtypeStruct((1, resolution, resolution, 3), jnp.float32)
        return f'{count(model, images)[""].params / 1e6:.2f}'

    assert millions('H/14', 224) == '654.19'
    assert millions('L/10+11-16at18', 224) == '460.58'
    assert millions('L/8+11-16at18', 224) == '460.78'
    assert millions('L/8+11-16at18', 512) == '464.17'


def test_digits():
    assert digits(3.442, '3.4') == 'equal'
    assert digits(28.362, '28.3') == 'cut off'
    assert digits(12.998, '19.8') == 'differ'
    assert digits(849.04, '849.0') == 'equal'
    assert digits(445.02, '460') == 'differ'


def results(**changes):
    metrics = {'imagenet2012/validation/top1': {'value': 0.8317, 'n': 50_000}}
    return {
        'spec': 'B/16-8at6',
        'model': {'spec': 'B/16-8at6', 'dtype': 'bfloat16'},
        'dataset': 'imagenet2012',
        'split': 'validation',
        'resolution': 384,
        'metrics': metrics,
        **changes,
    }


def test_a_measured_accuracy_stands_only_where_everything_matches(tmp_path):
    runs = {
        'right': results(),
        'small': results(resolution=224),
        'train': results(split='train'),
        'digits': results(dataset='digits'),
        'mean': results(model={'spec': 'B/16-8at6', 'pooling': 'mean'}),
    }
    for name, content in runs.items():
        (tmp_path / 'runs' / name).mkdir(parents=True)
        (tmp_path / 'runs' / name / 'results.json').write_text(json.dumps(content))
    found = find_results([tmp_path])
    row = next(row for name, row in ROWS if (name, row.spec) == ('5', 'B/16-8at6'))
    (measured,) = describe(row, FINETUNE, found)['measured']
    assert Path(measured['workdir']).name == 'right'
    other = next(row for name, row in ROWS if row.spec == 'B/16-8at6-fuser')
    assert not describe(other, FINETUNE, found)['measured']
    out = subprocess.run(
        [*PROGRAM, '--table=5', f'--json={tmp_path / "t.json"}', f'--workdirs={tmp_path}'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert '| 83.2 | 88.1 | 83.17 of 50,000 |' in out
    assert out.count('none of these rows') == 4
    (entry, *_) = json.loads((tmp_path / 't.json').read_text())['5']
    assert {'paper', 'ours', 'deviation_percent', 'explanation'} <= set(entry)


def test_a_folder_or_file_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match='is no folder'):
        find_results([tmp_path / 'none'])
    for text in ('{', '{}', json.dumps(results(model={'spec': 'B16'}))):
        (tmp_path / 'results.json').write_text(text)
        with pytest.raises(ValueError, match='is no results file of ours'):
            find_results([tmp_path])


def test_the_document_is_this_program_s_output():
    out = subprocess.run(PROGRAM, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert (ROOT / 'docs' / 'paper_tables.md').read_text() == out
