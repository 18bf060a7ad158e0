"""TokenFuser: mixes tokens and writes them back onto the grid they came from."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float

from token_learner.checks import check_choice
from token_learner.mlp import Mlp


class TokenFuser(nn.Module):
    """Token-wise linear layer, then a learned combination for each position.

    Y <- M Y over the token axis, then X + sigmoid(beta(X)) Y for each frame, X being
    the grid before tokenisation (TPAMI version, Sec. 2.2, Eq. 2). Where the paper and
    its released code differ:

    - `mix_scope`: M mixes all S*T tokens of a clip (paper) or the S of a frame
      (released). The same for images.
    - `beta`: one linear layer (paper) or an MLP (released since 09480e7). A 3x3 convolution
      is what the published count of the bottleneck models' module leads to.
    - `norm`: no LayerNorm (paper's text), one on the grid before beta ('grid', released
      with use_normalization=False), or also one before and one after M ('full',
      released).
    - `mix_init`: the released code starts M at zero in front of a LayerNorm, whose slope at
      zero is 1/sqrt(1e-6): the output is the identity, but M's first gradient is about a
      thousand times that of its neighbours and takes the whole clipping budget. 'identity'
      starts as the identity too, by a zero gain after the mixing: the scale of the last
      LayerNorm for norm='full' (M itself then starts as the unit matrix), M where no
      LayerNorm follows it. 'released' is the released form.

    Attributes:
        mix_scope: 'frame' or 'clip'.
        beta: 'linear', 'mlp' or 'conv'.
        hidden: width inside beta's MLP.
        norm: 'none', 'grid' or 'full'.
        mix_init: 'identity' or 'released'.
        dropout: rate inside beta's MLP and on the update.
        dtype: type of the computation; parameters are float32.
        use_bias: whether beta and M have biases; an MLP has them.
    """

    mix_scope: str = 'frame'
    beta: str = 'linear'
    hidden: int = 64
    norm: str = 'none'
    mix_init: str = 'identity'
    dropout: float = 0.0
    dtype: Dtype | None = None
    use_bias: bool = True

    def __post_init__(self) -> None:
        check_choice('mix_scope', self.mix_scope, ('frame', 'clip'))
        check_choice('beta', self.beta, ('linear', 'mlp', 'conv'))
        check_choice('norm', self.norm, ('none', 'grid', 'full'))
        check_choice('mix_init', self.mix_init, ('identity', 'released'))
        super().__post_init__()

    @nn.compact
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
            tokens: [..., t, s, c]; the time axis may be missing for mix_scope='frame'.
            grid: [..., t, h, w, c], the tokenizer's input.
            maps: not used.
            train: whether dropout is on.

        Returns:
            A grid [..., t, h, w, c].

        Raises:
            ValueError: for mix_scope='clip' without a time axis, or if tokens and grid differ in
                width or leading axes.
        """
        del maps
        if (*tokens.shape[:-2], tokens.shape[-1]) != (*grid.shape[:-3], grid.shape[-1]):
            raise ValueError(
                f'tokens {tokens.shape} are not of the grid {grid.shape}; give [..., s, c] and '
                '[..., h, w, c] of the same width and leading axes'
            )
        num_tokens = tokens.shape[-2]
        mixed = self._mix(tokens)
        x = grid if self.norm == 'none' else nn.LayerNorm(dtype=self.dtype, name='norm_grid')(grid)
        if self.beta == 'mlp':
            beta = Mlp(self.hidden, num_tokens, self.dropout, self.dtype, name='beta')
            logits = beta(x, train=train)
        else:
            layer = partial(nn.Conv, kernel_size=(3, 3)) if self.beta == 'conv' else nn.Dense
            logits = layer(num_tokens, use_bias=self.use_bias, dtype=self.dtype, name='beta')(x)
        update = jnp.einsum('...sc,...hws->...hwc', mixed, nn.sigmoid(logits))
        return grid + nn.Dropout(self.dropout, deterministic=not train)(update)

    def _mix(self, tokens: Float[Array, '*b s c']) -> Float[Array, '*b s c']:
        """Mixes along the token axis: [..., t, s, c] to [..., t, s, c]."""
        shape = tokens.shape
        if self.mix_scope == 'clip':
            if tokens.ndim < 4:
                raise ValueError(
                    "mix_scope='clip' needs tokens with a time axis, [..., t, s, c]; "
                    "for images use mix_scope='frame', which is the same there"
                )
            tokens = tokens.reshape(*shape[:-3], shape[-3] * shape[-2], shape[-1])
        full = self.norm == 'full'
        zero_gain = full and self.mix_init == 'identity'
        if full:
            tokens = nn.LayerNorm(dtype=self.dtype, name='norm_in')(tokens)
        mixed = nn.Dense(
            tokens.shape[-2],
            self.use_bias,
            self.dtype,
            kernel_init=unit_matrix if zero_gain else nn.initializers.zeros,
            name='mix',
        )(jnp.swapaxes(tokens, -1, -2))
        mixed = jnp.swapaxes(mixed, -1, -2)
        if full:
            scale_init = nn.initializers.zeros if zero_gain else nn.initializers.ones
            mixed = nn.LayerNorm(dtype=self.dtype, scale_init=scale_init, name='norm_out')(mixed)
        return mixed.reshape(shape)


def unit_matrix(key: Array, shape: tuple[int, int], dtype: Dtype = jnp.float32) -> Array:
    """Initialiser of a square kernel as the unit matrix."""
    del key
    return jnp.eye(*shape, dtype=dtype)
