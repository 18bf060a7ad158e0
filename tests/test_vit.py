import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import slow
from token_learner import ViT, build_model
from token_learner.maps import apply_with_maps
from token_learner.mlp import Mlp

SIZES = {'num_classes': 3, 'width': 16, 'layers': 2, 'heads': 2, 'mlp_dim': 32}


def images(*shape):
    return jax.random.normal(jax.random.key(0), shape)


@pytest.mark.slow
def test_what_a_patch_does_not_cover_is_cropped():
    vit = ViT(**SIZES, patch=(5, 4))
    x = images(2, 17, 14, 3)  # 3 x 3 patches, 2 rows and 2 columns left over
    variables = vit.init(jax.random.key(1), x)
    variables['params']['head']['kernel'] = jax.random.normal(jax.random.key(2), (16, 3))
    assert variables['params']['position_embedding'].shape == (1, 9, 16)
    changed = x.at[:, 15:].set(9).at[:, :, 12:].set(9)
    np.testing.assert_array_equal(vit.apply(variables, x), vit.apply(variables, changed))
    inside = vit.apply(variables, x.at[:, 14].set(9))
    assert not np.array_equal(vit.apply(variables, x), inside)


def test_a_patch_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match='patch 16x16 is larger than the image 28x12'):
        ViT(**SIZES, patch=(16, 16)).init(jax.random.key(0), images(1, 28, 12, 3))


@pytest.mark.slow
def test_the_head_reads_the_class_token_or_the_mean():
    x = images(2, 8, 8, 3)
    token = ViT(**SIZES, patch=(4, 4), head='token', representation=5)
    variables = token.init(jax.random.key(1), x)
    assert variables['params']['position_embedding'].shape == (1, 5, 16)
    assert variables['params']['representation']['kernel'].shape == (16, 5)
    # With blocks that add nothing, the class token is the same for all images.
    zero = {k: jax.tree.map(jnp.zeros_like, v) for k, v in variables['params']['encoder'].items()}
    variables['params']['encoder'] = zero | {'norm': variables['params']['encoder']['norm']}
    read = lambda model, variables: model.apply(variables, x, mutable='intermediates')[1]  # noqa: E731
    (first, second) = read(token, variables)['intermediates']['pre_logits'][0]
    np.testing.assert_array_equal(first, second)
    assert first.shape == (5,)
    params = variables['params'] | {'position_embedding': jnp.zeros((1, 4, 16))}
    del params['class_token']
    mean = ViT(**SIZES, patch=(4, 4), representation=5)
    first, second = read(mean, {'params': params})['intermediates']['pre_logits'][0]
    assert not np.allclose(first, second)
    with pytest.raises(ValueError, match="use head='gap'"):
        build_model({'spec': 'mini/4-8at2', 'head': 'token'}, 10)


@pytest.mark.slow
def test_dropout_is_on_only_in_training():
    model = build_model({'spec': 'mini/4-4at1-fuser', 'version': 'v1.1', 'dropout': 0.5}, 10)
    x = images(2, 8, 8, 1)
    variables = model.init(jax.random.key(0), x)
    variables['params']['head']['kernel'] = jax.random.normal(jax.random.key(2), (64, 10))
    eval_out = [model.apply(variables, x) for _ in range(2)]
    np.testing.assert_array_equal(*eval_out)
    outs = [
        model.apply(variables, x, train=True, rngs={'dropout': jax.random.key(k)}) for k in (0, 1)
    ]
    assert not np.array_equal(*outs)


@pytest.mark.parametrize('spec', ['mini/4-8at1-fuser', slow('mini/4'), slow('mini/4-8at2')])
def test_maps_come_with_the_logits(spec):
    model = build_model({'spec': spec}, 10)
    x = images(2, 8, 12, 1)
    variables = model.init(jax.random.key(0), x)
    logits, maps = apply_with_maps(model, {'params': variables['params']}, x)
    np.testing.assert_array_equal(logits, model.apply({'params': variables['params']}, x))
    layers = {'mini/4': [], 'mini/4-8at2': [2], 'mini/4-8at1-fuser': [1, 2, 3]}[spec]
    assert {k: v.shape for k, v in maps.items()} == dict.fromkeys(layers, (2, 1, 8, 2, 3))


class Around(nn.Module):
    """A model of one's own, with as many ViTs inside."""

    count: int

    @nn.compact
    def __call__(self, x):
        return sum(build_model({'spec': 'mini/4-2at3'}, 3)(x) for _ in range(self.count))


def test_layers_are_told_apart_inside_another_model():
    x = images(1, 8, 8, 1)

    def shapes(model):
        made = lambda: apply_with_maps(model, model.init(jax.random.key(0), x), x)  # noqa: E731
        return {k: v.shape for k, v in jax.eval_shape(made)[1].items()}

    assert shapes(Around(1)) == {3: (1, 1, 2, 2, 2)}
    with pytest.raises(ValueError, match='ViT_1/encoder/tokenizer_3/maps has no layer of'):
        shapes(Around(2))


def test_logits_are_zero_at_the_start():
    model = build_model({'spec': 'mini/4-8at2'}, 10)
    logits, _ = model.init_with_output(jax.random.key(0), images(2, 8, 8, 1))
    np.testing.assert_array_equal(logits, jnp.zeros((2, 10)))


def test_gelu_is_chosen_for_the_encoder_s_mlps():
    x = images(2, 5, 8)
    variables = Mlp(16).init(jax.random.key(1), x)
    hidden, out = variables['params']['hidden'], variables['params']['out']
    y = x @ hidden['kernel'] + hidden['bias']
    exact = y / 2 * (1 + jax.lax.erf(y / jnp.sqrt(2))) @ out['kernel'] + out['bias']
    np.testing.assert_allclose(Mlp(16, gelu='erf').apply(variables, x), exact, atol=1e-5)
    assert not np.allclose(Mlp(16).apply(variables, x), exact, atol=1e-5)
    for scan in (False, True):
        vit = ViT(**SIZES, patch=(4, 4), gelu='erf', scan=scan)
        traced = jax.make_jaxpr(lambda x, vit=vit: vit.init(jax.random.key(0), x))(
            images(2, 8, 8, 3)
        )
        assert ('erf ' in str(traced), 'tanh ' in str(traced)) == (True, False)


def test_the_head_s_bias_starts_where_asked():
    model = build_model({'spec': 'mini/4-8at2', 'head_bias': -6.5}, 10)
    logits, _ = model.init_with_output(jax.random.key(0), images(2, 8, 8, 1))
    np.testing.assert_array_equal(logits, jnp.full((2, 10), -6.5))
