"""The programs that measure, started as their users start them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import input as reading
from benchmarks.ablation import VARIANTS, Row, plot, table
from datasets.pipeline import Reading
from trainers.experiment import make_experiment

ROOT = Path(__file__).parents[1]


def step(*args):
    command = [
        sys.executable,
        '-m',
        'benchmarks.step',
        '--res=16',
        '--rounds=1',
        '--side=64',
        *args,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_step_times_models_with_settings_of_their_own(tmp_path):
    args = ('--vs', 'mini/4-2at2:tokenizer=merge,scan=true', '--modes', 'train', 'forward')
    done = step('--spec=mini/4', *args, '--batch=2', f'--json={tmp_path / "r" / "step.json"}')
    assert done.returncode == 0, done.stderr
    modes = json.loads((tmp_path / 'r' / 'step.json').read_text())['results']
    assert [mode['mode'] for mode in modes] == ['train', 'forward']
    for mode in modes:
        plain, merged = mode['rows']
        assert merged['gmacs'] < plain['gmacs']
        assert plain['of_first'] == 1


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('B16', 'is not a model spec'),
        ('mini/4:tokenizer=merge', 'does nothing to mini/4'),
        ('mini/4-2at2:tokenzier=merge', "did you mean 'tokenizer'"),
        ('mini/4-pool3at2', 'do not take a 4x4 grid to 3x3'),
    ],
)
def test_step_refuses_models_in_one_line(spec, message):
    done = step(f'--spec={spec}')
    assert done.returncode == 2
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


def test_every_variant_of_the_ablation_is_a_config_of_its_own():
    models = [make_experiment(variant.config()).model for variant in VARIANTS]
    assert len({variant.folder for variant in VARIANTS}) == len(models) == 13


def test_the_ablation_s_table_and_plot(tmp_path):
    rows = [
        Row(variant, [90.0, 91.0 + i, 92.0], 1000, 0.01, 1234, 0.02)
        for i, variant in enumerate(VARIANTS)
    ]
    text = table(rows, 24, [0, 1, 2])
    assert 'not ImageNet' in text
    assert '| 91.0 ± 1.0 | 90.0 91.0 92.0 | 0.01000 | 1.00 | 1,234 | 20.0 | 1.00 |' in text
    plot(rows, tmp_path / 'plot.png')
    assert (tmp_path / 'plot.png').stat().st_size > 10_000


INPUT = 'configs/imagenet_finetune.py:runlocal=true'


def test_both_input_pipelines_see_the_same_examples(tmp_path):
    path = reading.write_files(tmp_path, 8)
    experiment = reading.open_experiment(reading.load_config(str(ROOT / INPUT)), tmp_path, 4)
    ours = reading.our_batches(experiment, Reading(threads=0))
    inputs = [reading.tf_batches(path, experiment, 8, 1, **how) for how in reading.OTHERS.values()]
    for batches in (ours, *inputs):
        epoch = [next(batches) for _ in range(2)]
        names = [i.decode() if isinstance(i, bytes) else i for batch in epoch for i in batch['id']]
        labels = [label for batch in epoch for label in batch['label']]
        assert sorted(zip(names, labels, strict=True)) == [(f'{i:05}.JPEG', i) for i in range(8)]
        assert epoch[0]['image'].shape == (4, 48, 48, 3)


def test_input_compares_configs(tmp_path):
    command = [sys.executable, '-m', 'benchmarks.input', '--config', INPUT]
    small = ['--examples=4', '--batch=2', '--rounds=2', f'--json={tmp_path / "input.json"}']
    done = subprocess.run([*command, *small], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / 'input.json').read_text())
    assert {'machine', 'date', 'python', 'jax', 'program'} <= set(made)
    for result in made['results']:
        assert set(result['ours_as_fast_as']) == set(reading.OTHERS)
        assert set(reading.OTHERS) | {'ours', 'header, decode'} <= set(result['images_per_core_s'])
        for of in result['ours_as_fast_as'].values():
            assert all(len(found['interval_95']) == 2 for found in of.values())
