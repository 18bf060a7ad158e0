"""Attention that does not look at the tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float

from token_learner.checks import check_positive


class PriorAttention(nn.Module):
    """Attention whose weights are learned for each pair of places, whatever the tokens are.

    Table 14's "prior-only attention", of which the paper says no more. Here each head has one
    logit for each pair of tokens of a clip, as in the random Synthesizer (Tay et al.,
    arXiv:2005.00743), so that it is for clips of one length.

    Attributes:
        heads: number of heads k; must divide c.
        dtype: type of the computation; parameters are float32.
    """

    heads: int
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_positive('heads', self.heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, 'b n c']) -> Float[Array, 'b n c']:
        """Maps tokens [b, n, c] to the same shape.

        Raises:
            ValueError: if the number of heads does not divide c.
        """
        b, n, c = x.shape
        if c % self.heads:
            raise ValueError(f'{self.heads} heads do not divide the width {c}; use a divisor')
        logits = self.param('prior', nn.initializers.normal(0.02), (self.heads, n, n))
        value = nn.Dense(c, use_bias=False, dtype=self.dtype, name='value')(x)
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        heads = value.reshape(b, n, self.heads, c // self.heads)
        return jnp.einsum('knm,bmkd->bnkd', weights, heads).reshape(x.shape)
