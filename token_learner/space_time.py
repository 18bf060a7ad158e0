"""What mixes space and time in the last block of a bottleneck model.

Each layer maps the activations of clips, [b, t, h, w, c], to the same shape. All are as the
published counts of modules have them: no biases, no norms of their own, no position embeddings,
and for multi-head attention queries and keys of 128 channels and no output projection.

Source: TPAMI version, Sec. 6.1, 6.3 and Appendix D; their public code is not known, so that these
are written after the text and the counts of Tables 12 and 13.
"""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float

from token_learner.checks import check_choice
from token_learner.encoder import Factory
from token_learner.mlp import Mlp

# Before a ReLU; by the outputs, as X3D's (He et al., arXiv:1502.01852).
CONV_INIT = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')

AXES = ('spatial', 'temporal', 'joint')


class TemporalConv(nn.Module):
    """A dense 1D convolution over time, at each position.

    Attributes:
        size: frames that it sees.
        dtype: type of the computation; parameters are float32.
    """

    size: int = 3
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, 'b t h w c'], *, train: bool = False
    ) -> Float[Array, 'b t h w c']:
        """Maps activations [b, t, h, w, c] to the same shape."""
        del train
        b, t, h, w, c = x.shape
        conv = nn.Conv(
            c,
            (self.size, 1),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=CONV_INIT,
            name='conv',
        )
        return conv(x.reshape(b, t, h * w, c)).reshape(x.shape)


class SpaceTimeAttention(nn.Module):
    """Attention among the positions of a frame, the times of a position, or all of a clip.

    Attributes:
        axes: 'spatial', 'temporal' or 'joint'.
        transformer: factory of what maps sequences [b, n, c] to the same shape.
    """

    axes: str
    transformer: Factory

    def __post_init__(self) -> None:
        check_choice('axes', self.axes, AXES)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, 'b t h w c'], *, train: bool = False
    ) -> Float[Array, 'b t h w c']:
        """Maps activations [b, t, h, w, c] to the same shape."""
        del train
        b, t, h, w, c = x.shape
        transformer = self.transformer(name='attention')
        if self.axes == 'spatial':
            return transformer(x.reshape(b * t, h * w, c)).reshape(x.shape)
        if self.axes == 'joint':
            return transformer(x.reshape(b, t * h * w, c)).reshape(x.shape)
        times = jnp.moveaxis(x.reshape(b, t, h * w, c), 1, 2).reshape(b * h * w, t, c)
        times = transformer(times).reshape(b, h * w, t, c)
        return jnp.moveaxis(times, 2, 1).reshape(x.shape)


class FrameMixer(nn.Module):
    """MLP-Mixer of the frames' means, whose changes are added to all positions of each frame.

    A token is the mean of a frame. Table 13's count of "Conv2D + MLPMixer" leaves room for 0.38M
    parameters and 0.09 GFLOPs, which a mixer of all positions exceeds 40 times over: two MLPs as
    wide inside as outside, over time and over channels, on 64 tokens is what we take it for. It is
    for clips of one length.

    Source: Tolstikhin et al., arXiv:2105.01601; TPAMI version, Table 13.

    Attributes:
        dtype: type of the computation; parameters are float32.
    """

    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, 'b t h w c'], *, train: bool = False
    ) -> Float[Array, 'b t h w c']:
        """Maps activations [b, t, h, w, c] to the same shape."""
        tokens = x.mean(axis=(2, 3))
        _, t, c = tokens.shape

        def mlp(width: int, name: str) -> Mlp:
            return Mlp(width, dtype=self.dtype, use_bias=False, name=name)

        over_time = jnp.swapaxes(mlp(t, 'times')(jnp.swapaxes(tokens, 1, 2), train=train), 1, 2)
        update = over_time + mlp(c, 'channels')(tokens + over_time, train=train)
        return x + update[:, :, None, None]


class TokenTransformer(nn.Module):
    """TokenLearner, a transformer over the tokens of all frames, and TokenFuser.

    Source: TPAMI version, Sec. 6.1, Figures 8 and 9. Without a tokenizer each position is a token.

    Attributes:
        tokenizer: factory of what maps a grid to tokens, or None.
        transformer: factory of what maps sequences [b, n, c] to the same shape.
        fuser: factory of what adds the tokens to the grid.
        project: whether the grid is projected first, to "the intermediate channel size of
            TokenLearner", which is c.
        dtype: type of the computation; parameters are float32.
    """

    tokenizer: Factory | None
    transformer: Factory
    fuser: Factory
    project: bool
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, 'b t h w c'], *, train: bool = False
    ) -> Float[Array, 'b t h w c']:
        """Maps activations [b, t, h, w, c] to the same shape."""
        b, t, h, w, c = x.shape
        if self.project:
            x = nn.Dense(c, use_bias=False, dtype=self.dtype, name='project')(x)
        tokens, maps = x.reshape(b, t, h * w, c), None
        if self.tokenizer is not None:
            tokens, maps = self.tokenizer(name='tokenizer')(x, train=train, return_maps=True)
        sequence = tokens.reshape(b, -1, c)
        mixed = self.transformer(name='attention')(sequence).reshape(tokens.shape)
        return self.fuser(name='fuser')(mixed, x, maps, train=train)


class PositionFuser(nn.Module):
    """Adds to each position its own token, scaled by a sigmoid of the position.

    Table 14 has "VectT + TokenFuser" without TokenLearner. We read it as attention among all
    positions and a fuser that has beta alone, as there is one token a position and nothing to mix.

    Attributes:
        dtype: type of the computation; parameters are float32.
    """

    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, '*b s c'],
        grid: Float[Array, '*b h w c'],
        maps: None = None,
        *,
        train: bool = False,
    ) -> Float[Array, '*b h w c']:
        """Adds tokens [..., h * w, c] to the grid [..., h, w, c] of which they are."""
        del maps, train
        beta = nn.Dense(1, use_bias=False, dtype=self.dtype, name='beta')(grid)
        return grid + nn.sigmoid(beta) * tokens.reshape(grid.shape)


class Broadcast(nn.Module):
    """Adds to each position of a frame the mean of the frame's tokens; no parameters.

    Table 14's "broadcasting", of which the paper says no more; the reading is ours.
    """

    def __call__(
        self,
        tokens: Float[Array, '*b s c'],
        grid: Float[Array, '*b h w c'],
        maps: Float[Array, '*b s h w'] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, '*b h w c']:
        """Adds tokens [..., s, c] to a grid [..., h, w, c]."""
        del maps, train
        return grid + tokens.mean(axis=-2)[..., None, None, :]
