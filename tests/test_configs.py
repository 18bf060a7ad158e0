"""Every config: built, and a whole train step traced at full size."""

import ast
import importlib
import math
from functools import partial
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from configs import common
from tests.conftest import slow
from trainers.construct import UserError
from trainers.experiment import make_experiment
from trainers.plan import abstract_batch
from trainers.state import abstract_state
from trainers.step import train_step

DEFAULT = common.default_config('mini/4')
DATASET, ADAMW, COSINE = DEFAULT.dataset, DEFAULT.optimizer, DEFAULT.schedule
CONFIGS = Path(__file__).parents[1] / 'configs'

# Config and argument -> parameters. A config without a count here fails.
PARAMETERS = {
    ('digits', ''): 211_402,
    ('digits', 'runlocal'): 211_402,
    ('digits', 'epochs=0.2'): 211_402,
    ('digits', 'model=mini/4'): 204_938,
    ('digits', 'model=B/16-8at6-fuser,res=384'): 86_092_138,
    ('imagenet_finetune', ''): 305_328_872,
    ('imagenet_finetune', 'runlocal'): 282_584,
    ('imagenet_finetune', 'model=B/16-8at6'): 86_916_520,
    ('jft_pretrain', ''): 99_921_459,
    ('jft_pretrain', 'runlocal'): 1_405_219,
    ('jft_pretrain', 'model=L/16-16at12'): 322_204_275,
    ('imagenet21k_pretrain', ''): 102_652_947,
    ('imagenet21k_pretrain', 'runlocal'): 1_636_099,
    ('imagenet_scratch', ''): 86_617_912,
    ('imagenet_scratch', 'runlocal'): 282_988,
    ('imagenet_scratch', 'model=S/32'): 22_878_184,
    ('moving_digits', ''): 230_136,
    ('moving_digits', 'several'): 230_136,
    ('moving_digits', 'runlocal'): 230_136,
    ('kinetics400', ''): 307_662_992,
    ('kinetics400', 'runlocal'): 257_664,
    ('kinetics600', ''): 307_867_992,
    ('kinetics600', 'runlocal'): 270_664,
    ('kinetics400', 'model=X2plus1D-M'): 26_450_076,
    ('charades', ''): 26_698_857,
    ('charades', 'fps=6,model=X2plus1D-M'): 25_952_169,
    ('charades', 'model=ViViT-B/16x2'): 91_174_045,
    ('charades', 'runlocal'): 132_965,
    ('avid', ''): 23_153_187,
    ('avid', 'runlocal'): 180_415,
}


def make(name, arg=''):
    config = importlib.import_module(f'configs.{name}').get_config(arg)
    return make_experiment(config.lock())


def test_every_config_has_a_count():
    names = {p.stem for p in CONFIGS.glob('*.py')} - {'__init__', 'common'}
    assert {name for name, _ in PARAMETERS} == names


@pytest.mark.parametrize(
    ('name', 'arg'),
    [case if 'runlocal' in case else slow(*case) for case in PARAMETERS],
    ids=lambda x: x or 'default',
)
def test_a_train_step_traces_at_full_size(name, arg):
    experiment = make(name, arg)
    state = abstract_state(experiment)
    assert sum(x.size for x in jax.tree.leaves(state.params)) == PARAMETERS[name, arg]
    after, sums = jax.eval_shape(partial(train_step, experiment), state, abstract_batch(experiment))
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, after)]
    assert shapes[0] == shapes[1]
    assert set(sums) == {'n', 'loss', 'gradient_norm', 'skipped'}


@pytest.mark.parametrize('name', sorted({name for name, _ in PARAMETERS}))
def test_a_config_says_how_it_is_run_and_has_a_small_form(name):
    text = (CONFIGS / f'{name}.py').read_text()
    assert f'python main.py --config=configs/{name}.py' in ast.get_docstring(ast.parse(text))
    assert make(name, 'runlocal').total_steps < make(name).total_steps


IMAGE_CONFIGS = ('imagenet_finetune', 'imagenet_scratch', 'imagenet21k_pretrain', 'jft_pretrain')


@pytest.mark.parametrize(
    ('name', 'model', 'res'),
    [
        *((name, 'Ti/16-8at6', 64) for name in IMAGE_CONFIGS),
        ('kinetics400', 'ViViT-Ti/16x2', 64),
        ('kinetics600', 'X2plus1D-mini:tlx2', 64),
        ('charades', 'ViViT-Ti/16x2', None),
        ('avid', 'X2plus1D-mini:tlx2', None),
        ('digits', 'mini/7', 14),
        ('moving_digits', 'ViViT-mini/16x4', None),
    ],
)
def test_the_small_form_takes_a_model_and_a_resolution(name, model, res):
    get_config = importlib.import_module(f'configs.{name}').get_config
    small = get_config('runlocal')
    given = get_config(f'runlocal,model={model}' + (f',res={res}' if res else ''))
    assert (given.model.spec, given.total_steps) == (model, small.total_steps)
    assert given.dataset.resolution == (res or small.dataset.resolution)
    assert given.dataset.data_dir == small.dataset.data_dir
    make_experiment(given.lock())


def test_arguments_are_typed_and_leftovers_refused():
    arg = common.parse_arg('a=3,flag', a=1, b=0.5, flag=False)
    assert arg.to_dict() == {'a': 3, 'b': 0.5, 'flag': True}
    assert common.parse_arg(None, a=1).a == 1
    with pytest.raises(ValueError, match="'modle' is not known; did you mean 'model'"):
        common.parse_arg('modle=B/16', model='')
    with pytest.raises(ValueError, match="'model' has no value; write model=VALUE"):
        common.parse_arg('model=', model='B/16')
    with pytest.raises(ValueError, match="res='big' is no whole number"):
        common.parse_arg('res=big', res=224)
    with pytest.raises(ValueError, match="flag='maybe' is neither true nor false"):
        common.parse_arg('flag=maybe', flag=False)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'bacth_size': 3}, 'config.bacth_size is not a known key; did you mean batch_size'),
        ({'batch_size': 9}, 'config: batch_size=9 cannot be cut into the 8 parts'),
        ({'batch_size': 0}, 'batch_size=0 cannot be cut'),
        ({'total_steps': 0}, 'config: total_steps=0 is too small'),
        ({'model': {'spec': 'mini/4', 'verson': 'v1.1'}}, 'did you mean version'),
        ({'model': {'spec': 'mini/4-8at4'}}, 'config.model: .* use 0 to 3'),
        ({'optimizer': {'name': 'adamw', 'b1': 0.9}}, 'config.optimizer.b2 is missing'),
        ({'optimizer': {'name': 'lion'}}, 'use one of adamw, momentum'),
        ({'dataset': {**DATASET, 'split': 'val'}}, 'use one of train, test'),
        ({'mesh': {'data': 3, 'fsdp': 1, 'tensor': 1}}, 'does not fit 8 devices'),
        ({'augment': {'affine': {'degrees': 3}}}, 'config.augment.affine.scale is missing'),
        ({'optimizer': {'b1': 0.9}}, 'config.optimizer.name=None is not known'),
        ({'dataset': {**DATASET, 'std': (0.0,)}}, 'use positive numbers'),
        ({'reading': {'workers': -1}}, 'workers=-1 is negative'),
        ({'eval_every_epochs': -1.0}, 'eval_every_epochs=-1.0 is not possible; use 0'),
        ({'epochs': math.inf}, 'epochs=inf is not possible; use more than 0'),
        ({'microbatches': 0}, 'microbatches=0 is too small'),
        ({'nonfinite': 'ignore'}, "nonfinite='ignore'"),
        ({'optimizer': {**ADAMW, 'clip_norm': -1.0}}, 'config.optimizer: clip_norm=-1.0 is not'),
        ({'optimizer': {**ADAMW, 'weight_decay': -0.1}}, 'weight_decay=-0.1 is not possible'),
        ({'optimizer': {**ADAMW, 'b1': 1.0}}, 'b1=1.0 is no decay; use 0 or more and less than 1'),
        ({'optimizer': {**ADAMW, 'b2': float('nan')}}, 'b2=nan is no decay'),
        ({'optimizer': {**common.MOMENTUM, 'momentum': -0.9}}, 'momentum=-0.9 is no decay'),
        ({'schedule': {**COSINE, 'learning_rate': 0.0}}, 'learning_rate=0.0 is too small'),
        ({'schedule': {**COSINE, 'name': 'linear', 'end_learning_rate': -1e-3}}, 'use 0 or more'),
        ({'clip': {'frames': 2}}, 'clip is for videos, and digits has images'),
        ({'dataset': {**DATASET, 'name': 'moving_digits'}}, 'config.clip.frames is missing'),
    ],
    ids=str,
)
def test_bad_configs_are_refused(change, message):
    config = ConfigDict(common.default_config('mini/4').to_dict() | change)
    with pytest.raises(UserError, match=message):
        make_experiment(config)
