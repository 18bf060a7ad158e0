import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType

from tests.conftest import slow
from token_learner.attention import Attention, dot_product_attention
from token_learner.partitioning import over_mesh


def qkv(b=2, n=5, m=7, k=2, d=8):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(b, n, k, d), (b, m, k, d), (b, m, k, d)]
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def by_hand(query, key, value, bias=0.0):
    logits = np.einsum('bnkd,bmkd->bknm', *map(np.asarray, (query, key))) / query.shape[-1] ** 0.5
    weights = np.exp(logits + np.asarray(bias))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum('bknm,bmkd->bnkd', weights, np.asarray(value))


def test_written_out_attention():
    args = qkv()
    np.testing.assert_allclose(dot_product_attention(*args), by_hand(*args), atol=1e-5)
    bias = jnp.log(jnp.arange(1.0, 8.0))[None, None, None]
    np.testing.assert_allclose(dot_product_attention(*args, bias), by_hand(*args, bias), atol=1e-5)


def test_a_bias_of_log_2_counts_a_key_twice():
    query, key, value = qkv()
    twice = [jnp.concatenate([x, x[:, :1]], 1) for x in (key, value)]
    bias = jnp.zeros((1, 1, 1, 7)).at[..., 0].set(jnp.log(2.0))
    np.testing.assert_allclose(
        dot_product_attention(query, key, value, bias),
        dot_product_attention(query, *twice),
        atol=1e-5,
    )


@pytest.mark.parametrize(('n', 'm'), [(130, 300), slow(200, 200)])
def test_the_tpu_kernel_gives_the_same_outputs_and_gradients(n, m):
    """In the interpreter of TPU kernels; neither length is a multiple of a block."""
    args = qkv(2, n, m, 2, 16)
    weights = jax.random.normal(jax.random.key(1), args[0].shape)

    def run(implementation):
        def loss(*args):
            out = dot_product_attention(*args, implementation=implementation)
            return (out * weights).sum(), out

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*args)

    with pltpu.force_tpu_interpret_mode():
        (_, out), grads = run('flash')
    (_, expected), expected_grads = run('xla')
    np.testing.assert_allclose(out, expected, atol=1e-5)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_the_kernel_is_cut_over_batch_and_heads():
    mesh = jax.make_mesh(
        (1, 1, 2), ('data', 'fsdp', 'tensor'), (AxisType.Auto,) * 3, devices=jax.devices()[:2]
    )
    args = qkv(4, 100, 100, 2, 16)
    with jax.set_mesh(mesh), pltpu.force_tpu_interpret_mode():
        out = jax.jit(lambda *a: dot_product_attention(*a, implementation='flash'))(*args)
    np.testing.assert_allclose(out, by_hand(*args), atol=1e-5)


def test_a_mesh_cuts_batch_and_heads():
    """With attention in place of a kernel, since the interpreter waits for ever on 8 devices."""
    mesh = jax.make_mesh((2, 2, 2), ('data', 'fsdp', 'tensor'), (AxisType.Auto,) * 3)
    args = qkv(4, 6, 6, 2, 16)

    def cut(*args):
        shapes = []

        def kernel(*args):
            shapes.append(args[0].shape)
            return dot_product_attention(*args, implementation='xla')

        return over_mesh(kernel, *args), shapes

    with jax.set_mesh(mesh):
        np.testing.assert_allclose(jax.jit(lambda *a: cut(*a)[0])(*args), by_hand(*args), atol=1e-5)
        assert jax.eval_shape(lambda *a: cut(*a)[0], *args).shape == args[0].shape
        assert cut(*args)[1] == [(1, 6, 1, 16)]
        with pytest.raises(ValueError, match='a batch of 3 and 2 heads cannot be cut into the 4'):
            dot_product_attention(*qkv(3), implementation='flash')


def test_what_an_implementation_cannot_do_is_refused():
    bias = jnp.zeros((1, 1, 1, 7))
    for implementation in ('cudnn', 'flash'):
        with pytest.raises(ValueError, match="is given no bias; use 'xla' or 'auto'"):
            dot_product_attention(*qkv(), bias, implementation)
    with pytest.raises(ValueError, match='computes in float16 or bfloat16, not in float32'):
        dot_product_attention(*qkv(), implementation='cudnn')
    with pytest.raises(ValueError, match='use one of auto, xla, cudnn, flash'):
        dot_product_attention(*qkv(), implementation='fast')
    with pytest.raises(ValueError, match='3 heads do not divide the width 16'):
        Attention(3).init(jax.random.key(0), jnp.zeros((1, 4, 16)))


@pytest.mark.skipif(jax.default_backend() != 'gpu', reason='needs a GPU')
def test_the_gpu_kernel_gives_the_same_outputs_and_gradients():
    args = [x.astype(jnp.bfloat16) for x in qkv(2, 200, 200, 4, 64)]

    def run(implementation):
        def loss(*args):
            out = dot_product_attention(*args, implementation=implementation)
            return (out.astype(jnp.float32) ** 2).sum(), out

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*args)

    for ours, theirs in zip(
        jax.tree.leaves(run('cudnn')), jax.tree.leaves(run('xla')), strict=True
    ):
        ours, theirs = (np.asarray(x, np.float32) for x in (ours, theirs))
        assert np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()
