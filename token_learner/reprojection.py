"""Tokens back onto the grid by one more transformer layer."""

import flax.linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from token_learner.attention import Attention
from token_learner.mlp import Mlp


class Reprojection(nn.Module):
    """A pre-norm transformer layer in which the grid's positions attend to the tokens.

    Source: TPAMI version, Sec. 3.5.3, alternative (2) to TokenFuser, "one more transformer
    layer", after the re-projection of Visual Transformers (arXiv:2006.03677, Sec. 3.3),
    which has the attention alone. "Requires more FLOPS": it works on all positions.

    Attributes:
        heads: attention heads.
        mlp_dim: width inside the MLP.
        attention: implementation, see `Attention`.
        dropout: rate after the attention and inside the MLP.
        dtype: type of the computation; parameters are float32.
    """

    heads: int
    mlp_dim: int
    attention: str = 'auto'
    dropout: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, '*b s c'],
        grid: Float[Array, '*b h w c'],
        maps: Float[Array, '*b s h w'] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, '*b h w c']:
        """Lets each frame's positions attend to its tokens.

        Args:
            tokens: [..., s, c].
            grid: [..., h, w, c], the tokenizer's input.
            maps: not used.
            train: whether dropout is on.

        Returns:
            A grid [..., h, w, c].
        """
        del maps
        *_, h, w, c = grid.shape
        x, tokens = grid.reshape(-1, h * w, c), tokens.reshape(-1, tokens.shape[-2], c)
        y = nn.LayerNorm(dtype=self.dtype, name='norm_grid')(x)
        tokens = nn.LayerNorm(dtype=self.dtype, name='norm_tokens')(tokens)
        y = Attention(self.heads, self.attention, self.dtype, name='attention')(y, tokens)
        x = x + nn.Dropout(self.dropout, deterministic=not train)(y)
        y = nn.LayerNorm(dtype=self.dtype, name='norm_mlp')(x)
        y = Mlp(self.mlp_dim, None, self.dropout, self.dtype, name='mlp')(y, train=train)
        return (x + y).reshape(grid.shape)
