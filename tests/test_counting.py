import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from token_learner import EncoderBlock, TokenFuser, TokenLearner, build_model
from token_learner.counting import Cost, count


def image(size, channels=3):
    return jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)


def test_a_dense_layer_by_hand():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.relu(nn.Dense(7, name='dense')(x))

    costs = count(Model(), jnp.zeros((2, 5)))
    dense = Cost(params=5 * 7 + 7, macs=2 * 5 * 7, padded_macs=2 * 5 * 7, elementwise=2 * 7)
    assert costs['dense'] == dense
    assert costs[''] == dense + Cost(elementwise=2 * 7)
    assert costs[''].gflops == pytest.approx((2 * 70 + 28) / 2e9)
    assert costs[''].bottleneck_gflops == 2 * 70 / 1e9


def test_a_convolution_counts_the_taps_inside_the_image():
    conv = nn.Conv(4, (3, 3), use_bias=False)
    cost = count(conv, image(8, 5))['']
    assert cost.macs == (3 * 8 - 2) ** 2 * 5 * 4
    assert cost.padded_macs == 9 * 8 * 8 * 5 * 4
    strided = count(nn.Conv(4, (3, 3), 2, padding=1, use_bias=False), image(8, 5))['']
    assert (strided.macs, strided.padded_macs) == (11**2 * 20, 9 * 16 * 20)
    spread = count(nn.Conv(4, (3, 1), kernel_dilation=(2, 1), use_bias=False), image(8, 5))['']
    assert (spread.macs, spread.padded_macs) == ((3 * 8 - 4) * 8 * 20, 3 * 64 * 20)
    grouped = count(nn.Conv(6, (1, 1), feature_group_count=3, use_bias=False), image(8, 6))['']
    assert grouped.macs == 64 * 2 * 6


def closed_forms(n, c, m, k, s, g):
    """Multiply-adds and elementwise operations, by hand."""
    hw = g * g
    return {
        EncoderBlock(k, m): (
            4 * n * c * c + 2 * n * n * c + 2 * n * c * m,
            22 * n * c + 9 * n * m + 4 * k * n * n - k * n + 8 * n,
        ),
        TokenLearner(s): (
            (3 * g - 2) ** 2 * (c * s + 3 * s * s) + hw * c * s,
            7 * hw * c + 27 * hw * s - c * s + 4 * hw,
        ),
        TokenFuser(): (s * s * c + 2 * hw * c * s, 4 * hw * s + s * c + hw * c),
    }


def test_modules_against_closed_forms():
    n, c, m, k, s, g = 10, 16, 48, 4, 5, 6
    grid, tokens, sequence = jnp.zeros((g, g, c)), jnp.zeros((s, c)), jnp.zeros((1, n, c))
    inputs = {EncoderBlock: (sequence,), TokenLearner: (grid,), TokenFuser: (tokens, grid)}
    for module, (macs, elementwise) in closed_forms(n, c, m, k, s, g).items():
        cost = count(module, *inputs[type(module)])['']
        assert cost.macs == macs, module
        # The sigmoid, the GELU's constants and the like: the forms are good to a few n.
        assert abs(cost.elementwise - elementwise) <= 0.02 * elementwise, module


def test_the_bottleneck_convention_of_attention():
    n, c, m, k = 10, 16, 48, 4
    cost = count(EncoderBlock(k, m), jnp.zeros((1, n, c)))['attention']
    assert cost.logits == k * n * n
    assert cost.bottleneck_gflops * 1e9 == 2 * (4 * n * c * c + 2 * n * n * c) + 6 * k * n * n


MODELS = {
    'mini/4': {},
    'mini/4-8at2-fuser': {'version': 'v1.1', 'beta': 'mlp', 'fuser_norm': 'full'},
    'mini/4-8at1-fuser': {'fuser': 'reprojection'},
    'mini/4-8at3-fuser': {'fuser': 'unpool'},
    'mini/4-8at2': {'tokenizer': 'pooled_dense', 'representation': 5},
    'mini/4-8at0': {'tokenizer': 'dense'},
    'mini/4+1-8at3': {'tokenizer': 'grid', 'head': 'gap'},
    'mini/4-pool2at1at3': {},
}


@pytest.mark.slow
@pytest.mark.parametrize('spec', MODELS)
def test_models_against_xla(spec):
    """At this size XLA's own sum, in float32, loses next to nothing."""
    model = build_model({'spec': spec, **MODELS[spec]}, 10)
    variables = jax.eval_shape(model.init, jax.random.key(0), image(32))
    flops = jax.jit(model.apply).lower(variables, image(32)).cost_analysis()['flops']
    cost = count(model, image(32))['']
    assert 2 * cost.macs + cost.elementwise == pytest.approx(flops, rel=1e-7)
    assert cost.params == sum(x.size for x in jax.tree.leaves(variables['params']))


def test_token_merging_against_xla():
    """Up to the indices of a scatter."""
    model = build_model({'spec': 'mini/4-8at2', 'tokenizer': 'merge'}, 10)
    variables = jax.eval_shape(model.init, jax.random.key(0), image(32))
    flops = jax.jit(model.apply).lower(variables, image(32)).cost_analysis()['flops']
    assert count(model, image(32))[''].gflops == pytest.approx(flops / 2e9, rel=3e-4)


def test_options_for_speed_do_not_change_the_count():
    def cost(**options):
        settings = {'spec': 'mini/4-8at2-fuser', 'attention': 'xla', **options}
        return count(build_model(settings, 10), image(32))

    plain = cost()
    for options in ({'scan': True}, {'remat': 'full'}, {'dtype': 'bfloat16'}):
        assert cost(**options)[''] == plain[''], options
    assert cost(scan=True)['encoder/layers_2_4/fuser'] == plain['encoder/fuser_2'] * 2


def test_modules_add_up_to_the_model():
    costs = count(build_model({'spec': 'mini/4-8at2'}, 10), image(32))
    inside = [cost for path, cost in costs.items() if re.fullmatch('encoder/[^/]*', path)]
    assert sum(inside, Cost()) == costs['encoder']
    assert costs['encoder/tokenizer_2'].params == 64 * 2 + 9 * (64 * 8 + 3 * 64)


def test_windows_count_as_in_xla():
    class Pool(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.max_pool(x, (2, 2), (2, 2))

    flops = jax.jit(lambda x: Pool().apply({}, x)).lower(image(8)).cost_analysis()['flops']
    assert count(Pool(), image(8))[''].elementwise == flops


def test_what_cannot_be_counted_is_refused():
    class Loop(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jax.lax.while_loop(lambda x: x.sum() < 3, lambda x: x + 1, x)

    with pytest.raises(ValueError, match="cannot count the operation 'while'"):
        count(Loop(), jnp.zeros(2))
