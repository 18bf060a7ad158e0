"""Bottleneck models in the trainer: statistics of batches, and what is done with them."""

import dataclasses
import json
import logging
import re
from functools import partial
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from ml_collections import ConfigDict
from PIL import Image
from safetensors.numpy import load_file

from configs import moving_digits
from tests.test_train import on
from token_learner.spec import Backbone
from token_learner.variables import flatten_variables
from token_learner.x2plus1d import Norm
from trainers.checkpoints import open_checkpoints, restore_trained
from trainers.checks import check_model
from trainers.classification import compute_logits
from trainers.construct import UserError
from trainers.evaluators import make_evaluators
from trainers.experiment import make_experiment
from trainers.export import export
from trainers.initialize import begin
from trainers.plan import abstract_batch, count_flops
from trainers.results import count_example
from trainers.sharding import put_batch
from trainers.state import abstract_state
from trainers.step import make_train_step
from trainers.visualize import visualize

SPEC = 'X2plus1D-mini:conv2d_tlx1'


def make(spec=SPEC, **changes):
    config = moving_digits.get_config(f'model={spec}')
    config.batch_size, config.clip.frames = 16, 2
    config.dataset.update(resolution=16, eval_resolution=24)
    config.optimizer = {
        **{'name': 'momentum', 'momentum': 0.9, 'weight_decay': 0.0},
        **{'decayed': 'kernels', 'clip_norm': 0.0},
    }
    config.schedule.update(learning_rate=0.1, warmup_epochs=0.0)
    config.update_from_flattened_dict(changes)
    return make_experiment(config)


def tiny(*spec, **changes):
    """Of one block with two modules, so that it compiles quickly."""
    experiment = on(make(*spec, **changes), 1)
    backbone = Backbone(8, (16,), (32,), (2,), 8, 2, 64)
    return dataclasses.replace(experiment, model=experiment.model.clone(backbone=backbone))


def drawn_state(experiment):
    """A state of any values, which takes no program to make."""
    draw = np.random.default_rng(0)

    def fill(path, x):
        values = 0.1 * draw.normal(size=x.shape)
        if 'mutable' in jax.tree_util.keystr(path[:1]):
            values = 0.5 + np.abs(values)
        return jax.device_put(values.astype(x.dtype), x.sharding)

    return jax.tree_util.tree_map_with_path(fill, abstract_state(experiment))


class Run:
    """A compiled step, and the state before the first."""

    def __init__(self, experiment):
        self.experiment, self.step = experiment, make_train_step(experiment)
        self.first = drawn_state(experiment)

    def __call__(self, batches):
        """The state after the batches, and the loss of each."""
        state, losses = jax.tree.map(jnp.copy, self.first), []  # as a step takes its memory
        for batch in batches:
            state, sums = self.step(state, put_batch(batch, self.experiment.mesh))
            losses.append(float(sums['loss']))
        return jax.device_get(state), losses


@pytest.fixture(scope='module')
def batches():
    """Three, of which the second has two examples that are masked."""
    three = list(islice(make().train_batches(), 3))
    three[1]['mask'][[2, 7]] = 0
    return three


@pytest.fixture(scope='module')
def one():
    return Run(tiny())


@pytest.fixture(scope='module')
def trained(one, batches):
    return one(batches)


def close(a, b, **tolerance):
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


@pytest.mark.slow
def test_eight_devices_train_as_one_does(one, trained, batches):
    many = Run(on(one.experiment, 2, 4))
    assert any('fsdp' in x.sharding.spec for x in jax.tree.leaves(many.first.params))
    state, losses = many(batches)
    np.testing.assert_allclose(losses, trained[1], rtol=1e-5)
    close(state.params, trained[0].params, rtol=1e-5, atol=1e-5)
    close(state.mutable, trained[0].mutable, rtol=1e-5, atol=1e-5)


def test_masked_examples_change_nothing(one, trained, batches):
    other = {key: value.copy() for key, value in batches[1].items()}
    other['video'][[2, 7]] = 255 - other['video'][[2, 7]]
    close(one([batches[0], other, batches[2]]), trained, rtol=0)


def test_statistics_are_those_of_the_examples_that_count():
    x = jax.random.normal(jax.random.key(0), (4, 2, 3, 3, 5))
    mask = np.array([True, False, True, True])
    zero, unit = jnp.zeros(5), jnp.ones(5)
    variables = {
        'params': {'norm': {'scale': unit, 'bias': zero}},
        'batch_stats': {'norm': {'mean': zero, 'var': unit}},
    }
    (y, masked), (expected, alone) = (
        Norm().apply(variables, *args, train=True, mutable=['batch_stats'])
        for args in ((x, jnp.array(mask)), (x[mask],))
    )
    close((y[mask], masked), (expected, alone), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_microbatches_have_statistics_of_their_own(one, batches):
    message = "microbatches=2 would change .* or config.batch_statistics='microbatch'"
    with pytest.raises(UserError, match=message):
        check_model(tiny(microbatches=2))
    parts = Run(tiny(microbatches=2, batch_statistics='microbatch'))
    check_model(parts.experiment)
    state, _ = parts(batches[:1])
    experiment, variables = one.experiment, one.first.variables

    @jax.jit
    def follow(variables, clips):
        _, mutable = experiment.apply(
            variables, experiment.preprocess(clips), train=True, mutable=['batch_stats']
        )
        return {**variables, **mutable}

    for half in range(2):
        variables = follow(variables, batches[0]['video'][half::2])
    close(state.mutable, {'batch_stats': variables['batch_stats']}, rtol=1e-5, atol=1e-6)


def test_evaluation_has_the_running_statistics(one, trained):
    experiment, state = one.experiment, trained[0]
    clips = next(experiment.eval_batches(experiment.data.dataset, 'test', 16))
    assert clips['video'].shape == (16, 1, 2, 24, 24, 1)
    logits = jax.jit(partial(compute_logits, experiment))
    whole = logits(state, {'video': clips['video']})
    other = clips['video'].copy()
    other[1:] = 255 - other[1:]
    np.testing.assert_allclose(logits(state, {'video': other})[0], whole[0], rtol=1e-6)
    fresh = dataclasses.replace(state, mutable=one.first.mutable)
    assert np.abs(logits(fresh, {'video': clips['video']}) - whole).max() > 1e-3


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A workdir with a checkpoint that has averaged parameters."""
    workdir, experiment = tmp_path_factory.mktemp('saved'), on(make(ema=0.9), 1)
    return experiment, workdir, save(experiment, workdir, drawn_state(experiment))


def save(experiment, workdir, state):
    with open_checkpoints(workdir, experiment) as checkpoints:
        checkpoints.save(1, state)
    return jax.device_get(state)


@pytest.mark.slow
def test_statistics_are_restored_on_another_mesh(saved):
    experiment, workdir, state = saved
    restored = restore_trained(workdir, on(experiment, 2, 4))
    close(restored, state, rtol=0)
    close(restored.variables, {'params': state.ema, **state.mutable}, rtol=0)
    for change, message in [
        ({'clip.frames': 4}, r'with clip\.frames=2, the config has 4'),
        ({'model.spec': f'{SPEC[:-1]}2'}, r"with model\.spec='X2plus1D-mini:conv2d_tlx1', the"),
    ]:
        config = ConfigDict(experiment.config)
        config.update_from_flattened_dict(change)
        with pytest.raises(UserError, match=message):
            restore_trained(workdir, make_experiment(config))


@pytest.mark.slow
def test_the_export_has_the_statistics_and_predicts_the_same(saved):
    experiment, workdir, state = saved
    folder = export(experiment, workdir)
    assert {path.name for path in folder.iterdir()} == {
        *('model.safetensors', 'program.jax_export', 'labels.txt')
    }
    flat = load_file(folder / 'model.safetensors')
    kept = state.mutable['batch_stats']['stem_norm']['norm']['var']
    np.testing.assert_array_equal(flat['batch_stats/stem_norm/norm/var'], kept)
    clips = next(experiment.eval_batches(experiment.data.dataset, 'test', 8))['video']
    logits = jax.jit(partial(compute_logits, experiment))
    program = jax_export.deserialize(bytearray((folder / 'program.jax_export').read_bytes()))
    np.testing.assert_allclose(
        program.call(flat, clips[:, 0]), logits(state, {'video': clips}), rtol=1e-4, atol=1e-5
    )


def test_maps_are_drawn_over_the_frames_of_clips(saved):
    experiment, workdir, _ = saved
    path = visualize(experiment, make_evaluators(experiment), workdir, count=2)
    with Image.open(path) as gif:
        assert gif.n_frames == 2


@pytest.mark.slow
def test_a_plain_model_begins_one_with_token_learner(tmp_path):
    plain, new = tiny('X2plus1D-mini'), ('^head/', 'block_0_module_1/(tl|conv1d)')
    source = drawn_state(plain)
    save(plain, tmp_path / 'plain', source)
    save(plain, tmp_path / 'without', dataclasses.replace(source, mutable={}))

    def begin_from(folder, new):
        return begin(
            tiny(**{'init_from.path': str(tmp_path / folder), 'init_from.new': new, 'ema': 0.9}),
            tmp_path,
        )

    for folder, new_ones, message in [
        ('plain', ('^head/',), 'the source lacks .*/tl/.*; the model has no .*/conv1d/'),
        ('without', new, 'the source lacks batch_stats/.* and .* more: name what is to be init'),
    ]:
        with pytest.raises(UserError, match=message):
            begin_from(folder, new_ones)
    state = begin_from('plain', new)
    theirs, ours = (flatten_variables({'params': x.params, **x.mutable}) for x in (source, state))
    fresh = {path for path in ours if re.search('^head/|/tl', path)}
    assert {path for path in fresh if path.startswith('batch_stats/')} == {
        f'batch_stats/block_0_module_1/tl_norm/norm/{name}' for name in ('mean', 'var')
    }
    for path in ours.keys() - fresh:
        np.testing.assert_array_equal(ours[path], theirs[path], path)
    close(state.ema, state.params, rtol=0)
    begun = json.loads((tmp_path / 'init_from.json').read_text())
    assert begun['trained_otherwise'] == {}
    actions = {row['path']: row['action'] for row in begun['parameters']}
    assert actions['batch_stats/stem_norm/norm/var'] == 'loaded'
    assert actions['block_0_module_1/tl/attention/query/kernel'] == 'missing'
    assert actions['block_0_module_1/conv1d/conv/kernel'] == 'skipped'


def test_what_does_not_run_is_told_before_the_first_step():
    for changes, message in [
        ({'model.vector_attention': 'pallas'}, "vector_attention='pallas' does not run on a cpu"),
        ({'model.tokenizer': 'dense'}, 'eval_resolution=24: .* has layers for 16 pixels alone; tr'),
        ({'spec': 'ViViT-mini/4x2'}, 'eval_resolution=24: ViViT-mini/4x2 has layers for 16 pix'),
        ({'dataset.eval_resolution': 0}, 'eval_resolution=0 is too small; use 1 or more'),
        ({'batch_statistics': 'none'}, "batch_statistics='none' is not known; use one of batch"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            check_model(make(**changes))
        assert '\n' not in str(error.value)
    check_model(make(**{'model.tokenizer': 'dense', 'dataset.eval_resolution': 16}))


@pytest.mark.slow
def test_operations_of_a_step():
    experiment = make()
    flops = count_flops(experiment, abstract_state(experiment), abstract_batch(experiment))
    assert 2.5 < flops / (16 * 2e9 * count_example(experiment).gflops) < 4


def test_videos_that_are_looped_are_told_of_once(caplog):
    experiment = make(**{'clip.frames': 24})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            next(experiment.train_batches())
    assert [r.getMessage() for r in caplog.records] == [
        'moving_digits/train: 4000 of 4000 videos are shorter than the 47 frames that a clip '
        'covers, and are looped'
    ]
