"""Tokens back onto the grid by the tokenizer's own maps."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class Unpool(nn.Module):
    """Adds to each position the tokens, weighted by the maps that pooled it; no parameters.

    Source: TPAMI version, Sec. 3.5.3, alternative (1) to TokenFuser, which "performed worse".
    The addition to the grid is TokenFuser's; the paper writes neither it nor a scale.
    """

    def __call__(
        self,
        tokens: Float[Array, '*b s c'],
        grid: Float[Array, '*b h w c'],
        maps: Float[Array, '*b s h w'] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, '*b h w c']:
        """Adds tokens to the grid that they were learned from.

        Args:
            tokens: [..., s, c].
            grid: [..., h, w, c], the tokenizer's input.
            maps: [..., s, h, w], the tokenizer's.
            train: not used.

        Returns:
            A grid [..., h, w, c].

        Raises:
            ValueError: if the tokenizer has no maps.
        """
        del train
        if maps is None:
            raise ValueError('this tokenizer has no maps to unpool with; use another fuser')
        return grid + jnp.einsum('...shw,...sc->...hwc', maps.astype(tokens.dtype), tokens)
