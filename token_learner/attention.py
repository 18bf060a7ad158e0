"""Multi-head self-attention."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float


def dot_product_attention(
    query: Float[Array, 'b n k d'], key: Float[Array, 'b m k d'], value: Float[Array, 'b m k d']
) -> Float[Array, 'b n k d']:
    """softmax(query key^T / sqrt(d)) value for each head, the softmax in float32.

    The scale goes onto the query, which is smaller than the logits by n/d.
    """
    query = query * query.shape[-1] ** -0.5
    logits = jnp.einsum('bnkd,bmkd->bknm', query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum('bknm,bmkd->bnkd', weights, value)


class SelfAttention(nn.Module):
    """Multi-head dot-product self-attention with biases, as in ViT.

    Attributes:
        heads: number of heads k; must divide the width c.
        dtype: type of the computation; parameters are float32.
    """

    heads: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, 'b n c']) -> Float[Array, 'b n c']:
        """Maps [b, n, c] to [b, n, c].

        Raises:
            ValueError: if the number of heads does not divide c.
        """
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f'{self.heads} heads do not divide the width {width}; use a divisor')

        def project(name: str) -> Float[Array, 'b n k d']:
            return nn.DenseGeneral(
                (self.heads, width // self.heads),
                dtype=self.dtype,
                kernel_init=nn.initializers.xavier_uniform(),
                name=name,
            )(x)

        out = dot_product_attention(project('query'), project('key'), project('value'))
        return nn.DenseGeneral(
            width,
            axis=(-2, -1),
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            name='out',
        )(out)
