"""The transformer encoder, with token reductions and fusers as factories."""

from collections.abc import Callable

import flax.linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from token_learner.attention import SelfAttention
from token_learner.mlp import Mlp

Factory = Callable[..., nn.Module]


class EncoderBlock(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    Attributes:
        heads: attention heads.
        mlp_dim: width inside the MLP.
        dropout: rate after the attention and inside the MLP.
        dtype: type of the computation; parameters are float32.
    """

    heads: int
    mlp_dim: int
    dropout: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, 'b n c'], *, train: bool = False) -> Float[Array, 'b n c']:
        """Maps [b, n, c] to [b, n, c]."""
        y = nn.LayerNorm(dtype=self.dtype, name='norm_attention')(x)
        y = SelfAttention(self.heads, self.dtype, name='attention')(y)
        x = x + nn.Dropout(self.dropout, deterministic=not train)(y)
        y = nn.LayerNorm(dtype=self.dtype, name='norm_mlp')(x)
        return x + Mlp(self.mlp_dim, None, self.dropout, self.dtype, name='mlp')(y, train=train)


class Encoder(nn.Module):
    """Encoder blocks, with token reductions between them, and a final LayerNorm.

    A reduction `(k, factory)` stands before block k, counted from 0: `factory(name=...)`
    makes a module from frames [b, t, h, w, c] to tokens [b, t, s, c], or to a smaller
    grid [b, t, h', w', c] that a later reduction may reduce again.

    Without a fuser the later blocks work on the tokens (Fig. 3a of the TPAMI version).
    With one, tokenizer, block and fuser repeat in every block from k on, each with
    parameters of its own, and the grid goes on (Fig. 3b).

    Attributes:
        layers: number of blocks.
        heads: attention heads.
        mlp_dim: width inside the blocks' MLPs.
        reductions: pairs of layer and factory.
        fuser: factory of the fuser, or None.
        dropout: rate in the blocks.
        dtype: type of the computation; parameters are float32.
    """

    layers: int
    heads: int
    mlp_dim: int
    reductions: tuple[tuple[int, Factory], ...] = ()
    fuser: Factory | None = None
    dropout: float = 0.0
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        for layer, _ in self.reductions:
            if not 0 <= layer < self.layers:
                raise ValueError(
                    f'a reduction at layer {layer} lies outside the {self.layers} layers; '
                    f'use 0 to {self.layers - 1}'
                )
        if len(dict(self.reductions)) < len(self.reductions):
            raise ValueError('two reductions stand at one layer; keep one of them')
        if self.fuser and len(self.reductions) != 1:
            raise ValueError('a fuser goes with exactly one reduction; give one, or no fuser')
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, 'b n c'], grid: tuple[int, ...], *, train: bool = False
    ) -> Float[Array, 'b m c']:
        """Encodes a sequence.

        Args:
            x: [b, n, c]; where there are reductions, n is t*h*w.
            grid: (t, h, w).
            train: whether dropout is on.

        Returns:
            [b, m, c], m being n, or what the reductions leave.

        Raises:
            ValueError: if a reduction finds tokens where it needs a grid.
        """
        b, _, c = x.shape
        reductions = dict(self.reductions)
        tokenizer: Factory | None = None
        for layer in range(self.layers):
            block = EncoderBlock(
                self.heads, self.mlp_dim, self.dropout, self.dtype, name=f'block_{layer}'
            )
            tokenizer = reductions.get(layer, tokenizer if self.fuser else None)
            if tokenizer is None:
                x = block(x, train=train)
                continue
            if len(grid) != 3:
                raise ValueError(f'the reduction at layer {layer} needs a grid, but finds tokens')
            frames = x.reshape(b, *grid, c)
            tokens = tokenizer(name=f'tokenizer_{layer}')(frames, train=train)
            x = block(tokens.reshape(b, -1, c), train=train)
            if self.fuser:
                fuser = self.fuser(name=f'fuser_{layer}')
                x = fuser(x.reshape(tokens.shape), frames, train=train).reshape(b, -1, c)
            else:
                grid = tokens.shape[1:-1]
        return nn.LayerNorm(dtype=self.dtype, name='norm')(x)
