"""Checkpoints: damage of every kind, other meshes, what is kept, and disks that are full."""

import dataclasses
import itertools
import json
import logging
import shutil
import sys

import jax
import numpy as np
import pytest

from tests.conftest import slow
from tests.test_train import make, on
from trainers.checkpoints import open_checkpoints, restore_trained
from trainers.construct import UserError
from trainers.sharding import put_batch
from trainers.state import create_state
from trainers.step import make_train_step
from trainers.terminal import ignore_orbax


def train(experiment, state, step, steps):
    """Trains from a step on; the state and the losses."""
    batches = experiment.train_batches(step)
    train_step, losses = make_train_step(experiment), []
    for batch in itertools.islice(batches, steps):
        state, sums = train_step(state, put_batch(batch, experiment.mesh))
        losses.append(float(sums['loss']) / float(sums['n']))
    return state, np.array(losses)


# Warnings of what Orbax drops when a read fails, which come at any later time.
pytestmark = pytest.mark.filterwarnings(
    'ignore:.*_read_array:pytest.PytestUnraisableExceptionWarning'
)


@pytest.fixture(scope='module', autouse=True)
def quiet():
    hooks = sys.unraisablehook, sys.excepthook
    ignore_orbax()
    yield
    sys.unraisablehook, sys.excepthook = hooks


@pytest.fixture(scope='module')
def experiment():
    return on(make(**{'checkpoint.keep': 2}), 2, 2, 2)


@pytest.fixture(scope='module')
def saved(experiment, tmp_path_factory):
    """A workdir with steps 3 and 6, and the losses of the 5 steps after."""
    workdir = tmp_path_factory.mktemp('saved')
    state, step = create_state(experiment), 0
    with open_checkpoints(workdir, experiment) as checkpoints:
        for step in (3, 6):
            state, _ = train(experiment, state, step - 3, 3)
            checkpoints.save(step, state)
        checkpoints.finish()
    _, losses = train(experiment, state, 6, 5)
    return workdir, losses


@pytest.fixture
def copy(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize('mesh', [(4, 1, 1), (1, 2, 2), (1, 1, 1)])
def test_a_checkpoint_of_eight_devices_goes_on_on_fewer(experiment, saved, mesh):
    workdir, expected = saved
    fewer = on(experiment, *mesh)
    state = restore_trained(workdir, fewer)
    assert int(state.step) == 6
    _, losses = train(fewer, state, 6, 5)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def largest(folder):
    return max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(step):
    path = largest(step / 'state')
    with path.open('r+b') as file:
        file.truncate(path.stat().st_size // 2)


DAMAGE = {
    'a truncated array file': truncate,
    'a deleted array file': lambda step: largest(step / 'state').unlink(),
    'deleted array metadata': lambda step: (step / 'state' / '_METADATA').unlink(),
    'deleted step metadata': lambda step: (step / '_CHECKPOINT_METADATA').unlink(),
    'a deleted identity': lambda step: shutil.rmtree(step / 'identity'),
    'an empty identity': lambda step: (step / 'identity' / 'metadata').write_text(''),
    'an empty step': lambda step: (shutil.rmtree(step), step.mkdir()),
    'a step cut off': lambda step: step.rename(step.with_name('6.orbax-checkpoint-tmp')),
}


FIRST, *REST = DAMAGE


@pytest.mark.parametrize('kind', [FIRST, *map(slow, REST)])
def test_the_step_before_a_damaged_one_is_taken(experiment, copy, kind, caplog):
    DAMAGE[kind](copy / 'checkpoints' / '6')
    with open_checkpoints(copy, experiment) as checkpoints:
        state = checkpoints.restore()
        whole = kind == 'deleted step metadata'  # nothing of it is needed
        assert int(state.step) == (6 if whole else 3)
        if whole:
            return
        warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert any('step 6' in text and 'step 3' in text for text in warnings), warnings
        again, _ = train(experiment, state, 3, 3)
        checkpoints.save(6, again)
        checkpoints.finish()
    assert int(restore_trained(copy, experiment).step) == 6


def test_all_damaged_is_one_error(experiment, copy):
    for step in ('3', '6'):
        truncate(copy / 'checkpoints' / step)
    with pytest.raises(UserError, match=r'every checkpoint .* is damaged \(steps 3, 6\)'):
        restore_trained(copy, experiment)
    assert {p.name for p in (copy / 'checkpoints').iterdir()} == {'3', '6'}


def test_what_a_checkpoint_holds(experiment, saved):
    step = saved[0] / 'checkpoints' / '6'
    assert json.loads((step / 'config' / 'metadata').read_text()) == dict(experiment.config)
    identity = json.loads((step / 'identity' / 'metadata').read_text())
    assert len(identity['dataset.labels']) == 16
    state = restore_trained(saved[0], experiment)
    fresh = create_state(experiment)
    assert np.array_equal(state.rng, fresh.rng)
    assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, fresh)


@pytest.mark.slow
def test_the_newest_and_every_nth_are_kept(tmp_path):
    experiment = on(make(**{'checkpoint.keep': 2, 'checkpoint.keep_every_steps': 4}), 1)
    state = create_state(experiment)
    with open_checkpoints(tmp_path, experiment) as checkpoints:
        for step in range(1, 8):
            checkpoints.save(step, dataclasses.replace(state, step=state.step + step))
        checkpoints.finish()
    kept = {p.name for p in (tmp_path / 'checkpoints').iterdir() if p.is_dir()}
    assert kept == {'4', '6', '7'}
