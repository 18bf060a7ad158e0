"""Vector attention: softmax attention with a matrix of its own for every channel."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from token_learner.checks import check_choice, check_positive
from token_learner.partitioning import mesh_parts, over_mesh, target_platform
from token_learner.vector_attention_sums import Terms, differentiable, sum_rows

IMPLEMENTATIONS = ('auto', 'plain', 'blockwise', 'pallas', 'chebyshev')
NODES = 32


def vector_attention(
    query: Float[Array, 'b n c'],
    key: Float[Array, 'b m c'],
    value: Float[Array, 'b m c'],
    implementation: str = 'auto',
    nodes: int = NODES,
) -> Float[Array, 'b n c']:
    """y_ic = sum_j p_ijc value_jc, p the softmax over j of query_ic key_jc.

    The Vector Transformer's attention (Appendix A, Eq. 3, where all widths are equal), which does
    not scale by 1/sqrt(d). It is computed in float32 and returned in the type of the values.

    Implementations compute the same, but for the last, and differ in speed and memory:

    - 'plain': written out; the weights [b, n, m, c] are in memory.
    - 'blockwise': a few positions at a time, with memory linear in the tokens, forward and
      backward, on any device; see `blockwise`. Derivatives in reverse mode only.
    - 'pallas': the same as a fused kernel, of TPUs and of NVIDIA GPUs.
    - 'auto': 'pallas' on a TPU where batch and channels can be cut over the mesh, else 'blockwise'.
    - 'chebyshev': an approximation with `nodes` * m exponentials a channel in place of n * m; see
      `chebyshev`, and docs/vector_attention.md for its error. 'auto' is never this.

    Args:
        query: [b, n, c].
        key: [b, m, c].
        value: [b, m, c].
        implementation: one of `IMPLEMENTATIONS`.
        nodes: of 'chebyshev'.

    Raises:
        ValueError: if the implementation is unknown or does not run here, a kernel is asked for
            what it cannot do, or the arrays do not go together.
    """
    check_choice('vector_attention', implementation, IMPLEMENTATIONS)
    check_arrays(query, key, value)
    if implementation == 'auto':
        implementation = _choose(query)
    if implementation == 'plain':
        return plain(query, key, value)
    if implementation == 'blockwise':
        return blockwise(query, key, value)
    if implementation == 'chebyshev':
        return chebyshev(query, key, value, nodes)
    if target_platform() == 'gpu':
        from token_learner.vector_attention_gpu import attend
    else:
        from token_learner.vector_attention_tpu import attend
    return over_mesh(attend, query, key, value)


def check_arrays(query: Array, key: Array, value: Array) -> None:
    """Raises ValueError unless arrays are queries, keys and values of each other."""
    b, _, c = query.shape
    if key.shape != value.shape or key.shape[::2] != (b, c) or not key.shape[1]:
        raise ValueError(
            f'queries {query.shape}, keys {key.shape} and values {value.shape} do not go together; '
            'use [b, n, c], [b, m, c] and [b, m, c], with a key or more'
        )
    for x in (query, key, value):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f'vector attention is not of {x.dtype}; use floating point numbers')


def _choose(query: Array) -> str:
    """Not yet 'pallas' on NVIDIA GPUs, since the kernel for them has not been run on one."""
    (b, _, c), parts = query.shape, mesh_parts()
    cuts = b % parts[0] == 0 and c % parts[1] == 0
    return 'pallas' if target_platform() == 'tpu' and cuts else 'blockwise'


def plain(
    query: Float[Array, 'b n c'], key: Float[Array, 'b m c'], value: Float[Array, 'b m c']
) -> Float[Array, 'b n c']:
    """The reference, which `token_learner.counting` counts."""
    dtype = value.dtype
    query, key, value = (x.astype(jnp.float32) for x in (query, key, value))
    weights = jax.nn.softmax(query[:, :, None] * key[:, None], axis=2)
    out = jnp.einsum('bnmc,bmc->bnc', weights, value, precision=jax.lax.Precision.HIGHEST)
    return out.astype(dtype)


def blockwise(
    query: Float[Array, 'b n c'], key: Float[Array, 'b m c'], value: Float[Array, 'b m c']
) -> Float[Array, 'b n c']:
    """Sums over the keys in turn, and backward over the queries; see `differentiable`."""
    return _attend(query, key, value)


def _sum_over(
    terms: Terms, number: int, own: Sequence[Array], others: Sequence[Array]
) -> Sequence[Array]:
    def read(i: Any) -> list[Array]:
        return [jax.lax.dynamic_slice_in_dim(x, i, 1, axis=1) for x in others]

    # Elsewhere several rows at once, so that sums stay in registers. XLA for CPUs would write the
    # exponentials of each row to memory, which takes longer.
    unroll = 1 if target_platform() == 'cpu' else 16
    return sum_rows(terms, number, own, read, others[0].shape[1], unroll)


_attend = differentiable(_sum_over)


def chebyshev(
    query: Float[Array, 'b n c'],
    key: Float[Array, 'b m c'],
    value: Float[Array, 'b m c'],
    nodes: int = NODES,
) -> Float[Array, 'b n c']:
    """An approximation: y of a channel as a polynomial in the query.

    y_c(q) = sum_j exp(q key_jc) value_jc / sum_j exp(q key_jc) is one smooth function for all
    queries of the channel. It is computed at Chebyshev nodes between the least query and the
    greatest, and there is a polynomial through them, a sum of Chebyshev polynomials.

    The error falls geometrically with the nodes, the slower the larger the range of the queries
    times that of the keys. Gradients are those of the polynomial.

    Raises:
        ValueError: if there is not at least one node.
    """
    check_positive('nodes', nodes)
    dtype = value.dtype
    query, key, value = (x.astype(jnp.float32) for x in (query, key, value))
    low, high, least, most = jax.lax.stop_gradient(
        [f(x, 1, keepdims=True) for x in (query, key) for f in (jnp.min, jnp.max)]
    )
    # Nodes of queries that are all alike still lie apart, else the gradient would be lost.
    radius = jnp.maximum((high - low) / 2, 1 / jnp.maximum(most - least, 1e-6))
    middle = (low + high) / 2

    angles = (np.arange(nodes) + 0.5) * np.pi / nodes
    cosines = np.cos(np.arange(nodes)[:, None] * angles).astype(np.float32)  # T_k at each node
    places = np.cos(angles)[:, None].astype(np.float32)
    at_nodes = blockwise(middle + radius * places, key, value)
    scale = jnp.full(nodes, 2 / nodes, jnp.float32).at[0].set(1 / nodes)
    coefficients = jnp.einsum(
        'k,kt,btc->kbc', scale, cosines, at_nodes, precision=jax.lax.Precision.HIGHEST
    )
    return _clenshaw(coefficients, (query - middle) / radius).astype(dtype)


def _clenshaw(coefficients: Array, x: Array) -> Array:
    """Sums coefficients [k, b, c] of Chebyshev polynomials at x [b, n, c]."""

    def step(later: tuple[Array, Array], coefficient: Array) -> tuple[tuple[Array, Array], None]:
        return (coefficient[:, None] + 2 * x * later[0] - later[1], later[0]), None

    zeros = jnp.zeros_like(x)
    (first, second), _ = jax.lax.scan(step, (zeros, zeros), coefficients[1:], reverse=True)
    return coefficients[0][:, None] + x * first - second
