from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from token_learner import build_model, count, parse_spec
from token_learner.attention import Attention
from token_learner.build_bottleneck import build_x2plus1d
from token_learner.prior_attention import PriorAttention
from token_learner.space_time import (
    Broadcast,
    FrameMixer,
    PositionFuser,
    SpaceTimeAttention,
    TemporalConv,
    TokenTransformer,
)
from token_learner.spec import Backbone, BottleneckSpec
from token_learner.vector_transformer import VectorTransformer
from token_learner.x2plus1d import X2plus1D

LAYERS = {
    'conv1d_mixer': {},
    'temporal': {'transformer': 'vector'},
    'spatial_joint': {},
    'tl': {'transformer': 'mhsa', 'composition': 'text'},
    'conv2d_tl': {'transformer': 'prior', 'fuser': 'broadcast'},
}
CLIPS = jax.random.normal(jax.random.key(0), (2, 4, 16, 16, 3))


def tiny(**settings):
    """Two residual modules, the second with Conv2D + TokenLearner."""
    dtype = settings.get('dtype', jnp.float32)
    layers = build_x2plus1d('X2plus1D-mini:conv2d_tl', 3, dtype=jnp.dtype(dtype).name).layers
    backbone = Backbone(4, (6,), (8,), (2,), 8, 2, 8)
    return X2plus1D(3, backbone, layers, 1, **settings)


def random_params(variables):
    """So that nothing is zero: last scales, mixing and biases begin with it."""
    leaves, tree = jax.tree.flatten(variables['params'])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    draw = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return {**variables, 'params': jax.tree.unflatten(tree, draw)}


def grid(*shape):
    return jax.random.normal(jax.random.key(2), shape)


def apply(module, *args, seed=3):
    variables = random_params(module.init(jax.random.key(seed), *args))
    return module.apply(variables, *args), variables['params']


def test_the_grammar_of_bottleneck_models():
    assert parse_spec('X2plus1D-M') == BottleneckSpec('M', ('conv2d', 'conv1d'), 0)
    assert parse_spec('X2plus1D-M:conv2d_tlx3') == BottleneckSpec('M', ('conv2d', 'tl'), 3)
    assert parse_spec('X2plus1D-M:conv2d_tl').replaced == 7
    assert parse_spec('X2plus1D-M:spatial_temporal').replaced == 6
    assert parse_spec('X2plus1D-M:conv2d_conv1dx2') == parse_spec('X2plus1D-M')
    for text, message in (
        ('X2plus1D-M:conv2d_tlx8', 'replaces 8 modules, but the last block has 7; use 1 to 7'),
        ('X2plus1D-M:tlx7', 'the module that halves the grid, which tl cannot; use 1 to 6'),
        ('X2plus1D-M:tlx0', 'replaces no module'),
        ('X2plus1D-M:tlx03', 'no layer'),
        ('X2plus1D-M:conv3d', "no layer 'conv3d' to offer; use some of conv2d"),
        ('X2plus1D-M:tl_conv2d', 'conv2d not first'),
        ('X2plus1D-M:tl_tl', 'a layer twice'),
        ('X2plus1D-Q', 'not a model spec'),
        ('X2plus1D', 'not a model spec'),
    ):
        with pytest.raises(ValueError, match=message):
            parse_spec(text)


@pytest.mark.slow
def test_every_layer_has_gradients_everywhere():
    """At random parameters; all in one program."""
    x = grid(2, 4, 2, 2, 48)
    layers = {
        f'{spec} {name}': factory()
        for spec, settings in LAYERS.items()
        for name, factory in build_x2plus1d(f'X2plus1D-mini:{spec}', 3, **settings).layers
        if factory
    }
    variables = {
        key: random_params(jax.jit(layer.init)(jax.random.key(0), x))
        for key, layer in layers.items()
    }

    @jax.jit
    def gradients(variables):
        def loss(variables):
            return sum((layer.apply(variables[key], x) ** 2).sum() for key, layer in layers.items())

        return jax.grad(loss)(variables)

    for path, gradient in flatten_dict(gradients(variables), sep='/').items():
        assert np.isfinite(gradient).all(), path
        assert np.any(gradient), path


def test_published_parameters_of_the_multi_head_attention():
    """297,216 for widths of 128 and 432 (Table 12, 0.30M), no biases and no output projection."""
    attention = Attention(8, query_width=128, project=False, use_bias=False)
    params = jax.eval_shape(attention.init, jax.random.key(0), jnp.zeros((1, 2, 432)))['params']
    assert {k: v['kernel'].shape for k, v in params.items()} == {
        'query': (432, 8, 16),
        'key': (432, 8, 16),
        'value': (432, 8, 54),
    }


@pytest.mark.parametrize(
    ('axes', 'seen'),
    [
        ('spatial', np.s_[0, 1]),
        ('temporal', np.s_[0, :, 1, 2]),
        ('joint', np.s_[0]),
    ],
)
def test_attention_axes_are_what_they_are_called(axes, seen):
    x = grid(2, 3, 2, 4, 8)
    layer = SpaceTimeAttention(axes, partial(Attention, 2))
    out, params = apply(layer, x)
    changed = layer.apply({'params': params}, x.at[0, 1, 1, 2].multiply(-3.0)) - out
    expected = np.zeros(x.shape[:-1], bool)
    expected[seen] = True
    np.testing.assert_array_equal(np.abs(changed).max(-1) > 1e-5, expected)


def test_temporal_convolution_is_a_convolution_over_time_at_each_position():
    x = grid(2, 5, 2, 3, 4)
    out, params = apply(TemporalConv(), x)
    kernel = np.asarray(params['conv']['kernel'])[:, 0]
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    expected = sum(padded[:, k : k + 5] @ kernel[k] for k in range(3))
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.slow
def test_vector_transformer_by_hand_and_its_gamma():
    x = grid(2, 5, 6)
    out, params = apply(VectorTransformer(), x)
    q, k, v = (np.asarray(x) @ params[name]['kernel'] for name in ('query', 'key', 'value'))
    weights = np.exp(q[:, :, None] * k[:, None])
    weights /= weights.sum(2, keepdims=True)
    np.testing.assert_allclose(out, (weights * v[:, None]).sum(2), atol=1e-5)
    assert 'gamma' not in params
    with pytest.raises(ValueError, match="'blockwise' has no gamma"):
        apply(VectorTransformer(query_width=4, implementation='blockwise'), x)
    wide, params = apply(VectorTransformer(query_width=4), x)
    q, k, v = (np.asarray(x) @ params[name]['kernel'] for name in ('query', 'key', 'value'))
    weights = np.exp((q[:, :, None] * k[:, None]) @ params['gamma']['kernel'])
    weights /= weights.sum(2, keepdims=True)
    np.testing.assert_allclose(wide, (weights * v[:, None]).sum(2), atol=1e-5)


def test_prior_attention_by_hand():
    x = grid(1, 5, 6)
    out, params = apply(PriorAttention(2), x)
    weights = np.exp(params['prior'])
    weights /= weights.sum(-1, keepdims=True)
    values = (np.asarray(x) @ params['value']['kernel']).reshape(5, 2, 3)
    expected = np.stack([weights[k] @ values[:, k] for k in range(2)], 1).reshape(1, 5, 6)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    with pytest.raises(ValueError, match='4 heads do not divide the width 6'):
        PriorAttention(4).init(jax.random.key(0), x)


def test_fusers_and_mixer_by_hand():
    x, tokens = grid(2, 3, 2, 2, 4), grid(2, 3, 4, 4)
    out, params = apply(PositionFuser(), tokens, x)
    gate = 1 / (1 + np.exp(-np.asarray(x) @ params['beta']['kernel']))
    np.testing.assert_allclose(out, x + gate * tokens.reshape(x.shape), atol=1e-5)
    out = Broadcast().apply({}, tokens, x)
    np.testing.assert_allclose(out - x, np.broadcast_to(tokens.mean(2)[:, :, None, None], x.shape),
                               atol=1e-5)  # fmt: skip
    out, params = apply(FrameMixer(), x)
    sizes = {k: v.shape for k, v in flatten_dict(params, sep='/').items()}
    assert sorted(sizes.values()) == [(3, 3), (3, 3), (4, 4), (4, 4)]
    means = np.asarray(x.mean((2, 3)))

    def mlp(x, name):
        layers = params[name]
        return np.asarray(nn.gelu(x @ layers['hidden']['kernel'])) @ layers['out']['kernel']

    over_time = mlp(means.swapaxes(1, 2), 'times').swapaxes(1, 2)
    update = over_time + mlp(means + over_time, 'channels')
    np.testing.assert_allclose(out, x + update[:, :, None, None], atol=1e-5)


def test_the_token_module_begins_as_its_projection_and_sees_all_frames():
    model = build_x2plus1d('X2plus1D-mini:tl', 3)
    layer = model.layers[0][1]()
    assert isinstance(layer, TokenTransformer)
    x = grid(1, 4, 4, 4, 48)
    variables = layer.init(jax.random.key(0), x)
    projected = x @ variables['params']['project']['kernel']
    np.testing.assert_allclose(layer.apply(variables, x), projected, atol=1e-5)
    variables = random_params(variables)
    moved = layer.apply(variables, x.at[:, 0].add(1.0)) - layer.apply(variables, x)
    assert np.abs(moved[:, 3]).max() > 1e-4


@pytest.mark.slow
def test_norm_statistics_leave_masked_examples_out():
    model = tiny()
    variables = model.init(jax.random.key(0), CLIPS)

    @jax.jit
    def train(clips, mask):
        return model.apply(variables, clips, mask, train=True, mutable=['batch_stats'])

    out, stats = train(CLIPS, jnp.array([True, False]))
    other, same = train(CLIPS.at[1].multiply(7.0), jnp.array([True, False]))
    np.testing.assert_allclose(out[0], other[0], atol=1e-5)
    for a, b in zip(jax.tree.leaves(stats), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    _, none = train(CLIPS, jnp.array([False, False]))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(none))
    _, all_of_them = train(CLIPS.at[1].multiply(7.0), jnp.array([True, True]))
    assert np.abs(jax.tree.leaves(all_of_them)[0] - jax.tree.leaves(stats)[0]).max() > 1e-3


@pytest.mark.slow
def test_remat_and_bfloat16_compute_the_same():
    variables = random_params(tiny().init(jax.random.key(0), CLIPS))

    def run(model):
        def loss(params):
            out, _ = model.apply(
                {**variables, 'params': params}, CLIPS, train=True, mutable=['batch_stats']
            )
            return (out**2).mean(), out

        return jax.jit(jax.grad(loss, has_aux=True))(variables['params'])

    grads, out = run(tiny())
    again, same = run(tiny(remat='full'))
    np.testing.assert_allclose(out, same, rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max())
    _, low = run(tiny(dtype=jnp.bfloat16))
    assert low.dtype == jnp.bfloat16
    assert np.abs(low - out).max() < 0.1 * np.abs(out).max()


def test_the_transformer_is_that_of_the_last_layer():
    layers = dict(build_x2plus1d('X2plus1D-mini:tl_temporal', 3, transformer='prior').layers)
    kinds = [layers[name]().transformer.func for name in ('tl', 'temporal')]
    assert kinds == [VectorTransformer, PriorAttention]


def test_models_whose_first_module_cannot_halve_the_grid():
    backbone, layers = Backbone(4, (6,), (8,), (2,), 8, 2, 8), (('conv1d', TemporalConv),)
    for replaced, own, message in (
        (3, layers, 'use 0 to 2'),
        (-1, layers, 'use 0 to 2'),
        (1, (), '0 layers; give both'),
        (2, layers, 'needs a conv2d as its first layer'),
    ):
        with pytest.raises(ValueError, match=message):
            X2plus1D(3, backbone, own, replaced)


def test_any_size_and_length_of_clips():
    model = build_model({'spec': 'X2plus1D-mini:conv2d_tlx2'}, 3)
    variables = jax.eval_shape(model.init, jax.random.key(0), CLIPS)
    for shape in ((1, 6, 40, 40, 3), (1, 4, 33, 47, 3)):
        assert jax.eval_shape(model.apply, variables, jnp.zeros(shape)).shape == (1, 3)
    assert model.cell == (1, 8, 8)
    with pytest.raises(ValueError, match='a model of clips, not of images; use a ViT'):
        model.position_grid((32, 32))


@pytest.mark.parametrize(
    ('spec', 'settings', 'message'),
    [
        ('X2plus1D-M', {'num_tokens': 4}, 'num_tokens=4 does nothing to X2plus1D-M; add tl'),
        ('X2plus1D-M', {'transformer': 'vector'}, 'end it with tl, temporal or joint'),
        ('X2plus1D-M:tl', {'composition': 'table13'}, 'use one of table12, text'),
        ('X2plus1D-M:tl', {'tokenizer': 'grid', 'pooling': 'sum'}, 'use token_learner'),
        ('X2plus1D-M:tl', {'tokenizer': 'none', 'composition': 'text'}, 'does nothing'),
        ('X2plus1D-M:tl', {'num_tokens': 0}, 'use 1 or more'),
        ('X2plus1D-M:tl', {'vector_attention': 'linear'}, 'use one of auto, plain'),
        ('X2plus1D-M:tl', {'scan': True}, 'scan is not a known key'),
        ('X2plus1D-M:tl', {'remat': 'dots'}, 'use one of none, full'),
        ('X2plus1D-M:tl', {'dropout': 1.0}, 'is no rate'),
        ('X2plus1D-M:tl', {'attention': 'cudnn'}, 'does not compute in dtype=float32'),
        ('X2plus1D-M:tl', {'dtype': 'int32'}, 'cannot hold activations'),
        ('B/16', {'vector_attention': 'plain'}, 'vector_attention is not a known key'),
    ],
)
def test_settings_that_cannot_be(spec, settings, message):
    with pytest.raises(ValueError, match=message):
        build_model({'spec': spec, **settings}, 3)


def test_counts_of_the_backbone():
    """Table 11's 532 GFLOPs: 2 a multiply-add, taps in the padding included."""
    model = build_model({'spec': 'X2plus1D-M'}, 887)
    cost = count(model, jax.ShapeDtypeStruct((1, 64, 256, 256, 3), jnp.float32))['']
    assert round(cost.bottleneck_gflops, 1) == 531.9
    assert cost.params == 27_447_939
