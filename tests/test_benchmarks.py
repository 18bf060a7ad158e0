"""The programs that measure, started as their users start them."""

import argparse
import itertools
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import films, images, videos
from benchmarks import input as reading
from benchmarks.ablation import STUDIES, Row, plot, table
from benchmarks.kinetics_plans import list_models
from benchmarks.largest_batch import find_largest
from benchmarks.paper_tables import count_model
from datasets.inspect import describe
from datasets.videos import open_set
from tests.forked import run
from trainers.experiment import make_experiment

ROOT = Path(__file__).parents[1]


def step(*args):
    return run('-m', 'benchmarks.step', '--res=16', '--rounds=1', '--side=64', *args)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('spec', 'other', 'clip', 'modes'),
    [
        ('mini/4', 'mini/4-2at2:tokenizer=merge,scan=true', (), ('train', 'forward')),
        ('ViViT-mini/8x2', 'ViViT-mini/8x2-2at2:remat=dots,scan=true', (4,), ('train',)),
    ],
    ids=['images', 'clips'],
)
def test_step_times_models_with_settings_of_their_own(tmp_path, spec, other, clip, modes):
    args = ('--vs', other, '--modes', *modes, *(f'--frames={frames}' for frames in clip))
    file, unit = tmp_path / 'r' / 'step.json', 'clips' if clip else 'images'
    status, _, err = step(f'--spec={spec}', *args, '--batch=2', f'--json={file}')
    assert status == 0, err
    found = json.loads(file.read_text())['results']
    params = 4 * count_model(spec, (*clip, 16, 16, 3), 1000).params
    for mode, name in zip(found, modes, strict=True):
        assert mode['mode'] == name
        copies = 3 if name == 'train' else 1  # AdamW has two more
        first, reduced = mode['rows']
        assert reduced['gmacs'] < first['gmacs']
        assert first['of_first'] == first['of_flop_ratio'] == 1
        part = reduced['of_first'] * reduced['flop_ratio'] * reduced['of_flop_ratio']
        assert part == pytest.approx(1)
        assert first[f'{unit}_per_s'] == pytest.approx(2000 / first['milliseconds'])
        assert copies * params < first['memory_bytes'] < 20 * params


@pytest.mark.slow
def test_a_model_of_the_kinetics_tables_planned(tmp_path):
    command = ['-m', 'benchmarks.kinetics_plans', '--topology=cpu:8']
    small = ['--config=configs/kinetics400.py:runlocal', f'--json={tmp_path / "plans.json"}']
    status, out, err = run(*command, *small)
    assert status == 0, err
    assert '| `ViViT-mini/8x2-4at2` at 32 | - | none | 0.0' in out
    (plan,) = json.loads((tmp_path / 'plans.json').read_text())['plans']
    assert plan['fits']
    assert (plan['overrides'], plan['refused'], plan['devices']) == ([], {}, 8)


@pytest.mark.slow
def test_the_largest_batch_of_a_machine(tmp_path):
    command = ['-m', 'benchmarks.largest_batch', '--topology=v5e:2x2', '--first=1']
    file, model = tmp_path / 'largest.json', 'configs/imagenet_finetune.py:model=mini/16,res=224'
    small = ['--unit=262144', f'--json={file}', '--', f'--config={model}']
    status, out, err = run(*command, *small)
    assert status == 0, err
    (tried,) = json.loads(file.read_text())['tried']
    assert (tried['batch_size'], tried['fits']) == (262144, False)
    assert 'v5e:2x2: not even a batch of 262144 fits' in out


@pytest.mark.parametrize('largest', [0, 1, 5, 8, 13])
def test_the_largest_number_that_fits(largest):
    assert find_largest(lambda number: number <= largest, 4) == largest


def test_the_plans_of_the_kinetics_tables_are_of_all_their_models():
    found = json.loads((ROOT / 'benchmarks/results/plans_kinetics_v5e_8x8.json').read_text())
    assert {tuple(p['flags']): p['tables'] for p in found['plans']} == list_models()
    assert all(p['fits'] and p['batch_size'] == 64 for p in found['plans'])


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('B16', 'is not a model spec'),
        ('mini/4:tokenizer=merge', 'does nothing to mini/4'),
        ('mini/4-2at2:tokenzier=merge', "did you mean 'tokenizer'"),
        ('mini/4-pool3at2', 'do not take a 4x4 grid to 3x3'),
        ('ViViT-mini/8x2', 'a model of clips, not of images'),
    ],
)
def test_step_refuses_models_in_one_line(spec, message):
    status, _, err = step(f'--spec={spec}')
    assert status == 2
    assert message in err
    assert 'Traceback' not in err


@pytest.mark.parametrize(('name', 'models'), [('digits', 13), ('moving_digits', 3)])
def test_every_variant_of_the_ablation_is_a_config_of_its_own(name, models):
    study = STUDIES[name]
    assert len({variant.folder for variant in study.variants}) == models
    for variant in study.variants:
        make_experiment(study.make_config(variant))


@pytest.mark.parametrize('study', STUDIES.values(), ids=STUDIES)
def test_the_ablation_s_table_and_plot(tmp_path, study):
    rows = [
        Row(variant, [90.0, 91.0 + i, 92.0], 1000, 0.01, 1234, 0.02)
        for i, variant in enumerate(study.variants)
    ]
    text = table(study, rows, 24, [0, 1, 2])
    assert {'digits': 'not ImageNet', 'moving_digits': 'By chance the mAP is 25.0 %'}[
        study.config
    ] in text
    assert '| 91.0 ± 1.0 | 90.0 91.0 92.0 | 0.01000 | 1.00 | 1,234 | 20.0 | 1.00 |' in text
    plot(study, rows, tmp_path / 'plot.png')
    assert (tmp_path / 'plot.png').stat().st_size > 10_000


INPUT = 'configs/imagenet_finetune.py:runlocal=true'
VIDEOS = 'configs/kinetics400.py:runlocal=true'


def opened(config, folder, batch):
    args = argparse.Namespace(batch=batch, memory=False, workers=None, threads=0)
    return reading.open_experiment(reading.load_config(str(ROOT / config)), folder, args)


def test_both_input_pipelines_see_the_same_images(tmp_path):
    path = images.write_files(tmp_path, 8)
    experiment = opened(INPUT, tmp_path, 4)
    ways = [images.tf_batches(path, experiment, 8, 1, **how) for how in images.OTHERS.values()]
    for batches in (experiment.train_batches(), *ways):
        epoch = [next(batches) for _ in range(2)]
        assert seen(epoch) == [(f'{i:05}.JPEG', i) for i in range(8)]
        assert epoch[0]['image'].shape == (4, 48, 48, 3)


@pytest.mark.slow
def test_both_input_pipelines_see_the_same_videos(tmp_path):
    path = films.write_files(tmp_path, 4)
    experiment = opened(VIDEOS, tmp_path, 2)
    expected = [(f'{i:05}', i) for i in range(4)]
    prepared = open_set(tmp_path / 'kinetics400_25fps')
    assert any(line.startswith('  annotated 4, readable 4, ') for line in describe(prepared, 0))
    ways = [videos.tf_clips(path, experiment, 4, 1, whole=whole) for whole in (True, False)]
    for batches in (experiment.train_batches(), *ways):
        epoch = [next(batches) for _ in range(2)]
        assert seen(epoch) == expected
        assert epoch[0]['video'].shape == (2, 8, 32, 32, 3)
    ours, theirs = (
        {name: views for batch in way for name, views in by_video(batch)}
        for way in (
            itertools.islice(videos.our_views(experiment), 4),
            itertools.islice(videos.tf_views(path, experiment, 4, 1), 4),
        )
    )
    assert sorted(ours) == sorted(theirs) == [name for name, _ in expected]
    for name, views in theirs.items():
        # [clips, crops, ...] and [crops and clips, ...]
        mine = experiment.preprocess(jnp.asarray(ours[name])).swapaxes(0, 1).reshape(views.shape)
        # tf.data leaves out pixels where it shrinks: only blocks of 8x8 are alike.
        mine, views = (x.reshape(12, 8, 4, 8, 4, 8, 3).mean((3, 5)) for x in (mine, views))
        errors = np.abs(mine[:, None] - views[None]).mean((2, 3, 4, 5))
        assert np.diag(errors).max() < 0.1
        assert np.diag(errors).mean() < 0.5 * errors.mean()


def seen(batches):
    names = [i.decode() if isinstance(i, bytes) else i for b in batches for i in b['id']]
    return sorted(zip(names, [label for b in batches for label in b['label']], strict=True))


def by_video(batch):
    name = batch['id'][0]
    if isinstance(name, bytes):
        return [(name.decode(), batch['video'][0])]
    assert (batch['id'] == name).all()
    return [(name, batch['video'])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('config', 'unit', 'others'),
    [(INPUT, 'images', images.OTHERS), (VIDEOS, 'clips', videos.OTHERS)],
    ids=['images', 'videos'],
)
def test_input_compares_configs(tmp_path, config, unit, others):
    command = ['-m', 'benchmarks.input', '--config', config]
    small = ['--examples=4', '--batch=2', '--rounds=2', f'--json={tmp_path / "input.json"}']
    status, _, err = run(*command, *small)
    assert status == 0, err
    made = json.loads((tmp_path / 'input.json').read_text())
    assert {'machine', 'date', 'python', 'packages', 'program'} <= set(made)
    first, *rest = made['results'][0]['tasks']
    assert len(rest) == (unit == 'clips')
    assert set(first['ours_as_fast_as']) == set(others)
    assert set(others) | {'ours', 'header, decode'} <= set(first[f'{unit}_per_core_s'])
    for of in first['ours_as_fast_as'].values():
        assert all(len(found['interval_95']) == 2 for found in of.values())


@pytest.mark.slow
def test_input_adds_up_the_memory_of_all_processes(tmp_path):
    command = ['-m', 'benchmarks.input', '--config', VIDEOS, '--memory']
    small = ['--examples=5', '--batch=5', '--clips=2000', '--workers=1']
    small.append(f'--json={tmp_path / "input.json"}')
    status, _, err = run(*command, *small)
    assert status == 0, err
    found = json.loads((tmp_path / 'input.json').read_text())['results'][0]['memory']
    assert [int(at) for at in found['resident_bytes']] == list(range(250, 2001, 250))
    after = [size for at, size in found['resident_bytes'].items() if int(at) >= 1000]
    assert found['growth'] == max(after) / after[0] - 1 < 0.3
    assert found['workers'] == 1


def test_records_of_other_lengths_are_read_in_turn(tmp_path):
    file = tmp_path / 'records.json'
    command = ['-m', 'benchmarks.records', '--frames', '16', '250', '--videos=2', '--rounds=1']
    status, _, err = run(*command, f'--json={file}')
    assert status == 0, err
    short, whole = json.loads(file.read_text())['rows']
    assert [short['frames_per_record'], whole['frames_per_record']] == [16, 250]
    assert 0 < short['mb_read'] < whole['mb_read']


@pytest.mark.slow
def test_the_forms_of_vector_attention_side_by_side(tmp_path):
    command = ['-m', 'benchmarks.vector_attention', f'--json={tmp_path / "v.json"}']
    small = '--batch=1 --tokens=64 --channels=2 --narrow=2 --rounds=1 --nodes 16 --lengths 64 128'
    status, _, err = run(*command, *small.split())
    assert status == 0, err
    found = json.loads((tmp_path / 'v.json').read_text())
    plain, blockwise = found['forms']
    assert plain['memory_bytes'] > 10 * blockwise['memory_bytes']
    assert blockwise['difference'] < 1e-5
    assert [row['tokens'] for row in found['growth'] if row['form'] == 'blockwise'] == [64, 128]
    (chebyshev,) = found['chebyshev']
    errors = [error['output'] for error in chebyshev['errors']]
    assert errors[0] < 1e-5 < errors[-1]


def test_vector_attention_was_measured_to_keep_what_it_promises():
    found = json.loads((ROOT / 'benchmarks/results/vector_attention_cpu.json').read_text())
    (blockwise,) = [row for row in found['forms'] if row['form'] == 'blockwise']
    assert blockwise['memory_ratio'] > 30
    assert blockwise['times_as_fast']['interval_95'][0] > 2
    assert found['growth_powers']['memory_bytes'] == pytest.approx(1, abs=0.01)
