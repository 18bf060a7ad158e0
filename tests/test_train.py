"""The train step on real digits: devices, sharding, optimizers, schedules, workers."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from configs import digits, moving_digits
from datasets.pipeline import Reading
from tests.conftest import run_script, slow
from trainers.construct import UserError
from trainers.experiment import make_experiment
from trainers.sharding import AXES, infer_shardings, put_batch
from trainers.state import abstract_state, create_state
from trainers.step import make_train_step

ROOT = Path(__file__).parents[1]
SPEC = 'mini/7-4at1-fuser'


def make(**changes):
    config = digits.get_config(f'model={SPEC},runlocal')
    config.update_from_flattened_dict(changes)
    return make_experiment(config)


def on(experiment, data, fsdp=1, tensor=1):
    """The same experiment on the first data * fsdp * tensor devices."""
    devices = np.array(jax.devices()[: data * fsdp * tensor]).reshape(data, fsdp, tensor)
    return dataclasses.replace(experiment, mesh=jax.sharding.Mesh(devices, AXES))


def losses(experiment, steps):
    batches = experiment.train_batches()
    state, step = create_state(experiment), make_train_step(experiment)
    curve = []
    for _ in range(steps):
        state, sums = step(state, put_batch(next(batches), experiment.mesh))
        curve.append(float(sums['loss']) / float(sums['n']))
    return np.array(curve), state


@functools.cache
def losses_of_one(steps):
    return losses(on(make(), 1), steps)[0]


@pytest.mark.parametrize('mesh', [slow((8, 1, 1)), slow((1, 8, 1)), (2, 2, 2)], ids=str)
def test_eight_devices_give_the_loss_curve_of_one(mesh):
    one, (many, _) = losses_of_one(10), losses(on(make(), *mesh), 10)
    assert one[-1] < one[0]
    np.testing.assert_allclose(many, one, rtol=1e-5)


@pytest.mark.slow
def test_eight_devices_train_a_vivit_as_one_does():
    config = moving_digits.get_config('model=ViViT-mini/16x4-2at1-fuser')
    config.clip.frames, config.model.mix_scope = 8, 'clip'
    config.model.update(stochastic_depth=0.5, remat='full', scan=True)
    experiment = make_experiment(config)
    one, _ = losses(on(experiment, 1), 4)
    for mesh in [(1, 8, 1), (2, 2, 2)]:
        many, _ = losses(on(experiment, *mesh), 4)
        np.testing.assert_allclose(many, one, rtol=1e-5)


@pytest.mark.slow
def test_microbatches_train_as_the_whole_batch_does():
    for mesh in [(1, 1, 1), (2, 2, 2)]:
        parts, _ = losses(on(make(microbatches=4), *mesh), 10)
        np.testing.assert_allclose(parts, losses_of_one(10), rtol=1e-5)
    with pytest.raises(UserError, match='8 parts of the mesh and 8 microbatches'):
        make(microbatches=8)


@pytest.mark.slow
def test_scan_and_remat_train_as_plain_layers_do():
    plain, expected = losses(on(make(), 2), 10)
    for options in ({'model.scan': True}, {'model.scan': True, 'model.remat': 'dots'}):
        curve, state = losses(on(make(**options), 2), 10)
        np.testing.assert_allclose(curve, plain, rtol=1e-5)
        assert jax.tree.structure(state) == jax.tree.structure(expected)


def test_fsdp_shards_the_largest_axis_and_the_optimizer_state_with_it():
    state = abstract_state(on(make(), 1, 8))
    specs = {
        jax.tree_util.keystr(path, simple=True, separator='/'): x.sharding.spec
        for path, x in jax.tree_util.tree_leaves_with_path(state)
    }
    hidden = 'encoder/block_0/mlp/hidden/kernel'  # 64 x 256
    assert specs[f'params/{hidden}'] == P(None, 'fsdp')
    moments = [spec for path, spec in specs.items() if path.endswith(f'/{hidden}')]
    assert len(moments) == 3
    assert set(moments) == {P(None, 'fsdp')}
    assert specs['step'] == P()


def test_tensor_parallel_rules_and_what_fsdp_takes_of_the_rest():
    state = abstract_state(on(make(), 1, 4, 2))
    specs = {
        jax.tree_util.keystr(path, simple=True, separator='/'): x.sharding.spec
        for path, x in jax.tree_util.tree_leaves_with_path(state)
    }
    expected = {
        'attention/query/kernel': P('fsdp', 'tensor'),  # 64 x 4 heads x 16
        'attention/query/bias': P('tensor'),
        'attention/out/kernel': P('tensor', None, 'fsdp'),
        'attention/out/bias': P(),
        'mlp/hidden/kernel': P('fsdp', 'tensor'),
        'mlp/out/kernel': P('tensor', 'fsdp'),
        'norm_mlp/scale': P(),
    }
    for name, spec in expected.items():
        found = {v for k, v in specs.items() if k.endswith(f'encoder/block_0/{name}')}
        assert found == {spec}, name


@pytest.mark.parametrize(
    ('rule', 'message'),
    [
        (('kernel', ('tensor',)), r'fit a/kernel \[8, 15\]: it has 1 axes; name one'),
        (('kernel', ('tensro', None)), "'tensro' is no axis; use data, fsdp, tensor"),
        (('kernel', (None, 'tensor')), 'tensor=2 does not divide 15; use another'),
        (('kernle', ('tensor', None)), 'fits no parameter'),
    ],
)
def test_rules_that_do_not_fit_are_refused(rule, message):
    mesh, tree = on(make(), 1, 4, 2).mesh, {'a': {'kernel': np.zeros((8, 15))}}
    with pytest.raises(UserError, match=message):
        infer_shardings(tree, mesh, [rule])


def test_the_step_is_the_gradient_of_the_mean_over_unmasked_examples():
    experiment = on(make(), 1)
    state = create_state(experiment)
    batch = next(experiment.train_batches())
    half = {k: v[:16] for k, v in batch.items()}
    batch['mask'][16:] = 0
    batch['label'][16:] = 0
    step = make_train_step(experiment)
    masked, sums = step(create_state(experiment), put_batch(batch, experiment.mesh))
    alone, _ = step(state, put_batch(half, experiment.mesh))
    assert float(sums['n']) == 16
    for a, b in zip(*map(jax.tree.leaves, (masked.params, alone.params)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def first_update(experiment, grads, params):
    optimizer = experiment.optimizer
    return jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p)[0])(grads, params)


@pytest.mark.slow
def test_weight_decay_falls_on_kernels_only_and_clipping_on_the_global_norm():
    experiment = on(make(**{'optimizer.weight_decay': 1.0, 'schedule.warmup_epochs': 0.0}), 1)
    params = create_state(experiment).params
    zero = jax.tree.map(np.zeros_like, params)
    updates = first_update(experiment, zero, params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        if path[-1].key == 'kernel':
            continue
        assert not np.any(update), path
    rate = float(experiment.schedule(0))
    kernel = updates['encoder']['block_0']['mlp']['out']['kernel']
    np.testing.assert_allclose(
        kernel, -rate * params['encoder']['block_0']['mlp']['out']['kernel'], rtol=1e-5
    )
    config = digits.get_config('runlocal')
    config.optimizer = {
        'name': 'momentum',
        'momentum': 0.9,
        'weight_decay': 0.0,
        'decayed': 'kernels',
        'clip_norm': 0.5,
    }
    config.schedule.warmup_epochs = 0.0
    sgd = make_experiment(config)
    grads = jax.tree.map(np.ones_like, params)
    updates = first_update(sgd, grads, params)
    assert float(optax.tree.norm(updates)) == pytest.approx(0.5 * float(sgd.schedule(0)), 1e-4)


@pytest.mark.parametrize('name', ['cosine', 'linear'])
def test_schedules_rise_and_end_at_zero(name):
    warmup = 250  # 2 epochs of 4,000 digits in batches of 32
    changes = {'schedule.name': name, 'schedule.warmup_epochs': 2.0}
    experiment = make(**changes, total_steps=2 * warmup)
    with pytest.raises(ValueError, match=r'warmup_epochs=2\.0 are 250 of 250 steps; use fewer'):
        make(**changes, total_steps=warmup)
    rates = [float(experiment.schedule(s)) for s in (0, warmup // 2, warmup, 2 * warmup)]
    np.testing.assert_allclose(rates, [0, 1e-3, 2e-3, 0], atol=1e-9)
    assert float(experiment.schedule(warmup * 3 // 2)) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.slow
def test_worker_processes_give_the_same_batches(tmp_path):
    code = (
        'import numpy as np\n'
        'from absl import app\n'
        'from datasets import load_dataset\n'
        'from datasets.pipeline import Reading, train_batches\n'
        'from datasets.examples import Images\n'
        'from datasets.geometry import Resize\n'
        'class Noise(Resize):\n'
        '    def __call__(self, image, seed):\n'
        '        rng = np.random.default_rng(seed)\n'
        '        return image + rng.integers(0, 255, image.shape, image.dtype)\n'
        'def main(argv):\n'
        '    digits = load_dataset("digits")\n'
        '    images = Images(digits, "train", Noise(28))\n'
        '    make = lambda n: train_batches(images, batch_size=8, seed=1,\n'
        '                                   start_step=5, reading=Reading(workers=n))\n'
        '    for _, a, b in zip(range(5), make(0), make(2)):\n'
        '        assert all((a[k] == b[k]).all() for k in a)\n'
        '    print("same")\n'
        'if __name__ == "__main__":\n'
        '    app.run(main)\n'
    )
    assert run_script(tmp_path, code) == 'same\n'
    assert Reading().workers == 0
