import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.conftest import slow
from token_learner import TokenFuser

TOKENS = 5 * jax.random.normal(jax.random.key(0), (2, 3, 4, 32))  # b t s c
GRID = jax.random.normal(jax.random.key(1), (2, 3, 6, 5, 32))  # b t h w c
TARGET = jax.random.normal(jax.random.key(2), GRID.shape)

FORMS = [
    {'norm': norm, 'beta': beta, 'mix_scope': scope}
    for norm, beta in [('none', 'linear'), ('grid', 'mlp'), ('full', 'mlp'), ('full', 'linear')]
    for scope in ('frame', 'clip')
]


def random_params(fuser):
    variables = fuser.init(jax.random.key(3), TOKENS, GRID)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(4), len(leaves))
    new = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, new)


def gradient_norms(fuser):
    variables = fuser.init(jax.random.key(3), TOKENS, GRID)

    def loss(params):
        return jnp.mean((fuser.apply({'params': params}, TOKENS, GRID) - TARGET) ** 2)

    grads = jax.grad(loss)(variables['params'])
    return {k: float(jnp.linalg.norm(v)) for k, v in flatten_dict(grads, sep='/').items()}


@pytest.mark.parametrize('form', [FORMS[0], *map(slow, FORMS[1:-1]), FORMS[-1]], ids=str)
def test_the_identity_at_the_start_without_a_gradient_spike(form):
    fuser = TokenFuser(**form)
    variables = fuser.init(jax.random.key(3), TOKENS, GRID)
    np.testing.assert_array_equal(fuser.apply(variables, TOKENS, GRID), GRID)
    norms = gradient_norms(fuser)
    assert 1e-4 < max(norms.values()) < 1, norms


@pytest.mark.slow
def test_the_released_start_has_the_spike():
    norms = gradient_norms(TokenFuser(norm='full', beta='mlp', mix_init='released'))
    assert norms['mix/kernel'] > 20
    assert norms['mix/kernel'] > 100 * max(gradient_norms(TokenFuser(norm='full')).values())


@pytest.mark.parametrize('form', FORMS, ids=str)
def test_each_output_depends_on_the_tokens_that_it_may(form):
    fuser = TokenFuser(**form)
    variables = random_params(fuser)
    # Squares, as the last LayerNorm makes plain sums over channels constant.
    frame = lambda tokens: (fuser.apply(variables, tokens, GRID)[0, 1] ** 2).sum()  # noqa: E731
    touched = jnp.abs(jax.grad(frame)(TOKENS)).sum((-1, -2)) > 0
    expected = np.zeros((2, 3), bool)
    expected[0, slice(None) if form['mix_scope'] == 'clip' else 1] = True
    np.testing.assert_array_equal(touched, expected)


def test_the_paper_form_is_equation_2():
    fuser = TokenFuser(mix_scope='clip')
    variables = random_params(fuser)
    p = variables['params']
    flat = np.asarray(TOKENS).reshape(2, 12, 32)
    y = np.einsum('bsc,sm->bmc', flat, p['mix']['kernel']) + p['mix']['bias'][:, None]
    beta = 1 / (1 + np.exp(-(np.asarray(GRID) @ p['beta']['kernel'] + p['beta']['bias'])))
    expected = np.einsum('bthws,btsc->bthwc', beta, y.reshape(TOKENS.shape)) + GRID
    out = fuser.apply(variables, TOKENS, GRID)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_frame_and_clip_are_the_same_for_one_frame():
    tokens, grid = TOKENS[:, :1], GRID[:, :1]
    frame, clip = TokenFuser(mix_scope='frame'), TokenFuser(mix_scope='clip')
    variables = frame.init(jax.random.key(0), tokens, grid)
    variables['params']['mix']['kernel'] = jax.random.normal(jax.random.key(1), (4, 4))
    out = [f.apply(variables, tokens, grid) for f in (frame, clip)]
    np.testing.assert_array_equal(*out)


def test_clip_mixing_without_a_time_axis_is_refused():
    with pytest.raises(ValueError, match="use mix_scope='frame'"):
        TokenFuser(mix_scope='clip').init(jax.random.key(0), TOKENS[0], GRID[0])
    with pytest.raises(ValueError, match='use one of frame, clip'):
        TokenFuser(mix_scope='video')


@pytest.mark.parametrize('shape', [(2, 3, 4, 16), (2, 1, 4, 32), (3, 4, 32)])
def test_tokens_of_another_grid_are_refused(shape, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, 'jaxtyping_disable', True)  # as users have it
    with pytest.raises(ValueError, match=r'are not of the grid \(2, 3, 6, 5, 32\); give'):
        TokenFuser().init(jax.random.key(0), jnp.zeros(shape), GRID)
