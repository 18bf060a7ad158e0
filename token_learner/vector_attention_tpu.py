"""Vector attention on TPUs: a Pallas kernel for Mosaic.

Channels lie on the 128 lanes and tokens on the sublanes. A block of tokens and its sums stay in
registers while the others pass, a row at a time.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from token_learner.vector_attention_sums import Terms, differentiable, sum_rows

_LANES = 128
# What is kept of so many tokens, of 128 channels each, fits the 64 vector registers.
_TOKENS = 64
# So many rows of four arrays, each twice, fit 16 MiB of VMEM.
_ROWS = 2048
_UNROLL = 16


def _sum_over(
    terms: Terms, number: int, own: Sequence[Array], others: Sequence[Array]
) -> Sequence[Array]:
    (b, n, c), m = own[0].shape, others[0].shape[1]
    tokens, rows, lanes = min(n, _TOKENS), min(m, _ROWS), min(c, _LANES)

    def kernel(own: Any, others: Any, *sums: Any) -> None:
        part = pl.program_id(3)

        @pl.when(part == 0)
        def _() -> None:
            for x in sums:
                x[...] = jnp.zeros_like(x)

        def read(i: Any) -> list[Array]:
            return [x[pl.ds(i, 1)] for x in others]

        def add(length: int) -> None:
            more = sum_rows(terms, number, [x[...] for x in own], read, length, _UNROLL)
            for x, of_part in zip(sums, more, strict=True):
                x[...] += of_part

        pl.when(part < m // rows)(lambda: add(rows))
        if m % rows:
            pl.when(part == m // rows)(lambda: add(m % rows))

    block = pl.BlockSpec((None, tokens, lanes), lambda b, c, i, j: (b, i, c))
    of_others = pl.BlockSpec((None, rows, lanes), lambda b, c, i, j: (b, j, c))
    return pl.pallas_call(
        kernel,
        grid=(b, pl.cdiv(c, lanes), pl.cdiv(n, tokens), pl.cdiv(m, rows)),
        in_specs=[[block] * len(own), [of_others] * len(others)],
        out_specs=[block] * number,
        out_shape=[jax.ShapeDtypeStruct((b, n, c), jnp.float32)] * number,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=('parallel', 'parallel', 'parallel', 'arbitrary')
        ),
        name='vector_attention',
    )(list(own), list(others))


attend = differentiable(_sum_over, base_two=True)
