import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, PartitionSpec

from token_learner.counting import count_program
from token_learner.partitioning import over_mesh
from token_learner.vector_attention import check_arrays, vector_attention


def make(b=2, n=13, m=150, c=3, dtype=np.float32, seed=0):
    """Queries, keys, values and the gradient of the output."""
    rng = np.random.default_rng(seed)
    shapes = [(b, n, c), (b, m, c), (b, m, c), (b, n, c)]
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def by_hand(query, key, value, grad):
    """The output and the three gradients in float64."""
    query, key, value, grad = (np.asarray(x, np.float64) for x in (query, key, value, grad))
    logits = query[:, :, None] * key[:, None]
    weights = np.exp(logits - logits.max(2, keepdims=True))
    weights /= weights.sum(2, keepdims=True)
    out = (weights * value[:, None]).sum(2)
    slopes = weights * grad[:, :, None] * (value[:, None] - out[:, :, None])
    return (
        out,
        (slopes * key[:, None]).sum(2),
        (slopes * query[:, :, None]).sum(1),
        (weights * grad[:, :, None]).sum(1),
    )


@functools.partial(jax.jit, static_argnums=0, static_argnames='nodes')
def run(implementation, query, key, value, grad, **options):
    """The output and the three gradients."""

    def attend(query, key, value):
        return vector_attention(query, key, value, implementation, **options)

    out, pull = jax.vjp(attend, query, key, value)
    return out, *pull(grad)


def errors(found, expected):
    """Of each array, the largest error over the largest magnitude."""
    pairs = [
        [np.asarray(x, np.float64) for x in pair] for pair in zip(found, expected, strict=True)
    ]
    return [np.abs(x - y).max() / np.abs(y).max() for x, y in pairs]


@pytest.mark.parametrize('implementation', ['plain', 'blockwise'])
def test_outputs_and_gradients(implementation):
    """150 keys are two blocks and a rest, 13 queries a rest alone."""
    args = make()
    assert max(errors(run(implementation, *args), by_hand(*args))) < 2e-6


def test_logits_of_hundreds_of_either_sign_are_safe():
    query, key, value, grad = make()
    query, key = query.at[:, 0].set(0.0) * 20, key.at[..., 0].add(3.0) * 20
    assert np.abs(query[:, :, None] * key[:, None]).max() > 1000
    found, expected = run('blockwise', query, key, value, grad), by_hand(query, key, value, grad)
    assert max(errors(found, expected)) < 1e-5
    # A key beyond all others is all that counts for positive queries, and nothing is NaN.
    outs = run('blockwise', query, key.at[:, 4].set(1e30), value, grad)
    assert all(np.isfinite(x).all() for x in outs)
    only = np.broadcast_to(value[:, 4:5], query.shape)
    np.testing.assert_allclose(outs[0][query > 0], only[query > 0], 1e-6)


def test_long_sums_and_values_far_from_zero_keep_their_digits():
    """One sum of 4,096 would round each weight of a query near zero in the same direction."""
    query, key, value, grad = make(1, 4, 4096, 2)
    args = query * 1e-5, key, value, grad
    assert max(errors(run('blockwise', *args), by_hand(*args))) < 1e-6
    args = query, key, value + 50, grad
    assert max(errors(run('blockwise', *args), by_hand(*args))) < 2e-6


def test_bfloat16_is_computed_in_float32():
    args = make(dtype=jnp.bfloat16)
    found = run('blockwise', *args)
    assert all(x.dtype == jnp.bfloat16 for x in found)
    assert max(errors(found, by_hand(*args))) < 2**-8  # the rounding of the results
    for implementation in ('plain', 'chebyshev'):
        attend = functools.partial(vector_attention, implementation=implementation)
        assert jax.eval_shape(attend, *args[:3]).dtype == jnp.bfloat16


def test_one_key_is_all_there_is():
    query, key, value, grad = make(m=1)
    out, of_query, of_key, of_value = run('blockwise', query, key, value, grad)
    np.testing.assert_allclose(out, np.broadcast_to(value, out.shape), rtol=1e-6)
    np.testing.assert_allclose(of_value, grad.sum(1, keepdims=True), rtol=1e-5)
    assert not of_query.any()
    assert not of_key.any()


def test_a_mesh_cuts_batch_and_channels():
    mesh = jax.make_mesh((2, 2, 2), ('data', 'fsdp', 'tensor'), (AxisType.Auto,) * 3)
    args = make(4, 6, 10, 2)
    spec = PartitionSpec(('data', 'fsdp'), None, 'tensor')
    with jax.set_mesh(mesh):
        cut = [jax.device_put(x, jax.NamedSharding(mesh, spec)) for x in args]

        program = run.lower('auto', *cut).compile()
        assert 'all-' not in program.as_text()  # no device waits for another
        assert max(errors(program(*cut), by_hand(*args))) < 2e-6

        shapes = []

        def kernel(query, key, value):
            shapes.append((query.shape, key.shape))
            return vector_attention(query, key, value, 'plain')

        out = jax.jit(lambda *args: over_mesh(kernel, *args))(*args[:3])
        assert errors([out], by_hand(*args)[:1])[0] < 2e-6
        assert shapes == [((1, 6, 1), (1, 10, 1))]
        with pytest.raises(ValueError, match='a batch of 4 and 3 heads cannot be cut into the 4'):
            over_mesh(kernel, *make(4, 6, 10, 3)[:3])


def test_auto_is_the_kernel_on_a_tpu_only():
    """The devices are those of the mesh that is set, which need not be there."""
    for platform, names in (('tpu', 'data'), ('gpu', 'data'), ('cpu', 'data'), ('tpu', 'tensor')):
        device = AbstractDevice(device_kind=platform, platform=platform, num_cores=1)
        mesh = AbstractMesh((2,), (names,), (AxisType.Auto,), abstract_device=device)
        with jax.sharding.use_abstract_mesh(mesh):
            program = str(jax.make_jaxpr(vector_attention)(*make(c=3)[:3]))  # no half of 3 channels
        assert ('pallas_call' in program) == ((platform, names) == ('tpu', 'data'))


def test_memory_grows_with_the_tokens_and_not_with_their_square():
    def temporaries(n):
        args = [jax.ShapeDtypeStruct((1, n, 8), np.float32)] * 4
        return run.lower('blockwise', *args).compile().memory_analysis().temp_size_in_bytes

    small, large = temporaries(256), temporaries(1024)
    assert large < 4.5 * small
    assert large < 4 * 8 * 1024**2 / 10


@pytest.mark.parametrize(('product', 'nodes', 'limit'), [(10, 12, 2e-5), (40, 48, 2e-6)])
def test_chebyshev_nears_the_exact_output(product, nodes, limit):
    """Of queries and keys spread evenly, whose ranges have this product; see the guide's table."""
    query, key, value, grad = make(1, 64, 64, 8)
    query, key = (jnp.argsort(x, 1) / 63 * product**0.5 for x in (query, key))
    args = (query - 1, key + 2, value, grad)
    found, expected = run('chebyshev', *args, nodes=nodes), by_hand(*args)
    assert errors(found, expected)[0] < limit
    assert max(errors(found, expected)) < 100 * limit


def test_chebyshev_where_queries_or_keys_are_alike():
    query, key, value, grad = make(1, 6, 20, 2)
    one = jnp.broadcast_to(query[:, :1], query.shape)
    args = one, key, value, grad
    assert max(errors(run('chebyshev', *args, nodes=12), by_hand(*args))) < 2e-5
    alike = jnp.broadcast_to(key[:, :1], key.shape)
    out, of_query, *_ = run('chebyshev', query, alike, value, grad, nodes=12)
    np.testing.assert_allclose(out, np.broadcast_to(value.mean(1, keepdims=True), out.shape), 1e-4)
    np.testing.assert_allclose(of_query, 0, atol=1e-4)


def test_the_plain_form_is_what_is_counted():
    """A product, an exponential and a multiply-add for every pair and channel."""
    query, key, value, _ = make(1, 5, 7, 3)
    cost = count_program(lambda *args: vector_attention(*args, 'plain'), query, key, value)
    assert (cost.macs, cost.logits) == (5 * 7 * 3, 5 * 7 * 3)


def test_what_cannot_be_used_is_refused():
    args = make()[:3]
    with pytest.raises(ValueError, match='use one of auto, plain, blockwise, pallas, chebyshev'):
        vector_attention(*args, implementation='fast')
    with pytest.raises(ValueError, match='nodes=0 is too small'):
        vector_attention(*args, implementation='chebyshev', nodes=0)


@pytest.mark.parametrize(
    ('key', 'value', 'dtype', 'message'),
    [
        ((2, 10, 4), (2, 5, 4), 'f4', 'do not go together; use'),
        ((1, 10, 4), (1, 10, 4), 'f4', 'do not go together; use'),
        ((2, 10, 1), (2, 10, 1), 'f4', 'do not go together; use'),
        ((2, 0, 4), (2, 0, 4), 'f4', 'with a key or more'),
        ((2, 10, 4), (2, 10, 4), 'i4', 'is not of int32'),
    ],
)
def test_arrays_that_do_not_go_together(key, value, dtype, message):
    with pytest.raises(ValueError, match=message):
        check_arrays(jnp.zeros((2, 3, 4)), jnp.zeros(key, dtype), jnp.zeros(value, dtype))
