"""Every command of docs/reproduce.md: an experiment that builds, and a model that traces."""

import functools
import importlib
import json
import operator
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks import reproduce
from benchmarks.bottleneck_counts import last_block
from token_learner.x2plus1d import X2plus1D
from trainers.evaluators import make_evaluators
from trainers.experiment import make_experiment

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / 'shared'
COMMANDS = {
    c for t in reproduce.TABLES.values() for row in t.rows for c in reproduce.commands(row, t)
}


def make(command):
    """The experiment of a command, and its flags."""
    flags = dict(word[2:].split('=', 1) for word in shlex.split(command) if word.startswith('--'))
    name, arg = re.fullmatch(r'configs/(\w+)\.py:(.*)', flags['config']).groups()
    config = importlib.import_module(f'configs.{name}').get_config(arg).lock()
    for key, value in flags.items():
        if key.startswith('config.'):
            *sections, name = key.removeprefix('config.').split('.')
            section = functools.reduce(operator.getitem, sections, config)
            section[name] = section.get_type(name)(value)
    return make_experiment(config), flags


def test_the_guide_is_the_program_s_output(capsys):
    reproduce.main()
    assert capsys.readouterr().out == (ROOT / 'docs' / 'reproduce.md').read_text()


@pytest.mark.slow
def test_every_command_builds_and_traces():
    """Layers as a loop or the last block, one class: do spec and resolution go together?"""
    seen = set()
    for command in COMMANDS:
        experiment, flags = make(command)
        make_evaluators(experiment, flags.get('evaluator'))
        settings = {**experiment.model_settings, 'head_bias': 0.0}
        key = (json.dumps(settings), experiment.data.resolution)
        if key not in seen:
            model, shape = experiment.model.clone(num_classes=1), experiment.input_shape
            if isinstance(model, X2plus1D):
                frames, height, width, channels = shape
                model, shape = last_block(model), (frames, height // 8, width // 8, channels)
            images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
            jax.eval_shape(model.init_with_output, jax.random.key(0), images)
        seen.add(key)
    assert len(seen) > 90


def test_rows_of_three_sets_have_three_commands():
    table = reproduce.TABLES['12']
    commands = reproduce.commands(table.rows[3], table)
    assert [make(command)[0].data.dataset.fps for command in commands] == [6, 12, 12]
    assert [make(command)[0].data.dataset.name for command in commands] == [
        'charades',
        'charades',
        'avid',
    ]
    assert len({make(command)[1]['workdir'] for command in commands}) == 3
    grid, _ = make(
        *reproduce.commands(reproduce.TABLES['6.3.3'].rows[0], reproduce.TABLES['6.3.3'])
    )
    assert (grid.data.resolution, grid.model_settings['tokenizer']) == (256, 'grid')


def test_a_kinetics_row_begins_with_the_model_of_images():
    quoted, *_ = reproduce.TABLES['7'].rows
    pretrain, tune = reproduce.commands(quoted, reproduce.TABLES['7'])
    assert ':model=L/16 ' in pretrain
    assert '--config.model.head=token' in pretrain
    assert 'kinetics400.py:model=ViViT-L/16x2,res=224 ' in tune
    assert '--config.schedule.learning_rate=0.1 ' in tune
    rated = [c for c in COMMANDS if 'learning_rate' in c]
    assert {re.search('model=([^,]*)', c)[1] for c in rated} == {'ViViT-L/16x2', 'ViViT-H/14x2'}
    assert sum('multiview.clips=2' in c for c in COMMANDS) == 2


@pytest.mark.skipif(not SHARED.exists(), reason='the reference tables are not here')
def test_every_image_row_of_the_paper_has_a_command():
    rows = json.loads((SHARED / 'paper_tables.json').read_text())['rows']
    wanted = {
        (r['settings']['variant'], r['settings']['patch'], r['settings']['resolution'])
        for r in rows
        if r['dataset'] == 'imagenet_ft' and r['kind'] == 'model'
    }
    found = set()
    for command in COMMANDS:
        if match := re.search(r'finetune\.py:model=(\w+)/(\d+)\S*,res=(\d+)', command):
            found.add((match[1], int(match[2]), int(match[3])))
    assert len(wanted) > 5
    assert wanted <= found
