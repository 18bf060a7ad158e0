"""TokenLearner: a few tokens a frame, each a learned weighting of all its positions.

Both versions compute S spatial maps from the layer-normalised grid and pool the
raw grid with them (TPAMI version, Sec. 2.1, Eq. 1). They differ in how the maps
are made. The maps, [..., s, h, w], are returned where asked for, and sown as `maps` into the
collection `intermediates`: `model.apply(..., mutable='intermediates')` returns those of a model.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float

from token_learner.checks import check_choice, check_positive
from token_learner.mlp import Mlp


def pool_tokens(
    grid: Float[Array, '*b h w c'], weights: Float[Array, '*b h w s'], pooling: str
) -> Float[Array, '*b s c']:
    """Pools the positions of a grid with S weightings, rho in Eq. 1.

    Args:
        grid: [..., h, w, c].
        weights: [..., h, w, s].
        pooling: 'mean' as the paper writes it, or 'sum' as in the released code.

    Returns:
        Tokens [..., s, c].
    """
    tokens = jnp.einsum('...hws,...hwc->...sc', weights, grid)
    h, w = grid.shape[-3:-1]
    return tokens / (h * w) if pooling == 'mean' else tokens


class TokenLearner(nn.Module):
    """TokenLearner v1.0: maps from convolutions and a sigmoid.

    LayerNorm, `num_convs` 3x3 convolutions with S channels and no bias, GELU between
    them, sigmoid (Sec. 3.1: four 3x3). The bottleneck models use one convolution
    and no LayerNorm (Sec. 6.1): `num_convs=1, norm=False`.

    The paper pools by the mean over positions; its released code, and with it
    the published counts and results, by the sum. The two differ by a factor of
    h*w (at 196 positions, RMS 20.6 against 0.105 for unit input), so they are not
    interchangeable in a trained model.

    Attributes:
        num_tokens: S, tokens a frame.
        num_convs: convolutions in the map function alpha.
        norm: whether a LayerNorm comes first.
        pooling: 'sum' (released code) or 'mean' (paper).
        dtype: type of the computation; parameters are float32.
    """

    num_tokens: int
    num_convs: int = 4
    norm: bool = True
    pooling: str = 'sum'
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_positive('num_tokens', self.num_tokens)
        check_positive('num_convs', self.num_convs)
        check_choice('pooling', self.pooling, ('sum', 'mean'))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, grid: Float[Array, '*b h w c'], *, train: bool = False, return_maps: bool = False
    ) -> Float[Array, '*b s c'] | tuple[Float[Array, '*b s c'], Float[Array, '*b s h w']]:
        """Maps a grid [..., h, w, c] to tokens [..., s, c], and with `return_maps` to maps too."""
        del train
        x = nn.LayerNorm(dtype=self.dtype, name='norm')(grid) if self.norm else grid
        for i in range(self.num_convs):
            if i:
                x = nn.gelu(x, approximate=True)
            x = nn.Conv(
                self.num_tokens,
                (3, 3),
                use_bias=False,
                dtype=self.dtype,
                name=f'conv_{i}',
            )(x)
        weights = nn.sigmoid(x)
        maps = jnp.moveaxis(weights, -1, -3)
        self.sow('intermediates', 'maps', maps)
        tokens = pool_tokens(grid, weights, self.pooling)
        return (tokens, maps) if return_maps else tokens


class TokenLearnerV11(nn.Module):
    """TokenLearner v1.1: maps from an MLP and a softmax over positions.

    LayerNorm, an MLP with GELU (Sec. 2.1), and the softmax that the released code
    uses (commit 09480e7 of March 2022; earlier modules of the same name differ).
    `activation='sigmoid'` is Eq. 1 read literally.

    Attributes:
        num_tokens: S, tokens a frame.
        hidden: width inside the MLP.
        activation: 'softmax' over the positions, or 'sigmoid'.
        pooling: 'sum' or 'mean'; softmax maps sum to one, so they take 'sum'.
        dropout: rate inside the MLP.
        dtype: type of the computation; parameters are float32.
    """

    num_tokens: int
    hidden: int = 64
    activation: str = 'softmax'
    pooling: str = 'sum'
    dropout: float = 0.0
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_positive('num_tokens', self.num_tokens)
        check_choice('activation', self.activation, ('softmax', 'sigmoid'))
        check_choice('pooling', self.pooling, ('sum', 'mean'))
        if self.activation == 'softmax' and self.pooling == 'mean':
            raise ValueError(
                "softmax maps sum to one already; use pooling='sum', or activation='sigmoid'"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, grid: Float[Array, '*b h w c'], *, train: bool = False, return_maps: bool = False
    ) -> Float[Array, '*b s c'] | tuple[Float[Array, '*b s c'], Float[Array, '*b s h w']]:
        """Maps a grid [..., h, w, c] to tokens [..., s, c], and with `return_maps` to maps too."""
        x = nn.LayerNorm(dtype=self.dtype, name='norm')(grid)
        x = Mlp(self.hidden, self.num_tokens, self.dropout, self.dtype, name='mlp')(x, train=train)
        softmax = self.activation == 'softmax'
        weights = jax.nn.softmax(x, axis=(-3, -2)) if softmax else nn.sigmoid(x)
        maps = jnp.moveaxis(weights, -1, -3)
        self.sow('intermediates', 'maps', maps)
        tokens = pool_tokens(grid, weights, self.pooling)
        return (tokens, maps) if return_maps else tokens
