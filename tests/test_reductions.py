"""The alternatives to TokenLearner and TokenFuser."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from token_learner import (
    DenseTokens,
    Encoder,
    EncoderBlock,
    GridSplit,
    PooledDenseTokens,
    Reprojection,
    SpatialPooling,
    TokenLearner,
    TokenMerging,
    Unpool,
    ViT,
    build_model,
)
from token_learner.maps import apply_with_maps

GRID = jax.random.normal(jax.random.key(0), (2, 3, 4, 8, 16))  # [b, t, h, w, c]


def run(module, *args, **options):
    variables = module.init(jax.random.key(1), *args)
    return module.apply({k: v for k, v in variables.items() if k == 'params'}, *args, **options)


def test_pooling_names_the_last_grid():
    out = SpatialPooling(2).apply({}, GRID[..., :4, :])
    assert out.shape == (2, 3, 2, 2, 16)
    np.testing.assert_allclose(out[0, 1, 0, 1], GRID[0, 1, :2, 2:4].mean((0, 1)), rtol=1e-5)
    first = SpatialPooling(2, places=2).apply({}, jnp.zeros((1, 32, 32, 5)))
    assert first.shape == (1, 8, 8, 5)
    assert SpatialPooling(2).apply({}, first).shape == (1, 2, 2, 5)


@pytest.mark.parametrize(
    ('size', 'places', 'grid', 'message'),
    [
        (3, 1, (8, 8), 'equal windows do not take a 8x8 grid to 3x3'),
        (2, 2, (16, 16), 'windows at 2 places do not take a 16x16 grid to 2x2'),
        (4, 1, (8, 6), 'a 8x6 grid'),
        (9, 1, (8, 8), 'to 9x9'),
        (8, 1, (8, 8), 'do not take a 8x8 grid to 8x8'),
    ],
)
def test_pooling_that_does_not_divide_is_refused(size, places, grid, message):
    with pytest.raises(ValueError, match=message):
        SpatialPooling(size, places).apply({}, jnp.zeros((1, *grid, 4)))


def test_a_grid_split_takes_the_means_of_equal_cells():
    tokens, maps = run(GridSplit(8), GRID, return_maps=True)
    np.testing.assert_allclose(tokens[1, 2, 5], GRID[1, 2, 2:4, 2:4].mean((0, 1)), rtol=1e-5)
    assert maps.sum(-3).min() == maps.sum(-3).max() == 1
    unpooled = jnp.einsum('...shw,...hwc->...sc', maps, GRID) / 4
    np.testing.assert_allclose(tokens, unpooled, rtol=1e-5, atol=1e-6)
    assert GridSplit(10)._layout(10, 10) == (2, 5)
    with pytest.raises(ValueError, match='a 4x8 grid does not split into 7 equal cells'):
        run(GridSplit(7), GRID)


@pytest.mark.slow
def test_dense_tokens_see_every_position_and_pooled_ones_only_the_mean():
    def influence(module):
        def tokens(x):
            return run(module, x)

        return jnp.abs(jax.jacrev(tokens)(GRID[0, 0])).sum((0, 1, 4))  # [h, w]

    assert influence(DenseTokens(2)).min() > 0
    shuffled = GRID.reshape(2, 3, 32, 16)[:, :, ::-1].reshape(GRID.shape)
    same = run(PooledDenseTokens(5), GRID) - run(PooledDenseTokens(5), shuffled)
    assert jnp.abs(same).max() < 1e-5
    assert jnp.abs(run(DenseTokens(5), GRID) - run(DenseTokens(5), shuffled)).max() > 0.1
    assert run(DenseTokens(5), GRID, return_maps=True)[1] is None


def test_unpool_is_the_transpose_of_sum_pooling():
    tokens, maps = run(TokenLearner(6), GRID, return_maps=True)
    other = jax.random.normal(jax.random.key(2), GRID.shape)
    update = Unpool().apply({}, tokens, GRID, maps) - GRID
    pooled = jnp.einsum('...shw,...hwc->...sc', maps, other)
    assert jnp.vdot(update, other) == pytest.approx(float(jnp.vdot(tokens, pooled)), rel=1e-4)
    with pytest.raises(ValueError, match='no maps to unpool with'):
        Unpool().apply({}, tokens, GRID)


@pytest.mark.slow
def test_reprojection_is_a_transformer_layer_from_grid_to_tokens():
    tokens = jax.random.normal(jax.random.key(2), (2, 3, 6, 16))
    module = Reprojection(4, 32)
    variables = module.init(jax.random.key(1), tokens, GRID)
    out = module.apply(variables, tokens, GRID)
    assert out.shape == GRID.shape
    # Frames do not see each other, and positions see tokens only.
    apart = module.apply(variables, tokens[:, 1], GRID[:, 1])
    np.testing.assert_allclose(out[:, 1], apart, rtol=1e-5, atol=1e-5)
    one = module.apply(variables, tokens[:, 1], GRID[:, 1, 2:3, 3:4])
    np.testing.assert_allclose(out[:, 1, 2:3, 3:4], one, rtol=1e-5, atol=1e-5)
    assert jnp.abs(module.apply(variables, tokens[::-1], GRID) - out).max() > 0.01


def test_merging_joins_the_most_similar_and_keeps_means():
    directions = jnp.eye(8)[:4]
    tokens = jnp.concatenate([directions, 2 * directions])[jnp.array([0, 1, 5, 4, 2, 3, 7, 6])]
    merged, sizes = TokenMerging(4).apply({}, tokens.reshape(1, 1, 2, 4, 8))
    order = jnp.argsort(-merged[0, 0].argmax(-1))[::-1]
    np.testing.assert_allclose(merged[0, 0][order], 1.5 * directions, atol=1e-6)
    assert sizes.tolist() == [[[2, 2, 2, 2]]]


@pytest.mark.slow
@pytest.mark.parametrize('num_tokens', [1, 3, 17, 31, 32])
def test_merging_counts_every_position_once(num_tokens):
    module = TokenMerging(num_tokens)
    (tokens, sizes), sown = module.apply({}, GRID, mutable='intermediates')
    assert tokens.shape == (2, 3, num_tokens, 16)
    assert (sizes.sum(-1) == 32).all()
    mean = jnp.einsum('...s,...sc->...c', sizes, tokens) / 32
    np.testing.assert_allclose(mean, GRID.mean((2, 3)), rtol=1e-4, atol=1e-5)
    if num_tokens < 32:
        (maps,) = sown['intermediates']['maps']
        assert (maps.sum(-3) == 1).all()
        assert (maps.sum((-1, -2)) == sizes).all()
        groups = jnp.einsum('...shw,...hwc->...sc', maps, GRID) / sizes[..., None]
        np.testing.assert_allclose(tokens, groups, rtol=1e-4, atol=1e-5)


def test_merging_takes_even_steps_over_several_places():
    tokens, sizes = TokenMerging(8, places=3).apply({}, GRID)
    assert tokens.shape[-2] == 24
    tokens, sizes = TokenMerging(8, places=2).apply({}, tokens[..., None, :], sizes[..., None])
    assert tokens.shape[-2] == 16
    assert (sizes.sum(-1) == 32).all()
    with pytest.raises(ValueError, match='do not merge into 40'):
        TokenMerging(40).apply({}, GRID)


@pytest.mark.slow
def test_merging_equal_tokens_changes_nothing():
    """Sizes go into the attention of later blocks and into the mean before the head."""
    settings = {'spec': 'mini/4', 'attention': 'xla'}
    plain = build_model(settings, 5)
    # Every patch of the image is there twice; positions count as equal.
    half = jax.random.normal(jax.random.key(3), (2, 8, 16, 3)).reshape(2, 2, 4, 4, 4, 3)
    image = jnp.stack([half, half], 4).reshape(2, 2, 4, 4, 2, 4, 3).reshape(2, 8, 32, 3)
    variables = plain.init(jax.random.key(1), image)
    variables['params']['position_embedding'] *= 0
    head = jax.random.normal(jax.random.key(2), variables['params']['head']['kernel'].shape)
    variables['params']['head']['kernel'] = head
    merged = build_model({**settings, 'spec': 'mini/4-8at1', 'tokenizer': 'merge'}, 5)
    expected = plain.apply(variables, image)
    assert jnp.abs(expected).max() > 0.1
    np.testing.assert_allclose(merged.apply(variables, image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_head_weighs_merged_tokens_also_behind_a_pooling():
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    pool = (1, functools.partial(SpatialPooling, 4))
    shape = {'num_classes': 5, 'patch': (4, 4), 'width': 16, 'layers': 3, 'heads': 2, 'mlp_dim': 8}
    plain = ViT(**shape, reductions=(pool,))
    merged = ViT(**shape, reductions=(pool, (2, functools.partial(TokenMerging, 16))))
    params = plain.init(jax.random.key(1), images)['params']
    params['head']['kernel'] = jax.random.normal(jax.random.key(2), (16, 5))
    expected = plain.apply({'params': params}, images)
    np.testing.assert_allclose(merged.apply({'params': params}, images), expected, atol=1e-5)


def test_a_fuser_needs_tokens_to_write_back():
    encoder = Encoder(2, 2, 32, reductions=((1, lambda **k: SpatialPooling(2, **k)),), fuser=Unpool)
    with pytest.raises(ValueError, match='SpatialPooling has no return_maps, which'):
        encoder.init(jax.random.key(0), jnp.zeros((1, 16, 16)), (1, 4, 4))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('spec', 'settings'),
    [
        ('mini/4-8at2-fuser', {'fuser': 'unpool', 'tokenizer': 'grid'}),
        ('mini/4-8at2', {'tokenizer': 'grid'}),
        ('mini/4-8at0', {'tokenizer': 'dense'}),
        ('mini/4-8at3', {'tokenizer': 'pooled_dense'}),
        ('mini/4-8at1at2at3', {'tokenizer': 'merge'}),
        ('mini/4-pool2at1at2', {}),
        ('mini/4-8at2-fuser', {'fuser': 'unpool'}),
        ('mini/4-8at2-fuser', {'fuser': 'reprojection', 'tokenizer': 'pooled_dense'}),
    ],
    ids=str,
)
def test_gradients_reach_every_parameter_of_a_model(spec, settings):
    model = build_model({'spec': spec, **settings}, 5)
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    params = jax.jit(model.init)(jax.random.key(1), images)['params']
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    leaves = [p + jax.random.normal(k, p.shape) / 4 for k, p in zip(keys, leaves, strict=True)]

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: (model.apply({'params': p}, images) ** 3).sum())(params)

    for path, g in jax.tree_util.tree_leaves_with_path(gradient(jax.tree.unflatten(tree, leaves))):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        assert jnp.isfinite(g).all(), name
        # The same number added to all keys is lost in the softmax.
        assert jnp.abs(g).max() > 1e-6 or name.endswith('key/bias'), name


def test_a_tokenizer_of_one_s_own_takes_its_place():
    class First(nn.Module):
        """The first two positions."""

        def __call__(self, grid, *, train=False, return_maps=False):
            *batch, h, w, c = grid.shape
            tokens = grid.reshape(*batch, h * w, c)[..., :2, :]
            return (tokens, None) if return_maps else tokens

    x = GRID[:, :1].reshape(2, 32, 16)
    encoder = Encoder(2, 2, 32, reductions=((1, First),))
    variables = encoder.init(jax.random.key(0), x, (1, 4, 8))
    params = variables['params']
    blocks = [{'params': params[f'block_{i}']} for i in range(2)]
    expected = EncoderBlock(2, 32).apply(blocks[0], x)[:, :2]
    expected = EncoderBlock(2, 32).apply(blocks[1], expected)
    expected = nn.LayerNorm().apply({'params': params['norm']}, expected)
    np.testing.assert_allclose(
        encoder.apply(variables, x, (1, 4, 8)), expected, rtol=1e-5, atol=1e-5
    )


class Wrapped(nn.Module):
    """A tokenizer that has its maps from one inside it."""

    num_tokens: int

    @nn.compact
    def __call__(self, grid, *, train=False, return_maps=False):
        return TokenLearner(self.num_tokens)(grid, train=train, return_maps=return_maps)


def test_maps_of_a_tokenizer_inside_another_are_of_its_layer():
    model = build_model({'spec': 'mini/8-2at1-fuser', 'tokenizer': f'{__name__}:Wrapped'}, 5)
    images = jnp.zeros((1, 16, 16, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    _, maps = jax.eval_shape(lambda v: apply_with_maps(model, v, images), variables)
    assert list(maps) == [1, 2, 3]


class Blind(nn.Module):
    """A tokenizer that makes no tokens for a fuser."""

    num_tokens: int

    def __call__(self, grid, *, train=False):
        return grid.mean((-3, -2))[..., None, :]


@pytest.mark.parametrize('spec', ['mini/8-2at1-fuser', 'X2plus1D-mini:tlx1'])
def test_a_tokenizer_without_maps_does_not_go_before_a_fuser(spec):
    with pytest.raises(ValueError, match='Blind has no return_maps, which what writes tokens back'):
        build_model({'spec': spec, 'tokenizer': f'{__name__}:Blind'}, 5)


class Unnumbered(nn.Module):
    """A tokenizer that nobody tells how many tokens there are."""

    def __call__(self, grid, *, train=False, return_maps=False):
        return grid


class Summed(nn.Module):
    """What makes no tokens."""

    num_tokens: int

    def __call__(self, grid, *, train=False):
        return grid.sum((-3, -2))


def test_tokenizers_that_do_not_keep_to_the_contract_are_told():
    for spec in ('mini/8-2at1', 'X2plus1D-mini:tlx1'):
        with pytest.raises(ValueError, match=r'Unnumbered.* has no attribute num_tokens; give it'):
            build_model({'spec': spec, 'tokenizer': f'{__name__}:Unnumbered'}, 5)
    model = build_model({'spec': 'mini/8-2at1', 'tokenizer': f'{__name__}:Summed'}, 5)
    with pytest.raises(ValueError, match=r'Summed makes .1, 1, 64. of a grid .1, 1, 2, 2, 64.'):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
