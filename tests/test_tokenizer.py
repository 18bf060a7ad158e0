import jax
import jax.numpy as jnp
import numpy as np
import pytest

from token_learner import TokenLearner, TokenLearnerV11

GRID = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 6))  # b t h w c, not square


def apply(module, grid=GRID):
    variables = module.init(jax.random.key(1), grid)
    tokens, sown = module.apply(variables, grid, mutable='intermediates')
    return tokens, sown['intermediates']['maps'][0], variables


@pytest.mark.parametrize('module', [TokenLearner(7), TokenLearnerV11(7)])
def test_tokens_are_the_raw_grid_weighted_by_the_sown_maps(module):
    tokens, maps, _ = apply(module)
    assert maps.shape == (2, 3, 7, 4, 5)
    expected = np.einsum('btshw,bthwc->btsc', maps, GRID)
    np.testing.assert_allclose(tokens, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('make', [TokenLearner, TokenLearnerV11])
def test_frames_do_not_mix(make):
    tokens, _, variables = apply(make(4))
    alone = make(4).apply(variables, GRID[1, 2])
    np.testing.assert_allclose(tokens[1, 2], alone, rtol=1e-5, atol=1e-6)


def test_mean_pooling_is_sum_pooling_over_the_number_of_positions():
    total, _, variables = apply(TokenLearner(4))
    mean = TokenLearner(4, pooling='mean').apply(variables, GRID)
    np.testing.assert_allclose(mean * 20, total, rtol=1e-5, atol=1e-6)


def test_softmax_maps_sum_to_one_and_sigmoid_maps_do_not():
    _, maps, _ = apply(TokenLearnerV11(4))
    np.testing.assert_allclose(maps.sum((-2, -1)), 1, rtol=1e-5)
    _, maps, _ = apply(TokenLearnerV11(4, activation='sigmoid'))
    assert maps.sum((-2, -1)).min() > 2


def test_the_bottleneck_form_is_one_convolution_without_a_norm():
    _, _, variables = apply(TokenLearner(8, num_convs=1, norm=False))
    shapes = jax.tree.map(jnp.shape, variables['params'])
    assert shapes == {'conv_0': {'kernel': (3, 3, 6, 8)}}


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: TokenLearner(0), 'num_tokens=0 is too small'),
        (lambda: TokenLearnerV11(-1), 'num_tokens=-1 is too small'),
        (lambda: TokenLearner(8, pooling='max'), 'use one of sum, mean'),
        (lambda: TokenLearnerV11(8, activation='relu'), 'use one of softmax, sigmoid'),
        (lambda: TokenLearnerV11(8, pooling='mean'), "use pooling='sum'"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
