"""What the exact forms of vector attention share: all of it but how to sum over tokens."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# (*own, *row) -> the terms, of the tokens' own arrays and of one row of every other array
Terms = Callable[..., tuple[Array, ...]]
# (terms, their number, own [b n c], others [b m c]) -> the sums over the rows of others [b n c]
SumOver = Callable[[Terms, int, Sequence[Array], Sequence[Array]], Sequence[Array]]
Exp = Callable[[Array], Array]

_BLOCK = 64


def differentiable(
    sum_over: SumOver, base_two: bool = False
) -> Callable[[Array, Array, Array], Array]:
    """Vector attention by a way to sum over tokens, with memory linear in the tokens.

    An online softmax would rescale its sums whenever it meets a larger logit. Here the largest is
    known beforehand: query_ic times the largest or the least key of the channel, by the query's
    sign. Of that key e_ic the sums over the keys are, with d_ijc = key_jc - e_ic and
    w = exp(query d) <= 1,

        y = sum w value / sum w.

    As y_ic depends on no other query, its derivative dy/dquery is one number, the covariance of
    key and value under the weights, which the forward pass gives as well where it is needed:

        dy/dquery = (sum w d value - y sum w d) / sum w.

    The gradients of the keys and values are sums over the queries, of weights computed anew. With
    the gradient g of y,

        dkey = sum w (value - y) query g / sum w, dvalue = sum w g / sum w.

    Between the two the inputs are kept, and three arrays [b n c] in float32.

    Args:
        sum_over: sums terms made of float32, see `SumOver`.
        base_two: write the exponentials as powers of two, which is what accelerators compute. XLA
            turns these back into exponentials, with a product more.

    Returns:
        A function of query [b n c], key and value [b m c] -> [b n c], in value's type.
    """
    exp, unit = (jnp.exp2, math.log(2)) if base_two else (jnp.exp, 1.0)
    average, covariance, gradients = (
        functools.partial(terms, exp) for terms in (_average, _covariance, _gradients)
    )

    @jax.custom_vjp
    def attend(
        query: Float[Array, 'b n c'], key: Float[Array, 'b m c'], value: Float[Array, 'b m c']
    ) -> Float[Array, 'b n c']:
        own, others, mean = prepare(query, key, value)
        total, weighted = sum_over(average, 2, own, others)
        return (weighted / total + mean).astype(value.dtype)

    def prepare(query: Array, key: Array, value: Array) -> tuple[Any, Any, Array]:
        """What goes with queries, with keys, and the values' mean.

        That is taken off the values and added to the output, since it would cost gradients digits.
        """
        query, key, value = (x.astype(jnp.float32) for x in (query, key, value))
        mean = value.mean(1, keepdims=True)
        extreme = jnp.where(query >= 0, key.max(1, keepdims=True), key.min(1, keepdims=True))
        return (query / unit, extreme), (key, value - mean), mean

    def forward(*inputs: Array) -> tuple[Array, tuple[Any, ...]]:
        own, others, mean = prepare(*inputs)
        total, *sums = sum_over(covariance, 4, own, others)
        out, distance, product = (x / total for x in sums)
        kept = inputs, total, out, product - out * distance
        return (out + mean).astype(inputs[2].dtype), kept

    def backward(kept: tuple[Any, ...], grad: Array) -> tuple[Array, ...]:
        inputs, total, out, slope = kept
        queries, keys, _ = prepare(*inputs)
        grad = grad.astype(jnp.float32)
        of_key, of_value = sum_over(gradients, 2, keys, (*queries, out, grad / total))
        grads = grad * slope, of_key * unit, of_value
        return tuple(x.astype(y.dtype) for x, y in zip(grads, inputs, strict=True))

    attend.defvjp(forward, backward)
    return attend


def _average(exp: Exp, query: Array, extreme: Array, key: Array, value: Array) -> tuple[Array, ...]:
    weights = exp(query * (key - extreme))
    return weights, weights * value


def _covariance(
    exp: Exp, query: Array, extreme: Array, key: Array, value: Array
) -> tuple[Array, ...]:
    distance = key - extreme
    weights = exp(query * distance)
    weighted = weights * distance
    return weights, weights * value, weighted, weighted * value


def _gradients(
    exp: Exp, key: Array, value: Array, query: Array, extreme: Array, out: Array, grad: Array
) -> tuple[Array, ...]:
    weights = exp(query * (key - extreme))
    return weights * (value - out) * (query * grad), weights * grad


def sum_rows(
    terms: Terms,
    number: int,
    own: Sequence[Array],
    read: Callable[[Any], Sequence[Array]],
    rows: int,
    unroll: int,
) -> tuple[Array, ...]:
    """Sums so many terms over rows 0, 1, ..., rows - 1 of the others, which `read` gives.

    Blocks are summed apart, since a long sum in float32 rounds terms that are nearly alike, such as
    the weights of a query near zero, all in the same direction.
    """
    zeros = (jnp.zeros_like(own[0]),) * number

    def block(start: Any, length: int) -> tuple[Array, ...]:
        def add(i: Any, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            return jax.tree.map(jnp.add, sums, terms(*own, *read(start + i)))

        def add_some(i: Any, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            for j in range(unroll):
                sums = add(i * unroll + j, sums)
            return sums

        whole = length // unroll
        sums = jax.lax.fori_loop(0, whole, add_some, zeros)
        return jax.lax.fori_loop(whole * unroll, length, add, sums)

    def add_block(i: Any, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        return jax.tree.map(jnp.add, sums, block(i * _BLOCK, _BLOCK))

    whole = rows // _BLOCK
    sums = jax.lax.fori_loop(0, whole, add_block, zeros)
    return jax.tree.map(jnp.add, sums, block(whole * _BLOCK, rows % _BLOCK))
