"""Vector attention on NVIDIA GPUs: a Pallas kernel for Triton.

A program keeps a block of tokens by channels and its sums in registers, and reads the other tokens
a row at a time. No program adds to what another writes: the sums are in the same order each time.

Pallas for Triton is deprecated from jax 0.11 on, and works there.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array

from token_learner.vector_attention_sums import Terms, differentiable, sum_rows

# Triton's blocks are powers of two; a row of 16 channels is two sectors of memory.
_TOKENS, _CHANNELS = 64, 16
_UNROLL = 4


def kernels(interpret: bool = False) -> Callable[[Array, Array, Array], Array]:
    """Vector attention on a GPU, or in Pallas' interpreter, which is slow and needs none."""

    def sum_over(
        terms: Terms, number: int, own: Sequence[Array], others: Sequence[Array]
    ) -> Sequence[Array]:
        """All are widened to whole blocks of channels, and `own` to whole blocks of tokens."""
        (b, n, c), m = own[0].shape, others[0].shape[1]

        def kernel(own: Any, others: Any, *sums: Any) -> None:
            def read(i: Any) -> list[Array]:
                return [x[pl.ds(i, 1)] for x in others]

            found = sum_rows(terms, number, [x[...] for x in own], read, m, _UNROLL)
            for x, total in zip(sums, found, strict=True):
                x[...] = total

        block = pl.BlockSpec((None, _TOKENS, _CHANNELS), lambda b, i, c: (b, i, c))
        of_others = pl.BlockSpec((None, m, _CHANNELS), lambda b, i, c: (b, 0, c))
        own, others = [_pad(x, -n % _TOKENS) for x in own], [_pad(x) for x in others]
        padded = own[0].shape
        found = pl.pallas_call(
            kernel,
            grid=(b, padded[1] // _TOKENS, padded[2] // _CHANNELS),
            in_specs=[[block] * len(own), [of_others] * len(others)],
            out_specs=[block] * number,
            out_shape=[jax.ShapeDtypeStruct(padded, jnp.float32)] * number,
            compiler_params=triton.CompilerParams(num_warps=4),
            interpret=interpret,
            name='vector_attention',
        )(own, others)
        return [x[:, :n, :c] for x in found]

    return differentiable(sum_over, base_two=True)


def _pad(x: Array, tokens: int = 0) -> Array:
    return jnp.pad(x, ((0, 0), (0, tokens), (0, -x.shape[-1] % _CHANNELS)))


attend = kernels()
