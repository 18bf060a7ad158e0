"""Options that change how fast a model computes, and not what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.conftest import slow
from token_learner import build_model, count, stack_layers, unstack_layers
from token_learner.maps import apply_with_maps

IMAGES = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
SPECS = {
    'mini/4': {},
    'mini/4-8at2': {},
    'mini/4-8at1-fuser': {},
    'mini/4-8at2-fuser': {'fuser': 'unpool'},
    'mini/4-16at1at2': {'tokenizer': 'merge'},
    'mini/4-pool2at1at3': {},
}
CASES = [spec if spec == 'mini/4-8at1-fuser' else slow(spec) for spec in SPECS]


def build(spec, **options):
    return build_model({'spec': spec, **SPECS[spec], **options}, 5)


@functools.cache
def reference(spec):
    """Parameters, all of them at work, and the outputs and gradients of the plain model."""
    model = build(spec, attention='xla')
    params = jax.jit(model.init)(jax.random.key(1), IMAGES)['params']
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    scale = 1 / 32 if spec.endswith('fuser') else 1 / 8  # larger ones are ill-conditioned
    leaves = [p + scale * jax.random.normal(k, p.shape) for k, p in zip(keys, leaves, strict=True)]
    params = jax.tree.unflatten(tree, leaves)
    return params, run(model, params)


def run(model, params):
    def loss(params):
        variables = {'params': params}
        if model.scan:
            variables = stack_layers(variables, model)
        logits = model.apply(variables, IMAGES)
        return (logits**2).mean(), logits

    (_, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return {'logits': logits, 'grads': grads}


def assert_close(ours, expected, rtol=2e-5):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(expected), strict=True
    ):
        scale = np.abs(b).max() + 1e-3
        assert np.abs(a - b).max() <= rtol * scale, jax.tree_util.keystr(path)


@pytest.mark.parametrize('spec', CASES)
@pytest.mark.parametrize(
    'options',
    [{'scan': True, 'remat': 'full'}, slow({'remat': 'dots'}), slow({'scan': True})],
    ids=str,
)
def test_remat_and_scan_change_neither_outputs_nor_gradients(spec, options):
    params, expected = reference(spec)
    assert_close(run(build(spec, **options), params), expected)


@pytest.mark.parametrize('spec', CASES)
def test_bfloat16_is_close(spec):
    params, expected = reference(spec)
    ours = run(build(spec, dtype='bfloat16'), params)
    assert {x.dtype for x in jax.tree.leaves(ours['grads'])} == {jnp.dtype('float32')}
    if 'merge' in SPECS[spec].values():
        return  # other tokens may be the most similar
    error = np.abs(ours['logits'].astype(jnp.float32) - expected['logits']).max()
    assert error < 0.05 * np.abs(expected['logits']).max()
    norm = optax.tree.norm
    difference = jax.tree.map(lambda a, b: a - b, ours['grads'], expected['grads'])
    assert norm(difference) < 0.1 * norm(expected['grads'])


@pytest.mark.parametrize('spec', CASES)
def test_stacking_is_undone_without_loss(spec):
    params, _ = reference(spec)
    model = build(spec, scan=True)
    stacked = stack_layers({'params': params}, model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)['params']
    assert jax.tree.map(jnp.shape, stacked['params']) == jax.tree.map(jnp.shape, shapes)
    back = unstack_layers(stacked)
    assert jax.tree.structure(back) == jax.tree.structure({'params': params})
    jax.tree.map(np.testing.assert_array_equal, back, {'params': params})


def test_a_layer_s_own_modules_may_be_named_like_layers():
    model = build('mini/4-8at1-fuser', scan=True)
    tree = {f'tokenizer_{i}': {'block_2': {'scale': jnp.ones(3) * i}} for i in (1, 2, 3)}
    stacked = stack_layers(tree, model)
    assert stacked['layers_1_4']['tokenizer']['block_2']['scale'].shape == (3, 3)
    jax.tree.map(np.testing.assert_array_equal, unstack_layers(stacked), tree)


@pytest.mark.slow
def test_maps_of_a_scanned_model_are_those_of_the_plain_one():
    spec = 'mini/4-8at1-fuser'
    params, _ = reference(spec)
    _, expected = apply_with_maps(build(spec), {'params': params}, IMAGES)
    model = build(spec, scan=True)
    stacked = stack_layers({'params': params}, model)
    _, sown = model.apply(stacked, IMAGES, mutable='intermediates')
    sown = unstack_layers(sown)['intermediates']['encoder']
    for layer, maps in expected.items():
        np.testing.assert_allclose(sown[f'tokenizer_{layer}']['maps'][0], maps, atol=1e-5)


@pytest.mark.slow
def test_remat_repeats_the_dropout_of_the_forward_pass():
    params, _ = reference('mini/4-8at2')

    def run(**options):
        model = build('mini/4-8at2', dropout=0.2, attention='xla', **options)

        def loss(params):
            key = {'dropout': jax.random.key(3)}
            return (model.apply({'params': params}, IMAGES, train=True, rngs=key) ** 2).mean()

        value, grads = jax.jit(jax.value_and_grad(loss))(params)
        return {'loss': value, 'grads': grads}

    assert_close(run(remat='full'), run())


def saved_bytes(model, params):
    """What the forward pass keeps for the backward pass."""
    _, backward = jax.eval_shape(
        lambda p: jax.vjp(lambda p: model.apply({'params': p}, IMAGES).sum(), p), params
    )
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(backward))


def test_remat_keeps_less_for_the_backward_pass():
    params, _ = reference('mini/4-8at1-fuser')
    none, dots, full = (
        saved_bytes(build('mini/4-8at1-fuser', remat=remat), params)
        for remat in ('none', 'dots', 'full')
    )
    assert full < dots < none
    assert full < 0.5 * none


def test_scan_traces_equal_layers_once():
    def equations(**options):
        model = build('mini/4', **options)
        variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
        return len(jax.make_jaxpr(model.apply)(variables, IMAGES).eqns)

    assert equations(scan=True) < equations() / 2
    assert count(build('mini/4', scan=True), IMAGES)[''] == count(build('mini/4'), IMAGES)['']
