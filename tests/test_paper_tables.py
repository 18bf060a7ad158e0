import json
import sys
from pathlib import Path

import pytest

from benchmarks import paper_bottleneck
from benchmarks.paper_tables import (
    MARKED,
    TABLES,
    count_model,
    describe,
    digits,
    find_results,
    format_table,
    main,
    read_run,
)
from configs.common import FEW_SHOT_SETS
from tests.forked import run
from token_learner import parse_spec

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / 'shared'

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
    ('ViViT-L/16x2', 224): 1445.16,
    ('ViViT-L/16x2', 320): 3992.12,
    ('ViViT-H/14x2', 224): 3979.61,
    ('ViViT-L/16x2-16at12', 224): 765.93,
    ('ViViT-L/16x2+6-8at18', 224): 1105.13,
    ('ViViT-L/14x2+11-16at18', 224): 1620.85,
    ('ViViT-L/10x2+11-16at18', 224): 4066.61,
    ('ViViT-L/10x2+11-16at18-fuser', 224): 4091.6,
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
    ('7', 'ViViT-L/16x2'),  # not the one with a class token
    ('7', 'ViViT-H/14x2'),
    ('7', 'ViViT-L/10x2+11-16at18'),
    ('8', 'ViViT-L/10x2+11-16at18'),
    ('9', 'ViViT-L/10x2+11-16at18'),
    ('9', 'ViViT-L/10x2+11-16at18-fuser'),
}
COLUMNS = ('top1', 'gflops', 'params_m', 'top5', 'views')
ROWS = [  # for those of bottleneck models see test_paper_bottleneck.py
    (name, row)
    for name, table in TABLES.items()
    if name not in paper_bottleneck.TABLES
    for row in table.rows
]


@pytest.mark.slow
@pytest.mark.parametrize(('spec', 'resolution'), COMPUTED)
def test_counts_are_those_of_the_closed_forms(spec, resolution):
    clip, classes = ((32,), 400) if 'ViViT' in spec else ((), 1000)
    ours = count_model(spec, (*clip, resolution, resolution, 3), classes).gflops
    assert abs(ours - COMPUTED[spec, resolution]) <= 1e-4 * ours + 0.0005  # three decimals


@pytest.mark.slow
def test_every_printed_count_is_met_or_explained():
    """Which builds and traces every row."""
    inexact = set()
    for name, row in ROWS:
        entry = describe(row, TABLES[name], {})
        if any(same != 'equal' for same in entry['digits'].values()):
            inexact.add((name, row.spec))
        far = any(abs(d) > MARKED for d in entry['deviation_percent'].values())
        if far or (name, row.spec) in inexact or row.spec is None:
            assert row.note, row.name
    assert inexact == INEXACT


def test_counts_of_the_kinetics_rows():
    """Of both kinds of head, and millions of parameters."""
    found = {(row.name, row.resolution): describe(row, TABLES['7'], {}) for row in TABLES['7'].rows}
    digits_of = {key: tuple(entry['digits'].values()) for key, entry in found.items()}
    assert digits_of == {
        ('ViViT-L/16, quoted', 224): ('equal', 'equal'),
        ('ViViT-L/16 320, quoted', 320): ('equal', 'differ'),
        ('ViViT-H/14, quoted', 224): ('equal', 'differ'),
        ('ViViT-L/16 (our run)', 224): ('differ', 'equal'),
        ('TokenLearner 16at12 + L/16', 224): ('equal', 'equal'),
        ('TokenLearner 8at18 + L/16', 224): ('equal', 'equal'),
        ('TokenLearner 16at18 + L/14', 224): ('equal', 'equal'),
        ('TokenLearner 16at18 + L/10', 224): ('differ', 'equal'),
    }
    assert found['ViViT-L/16 320, quoted', 320]['ours']['params_m'] == pytest.approx(
        310.85, abs=0.01
    )
    six = next(row for row in TABLES['8'].rows if row.views == '2x3')
    ours = describe(six, TABLES['8'], {})['ours']
    assert ours['gflops_of_all_views'] == 6 * ours['gflops']


@pytest.mark.skipif(not SHARED.exists(), reason='the reference tables are not here')
def test_no_row_of_the_reference_is_missing():
    """Of images and of Kinetics; other models by what is printed of them."""

    def describe_spec(name, row):
        spec = parse_spec(row.spec)
        at = spec.at[0] if spec.tokens else None
        dataset = TABLES[name].recipe.dataset if spec.tubelet else None
        model = spec.size, spec.patch, row.resolution, spec.layers, at, spec.tokens, spec.fuser
        return dataset, row.settings.get('head') == 'token', *model

    def printed(paper):
        return tuple(paper.get(k) and float(paper[k]) for k in COLUMNS)

    ours = {(*printed(row.paper), *describe_spec(n, row)) for n, row in ROWS if row.spec}
    others = {printed(row.paper) for name, row in ROWS if name in '789'}
    rows = json.loads((SHARED / 'paper_tables.json').read_text())['rows']
    models = [row for row in rows if row.get('settings', {}).get('family') in ('vit', 'vivit')]
    assert len(models) == 34 + 14
    for row in models:
        settings, video = row['settings'], row['settings']['family'] == 'vivit'
        keys = ('variant', 'patch', 'resolution', 'layers', 'tokenlearner_loc', 'num_tokens')
        built = [settings.get(key) for key in keys]
        of_set = row['dataset'] if video else None, video and settings['cls_token']
        paper = row['paper'] if row['id'][:2] != 'j7' else {**row['paper'], 'views': None}
        assert (*printed(paper), *of_set, *built, settings.get('fuser', False)) in ours, row['row']
    quoted = [row for row in rows if row['id'][:2] in ('j8', 'j9') and row not in models]
    assert len(quoted) == 16
    assert {printed(row['paper']) for row in quoted} <= others


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
        return f'{count_model(spec, (resolution, resolution, 3), 18_291).params / 1e6:.2f}'

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
    made = {
        'spec': 'B/16-8at6',
        'model': {'spec': 'B/16-8at6', 'dtype': 'bfloat16'},
        'dataset': 'imagenet2012',
        'split': 'validation',
        'resolution': 384,
        'clip': None,
        'fps': None,
        'steps': 100,
        'metrics': metrics,
        **changes,
    }
    return {'eval_resolution': made['resolution'], **made}


def write_run(workdir, content, evaluated=None, step=100):
    workdir.mkdir(parents=True)
    (workdir / 'results.json').write_text(json.dumps(content))
    if evaluated is not None:
        about = {key: content[key] for key in ('eval_resolution', 'clip', 'fps')}
        text = json.dumps({'step': step, **about, 'metrics': evaluated})
        (workdir / 'eval.json').write_text(text)


def few_shot(sets=FEW_SHOT_SETS, **mean):
    """Metrics as the evaluator names them: 0.1 in the first set, 0.2 in the second, and so on."""
    found = {
        f'fewshot_lsr_rank/{name}/{splits[1]}/5shot': {'value': i / 10, 'n': 1000 * i}
        for i, (name, splits) in enumerate(sets.items(), 1)
    }
    n = sum(metric['n'] for metric in found.values())
    mean = {'value': 0.5, 'n': n, **mean}
    return {**found, 'fewshot_lsr_rank/mean/5shot': mean, 'fewshot_lsr_fixed/mean/5shot': mean}


@pytest.mark.slow
def test_a_measured_accuracy_stands_only_where_everything_matches(tmp_path):
    runs = {
        'right': results(),
        'small': results(resolution=224),
        'train': results(split='train'),
        'digits': results(dataset='digits'),
        'mean': results(model={'spec': 'B/16-8at6', 'pooling': 'mean'}),
    }
    for name, content in runs.items():
        write_run(tmp_path / 'runs' / name, content)
    found = find_results([tmp_path])
    row = next(row for name, row in ROWS if (name, row.spec) == ('5', 'B/16-8at6'))
    (measured,) = describe(row, TABLES['5'], found)['measured']
    assert Path(measured.pop('workdir')).name == 'right'
    assert measured == {'dataset': 'imagenet2012', 'top1': {'value': 0.8317, 'n': 50_000}}
    other = next(row for name, row in ROWS if row.spec == 'B/16-8at6-fuser')
    assert not describe(other, TABLES['5'], found)['measured']
    args = ('--table=5', f'--json={tmp_path / "t.json"}', f'--workdirs={tmp_path}')
    status, out, err = run('-m', 'benchmarks.paper_tables', *args)
    assert status == 0, err
    assert '| 83.2 | 88.1 | 83.17 of 50,000 | - |' in out
    assert out.count('none of these rows') == 4
    (entry, *_) = json.loads((tmp_path / 't.json').read_text())['5']
    assert {'paper', 'ours', 'deviation_percent', 'explanation'} <= set(entry)


def test_a_kinetics_row_takes_its_own_views_of_its_own_clips(tmp_path):
    names = [
        f'{key}@{views}_{of}'
        for key in ('top1', 'top5')
        for views in ('4x3', '2x3')
        for of in ('logits', 'probs')
    ]
    metrics = {
        f'kinetics400/val/{name}': {'value': i / 10, 'n': 19_881} for i, name in enumerate(names)
    }
    model = {'spec': 'ViViT-L/16x2-16at12', 'dtype': 'bfloat16', 'scan': True}
    clip = {'frames': 32, 'stride': 2, 'label_mode': 'video'}
    run = results(model=model, dataset='kinetics400', split='val', resolution=224, clip=clip)
    four = {name: metrics[name] for name in metrics if '@4x3' in name}
    write_run(tmp_path / 'right', {**run, 'metrics': four}, metrics)
    write_run(tmp_path / 'dense', {**run, 'clip': {**clip, 'stride': 1}, 'metrics': metrics})
    found = find_results([tmp_path])

    def measured(table, views, spec='ViViT-L/16x2-16at12'):
        rows = [row for row in TABLES[table].rows if (row.spec, row.views) == (spec, views)]
        entry = describe(rows[-1], TABLES[table], found)
        return [(run['top1']['value'], run['top5']['value']) for run in entry['measured']], entry

    for table, views, values in (
        ('7', '4x3', (0, 0.4)),
        ('8', '4x3', (0, 0.4)),
        ('8', '2x3', (0.2, 0.6)),
    ):
        assert measured(table, views)[0] == [values]
    assert measured('9', '4x3')[0] == []
    assert measured('7', '4x3', 'ViViT-L/16x2')[0] == []
    text = format_table(TABLES['8'], [measured('8', '2x3')[1]])
    assert '| 6 | 2x3 | 4,596 | 82.1 | 20.00 of 19,881 | 60.00 of 19,881 |' in text


def test_real_stands_where_it_is_of_the_last_step(tmp_path):
    real = {'imagenet2012_real/validation/top1': {'value': 0.8812, 'n': 46_837}}
    write_run(tmp_path / 'last', results(), real)
    write_run(tmp_path / 'other', results(), real, step=50)
    row = next(row for row in TABLES['1'].rows if row.spec == 'B/16-8at6')
    entry = describe(row, TABLES['1'], find_results([tmp_path]))
    last, other = entry['measured']
    assert (last['real'], last['top1']['n']) == (*real.values(), 50_000)
    assert 'real' not in other
    text = format_table(TABLES['1'], [entry])
    assert '| 83.17 of 50,000; 83.17 of 50,000 | 88.12 of 46,837; - |' in text
    assert 'ReaL measured here' not in format_table(TABLES['1'], [describe(row, TABLES['1'], {})])


def test_few_shot_rows_are_of_pre_training_and_their_mean_is_over_nine_sets(tmp_path):
    seven = dict(list(FEW_SHOT_SETS.items())[:7])
    model = {'spec': 'B/16-8at6', 'head_bias': -10.0, 'dropout': 0.1, 'scan': True}
    content = results(model=model, dataset='imagenet21k', split='full', resolution=224, metrics={})
    runs = {
        'all': few_shot(),
        'more': few_shot(n=99_000),  # a tenth set is in the mean
        'seven': few_shot(seven),
        'without': few_shot({'dtd': ('train', 'test')}),
        'none': None,
    }
    for name, evaluated in runs.items():
        write_run(tmp_path / name, content, evaluated)
    write_run(tmp_path / 'large', {**content, 'resolution': 384}, few_shot())
    row = next(row for row in TABLES['fig6'].rows if row.spec == 'B/16-8at6')
    entry = describe(row, TABLES['fig6'], find_results([tmp_path]))
    measured = {Path(run.pop('workdir')).name: run for run in entry['measured']}
    imagenet = {'dataset': 'imagenet21k', 'imagenet_5shot': {'value': 0.7, 'n': 7000}}
    assert measured == {
        'all': {**imagenet, 'mean_5shot': {'value': 0.5, 'n': 45_000}},
        'more': imagenet,
        'seven': imagenet,
    }
    text = format_table(TABLES['fig6'], [entry])
    assert '| ImageNet 5-shot measured here | mean 5-shot of nine sets measured here |' in text
    one = '70.00 of 7,000 (imagenet21k)'
    assert f'| {one}; {one}; {one} | 50.00 of 45,000 (imagenet21k); -; - |' in text


def test_what_was_evaluated_under_other_conditions_is_left_out(tmp_path):
    own, name = results(), next(iter(results()['metrics']))
    own['metrics'] = {name: {'value': 0.5, 'n': 10}}
    for folder, conditions, value in (
        ('same', {'eval_resolution': own['resolution'], 'clip': None, 'fps': None}, 0.75),
        ('small', {'eval_resolution': 100, 'clip': None, 'fps': None}, 0.5),
        ('slow', {'eval_resolution': own['resolution'], 'clip': None, 'fps': 6}, 0.5),
    ):
        write_run(tmp_path / folder, own)
        evaluated = {'step': 100, **conditions, 'metrics': {name: {'value': 0.75, 'n': 10}}}
        (tmp_path / folder / 'eval.json').write_text(json.dumps(evaluated))
        assert read_run(tmp_path / folder)['metrics'][name]['value'] == value


def test_a_folder_or_file_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match='is no folder'):
        find_results([tmp_path / 'none'])
    for text in ('{', '{}', json.dumps(results(model={'spec': 'B16'}))):
        (tmp_path / 'results.json').write_text(text)
        with pytest.raises(ValueError, match=r'results\.json is no results file of ours'):
            find_results([tmp_path])
    (tmp_path / 'results.json').write_text(json.dumps(results()))
    for text in ('{', '{}', '{"step": 100, "metrics": 1}'):
        (tmp_path / 'eval.json').write_text(text)
        with pytest.raises(ValueError, match=r'eval\.json is no results file of ours'):
            find_results([tmp_path])


@pytest.mark.slow
def test_the_document_is_this_program_s_output(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['paper_tables'])
    main()
    assert (ROOT / 'docs' / 'paper_tables.md').read_text() == capsys.readouterr().out
