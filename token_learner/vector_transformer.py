"""A transformer layer with an attention weight for each channel."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float

from token_learner.checks import check_choice, check_positive
from token_learner.vector_attention import IMPLEMENTATIONS, vector_attention


class VectorTransformer(nn.Module):
    """Pairwise vector attention: as many heads as channels.

    y_i is the sum over j of softmax_j(gamma(q_i * k_j)) * v_j, products by channel, with q, k and
    v linear in the tokens and no 1/sqrt(d). Gamma is a projection to the channels of v, and not
    there where q and k have as many; with it the pairs of all tokens are in memory.

    Source: TPAMI version, Appendix A, Eq. 3; Zhao et al., arXiv:2004.13621.

    Attributes:
        query_width: channels of the queries and keys; None is c.
        implementation: see `vector_attention`.
        dtype: type of the computation; parameters are float32.
    """

    query_width: int | None = None
    implementation: str = 'auto'
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_choice('vector_attention', self.implementation, IMPLEMENTATIONS)
        if self.query_width is not None:
            check_positive('query_width', self.query_width)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, 'b n c']) -> Float[Array, 'b n c']:
        """Maps tokens [b, n, c] to the same shape.

        Raises:
            ValueError: if there is a gamma, and the implementation is for equal widths alone.
        """
        c = x.shape[-1]
        width = c if self.query_width is None else self.query_width

        def linear(x: Array, width: int, name: str) -> Array:
            return nn.Dense(
                width,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=nn.initializers.xavier_uniform(),
                name=name,
            )(x)

        query, key = linear(x, width, 'query'), linear(x, width, 'key')
        value = linear(x, c, 'value')
        if width == c:
            return vector_attention(query, key, value, self.implementation)
        if self.implementation not in ('auto', 'plain'):
            raise ValueError(
                f'implementation={self.implementation!r} has no gamma, which queries of {width} '
                f"channels for values of {c} need; use 'plain', or query_width=None"
            )
        logits = linear(query[:, :, None] * key[:, None], c, 'gamma')
        weights = jax.nn.softmax(logits.astype(jnp.float32), axis=2).astype(value.dtype)
        return jnp.einsum('bnmc,bmc->bnc', weights, value)
