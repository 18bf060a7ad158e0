"""Tokens from dense layers, without spatial attention."""

import flax.linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from token_learner.checks import check_positive
from token_learner.mlp import Mlp


class DenseTokens(nn.Module):
    """All S tokens of a frame from one dense layer over all its positions and channels.

    Source: TPAMI version, Sec. 6.3.3, alternative (2), z_i = A_i(x). The layer has
    h*w*c * S*c weights, 2.7 billion for B/16 at 384 with 8 tokens, and fits one grid only.
    The LayerNorm before it, which TokenLearner has too, is ours.

    Attributes:
        num_tokens: S, tokens a frame.
        dtype: type of the computation; parameters are float32.
    """

    num_tokens: int
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_positive('num_tokens', self.num_tokens)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, grid: Float[Array, '*b h w c'], *, train: bool = False, return_maps: bool = False
    ) -> Float[Array, '*b s c'] | tuple[Float[Array, '*b s c'], None]:
        """Maps a grid [..., h, w, c] to tokens [..., s, c]; there are no maps to return."""
        del train
        *batch, h, w, c = grid.shape
        x = nn.LayerNorm(dtype=self.dtype, name='norm')(grid).reshape(*batch, h * w * c)
        x = nn.Dense(self.num_tokens * c, dtype=self.dtype, name='dense')(x)
        tokens = x.reshape(*batch, self.num_tokens, c)
        return (tokens, None) if return_maps else tokens


class PooledDenseTokens(nn.Module):
    """All S tokens of a frame from an MLP on the mean over its positions.

    Source: TPAMI version, Sec. 6.3.3, alternative (3). The paper does not give the width
    inside the MLP: here that of the grid. The LayerNorm is ours, as in `DenseTokens`.

    Attributes:
        num_tokens: S, tokens a frame.
        dropout: rate inside the MLP.
        dtype: type of the computation; parameters are float32.
    """

    num_tokens: int
    dropout: float = 0.0
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_positive('num_tokens', self.num_tokens)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, grid: Float[Array, '*b h w c'], *, train: bool = False, return_maps: bool = False
    ) -> Float[Array, '*b s c'] | tuple[Float[Array, '*b s c'], None]:
        """Maps a grid [..., h, w, c] to tokens [..., s, c]; there are no maps to return."""
        *batch, _, _, c = grid.shape
        x = nn.LayerNorm(dtype=self.dtype, name='norm')(grid).mean(axis=(-3, -2))
        mlp = Mlp(c, self.num_tokens * c, self.dropout, self.dtype, name='mlp')
        tokens = mlp(x, train=train).reshape(*batch, self.num_tokens, c)
        return (tokens, None) if return_maps else tokens
