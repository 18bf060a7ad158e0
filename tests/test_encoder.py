import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from token_learner import Encoder, EncoderBlock, TokenFuser, TokenLearner

X = jax.random.normal(jax.random.key(0), (2, 3 * 4 * 5, 16))
GRID = (3, 4, 5)
LEARNER = functools.partial(TokenLearner, 6)
SIZES = {'layers': 4, 'heads': 2, 'mlp_dim': 32}


class HalfPool(nn.Module):
    """A reduction that keeps a grid."""

    @nn.compact
    def __call__(self, grid, *, train=False):
        return nn.avg_pool(grid, (2, 1), (2, 1))


def run(**settings):
    encoder = Encoder(**SIZES, **settings)
    out, variables = jax.jit(lambda key: encoder.init_with_output(key, X, GRID))(jax.random.key(1))
    return out, variables['params']


def block(params, name, x):
    return EncoderBlock(2, 32).apply({'params': params[name]}, x)


def test_tokens_take_the_grid_s_place_from_the_layer_on():
    out, params = run(reductions=((2, LEARNER),))
    x = block(params, 'block_1', block(params, 'block_0', X))
    x = LEARNER().apply({'params': params['tokenizer_2']}, x.reshape(2, 3, 4, 5, 16))
    x = block(params, 'block_3', block(params, 'block_2', x.reshape(2, 18, 16)))
    x = nn.LayerNorm().apply({'params': params['norm']}, x)
    np.testing.assert_allclose(out, x, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_with_a_fuser_tokenizer_block_and_fuser_repeat():
    out, params = run(reductions=((3, LEARNER),), fuser=TokenFuser)
    assert out.shape == X.shape
    assert sorted(k for k in params if 'block' not in k) == ['fuser_3', 'norm', 'tokenizer_3']
    _, params = run(reductions=((1, LEARNER),), fuser=TokenFuser)
    assert [k for k in sorted(params) if 'fuser' in k] == ['fuser_1', 'fuser_2', 'fuser_3']


def test_a_fuser_at_its_start_leaves_the_grid_as_the_blocks_before_made_it():
    out, params = run(reductions=((2, LEARNER),), fuser=TokenFuser)
    x = block(params, 'block_1', block(params, 'block_0', X))
    x = nn.LayerNorm().apply({'params': params['norm']}, x)
    np.testing.assert_allclose(out, x, rtol=1e-5, atol=1e-5)


def test_a_reduced_grid_may_be_reduced_again():
    out, _ = run(reductions=((1, HalfPool), (2, LEARNER)))
    assert out.shape == (2, 18, 16)
    with pytest.raises(ValueError, match='needs a grid, but finds tokens'):
        run(reductions=((1, LEARNER), (2, LEARNER)))


def test_gradients_reach_every_parameter():
    encoder = Encoder(layers=2, heads=2, mlp_dim=8, reductions=((1, LEARNER),), fuser=TokenFuser)
    x = X[:1, :20]
    leaves, tree = jax.tree.flatten(encoder.init(jax.random.key(1), x, (1, 4, 5))['params'])
    keys = jax.random.split(jax.random.key(2), len(leaves))
    leaves = [p + jax.random.normal(k, p.shape) / 4 for k, p in zip(keys, leaves, strict=True)]

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: (encoder.apply({'params': p}, x, (1, 4, 5)) ** 3).sum())(params)

    for path, g in jax.tree_util.tree_leaves_with_path(gradient(jax.tree.unflatten(tree, leaves))):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        # The same number added to all keys, or to all channels before a LayerNorm, is lost.
        assert jnp.abs(g).max() > 1e-3 or name.endswith(('key/bias', 'mix/bias')), name


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'reductions': ((4, LEARNER),)}, 'outside the 4 layers; use 0 to 3'),
        ({'reductions': ((-1, LEARNER),)}, 'outside the 4 layers'),
        ({'fuser': TokenFuser}, 'exactly one reduction'),
        ({'reductions': ((1, LEARNER), (1, HalfPool))}, 'two reductions stand at one layer'),
    ],
)
def test_bad_places_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Encoder(**SIZES, **settings)


@pytest.mark.slow
def test_bfloat16_is_close_to_float32_and_parameters_stay_float32():
    full, params = run(reductions=((2, LEARNER),))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    half = Encoder(
        **SIZES,
        reductions=((2, functools.partial(LEARNER, dtype=jnp.bfloat16)),),
        dtype=jnp.bfloat16,
    )
    out = half.apply({'params': params}, X.astype(jnp.bfloat16), GRID)
    assert out.dtype == jnp.bfloat16
    assert float(jnp.abs(out - full).max()) < 0.1
