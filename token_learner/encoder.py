"""The transformer encoder, with token reductions and fusers as factories."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float

from token_learner.attention import IMPLEMENTATIONS, Attention, Bias
from token_learner.checks import check_choice, check_return_maps, parameters_of
from token_learner.mlp import Mlp
from token_learner.partitioning import shard_batch

Factory = Callable[..., nn.Module]

# What the backward pass finds in memory; it computes the rest anew.
REMAT: dict[str, Callable[..., bool] | None] = {
    'none': None,
    'full': jax.checkpoint_policies.nothing_saveable,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class EncoderBlock(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    Attributes:
        heads: attention heads.
        mlp_dim: width inside the MLP.
        attention: implementation, see `dot_product_attention`.
        dropout: rate after the attention and inside the MLP.
        dtype: type of the computation; parameters are float32.
        gelu: of the MLP, 'tanh' or 'erf'.
    """

    heads: int
    mlp_dim: int
    attention: str = 'auto'
    dropout: float = 0.0
    dtype: Dtype | None = None
    gelu: str = 'tanh'

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'b n c'],
        bias: Bias | None = None,
        drop: Float[Array, ''] | float | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, 'b n c']:
        """Maps a sequence to one of the same shape.

        Args:
            x: [b, n, c].
            bias: added to the attention's logits.
            drop: probability with which an example goes past the attention, and past the MLP, in
                training (stochastic depth: Huang et al., arXiv:1603.09382); None is never.
            train: whether dropout is on.

        Returns:
            [b, n, c].
        """
        y = nn.LayerNorm(dtype=self.dtype, name='norm_attention')(x)
        y = Attention(self.heads, self.attention, self.dtype, name='attention')(y, bias=bias)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        x = x + self._drop(y, drop, train)
        y = nn.LayerNorm(dtype=self.dtype, name='norm_mlp')(x)
        mlp = Mlp(self.mlp_dim, None, self.dropout, self.dtype, self.gelu, name='mlp')
        return x + self._drop(mlp(y, train=train), drop, train)

    def _drop(self, y: Array, drop: Any, train: bool) -> Array:
        """0 for some examples; for the others as much more as keeps the mean."""
        if drop is None or not train:
            return y
        kept = jax.random.bernoulli(self.make_rng('dropout'), 1 - drop, (y.shape[0], 1, 1))
        return jnp.where(kept, y / jnp.asarray(1 - drop, y.dtype), 0)


class Encoder(nn.Module):
    """Encoder blocks, with token reductions between them, and a final LayerNorm.

    A reduction `(k, factory)` stands before block k, counted from 0: `factory(name=...)`
    makes a module from frames [b, t, h, w, c] to tokens [b, t, s, c], or to a smaller
    grid [b, t, h', w', c] that a later reduction may reduce again. One whose call has a
    second argument `sizes`, as `TokenMerging`'s, is given those of the positions and
    returns the tokens' as well; it also merges tokens that are no grid any more.

    Without a fuser the later blocks work on the tokens (Fig. 3a of the TPAMI version).
    With one, tokenizer, block and fuser repeat in every block from k on, each with
    parameters of its own, and the grid goes on (Fig. 3b). The tokenizer is then called
    with `return_maps=True`, and the fuser with tokens, grid and maps.

    Attributes:
        layers: number of blocks.
        heads: attention heads.
        mlp_dim: width inside the blocks' MLPs.
        reductions: pairs of layer and factory.
        fuser: factory of the fuser, or None.
        attention: implementation, see `dot_product_attention`.
        remat: what of a layer the backward pass computes anew: 'none', 'full' (all of it)
            or 'dots' (all but products with weights).
        scan: whether equal layers are one compiled loop. Their parameters are then stacked;
            `token_learner.layers` takes them from one form to the other.
        dropout: rate in the blocks.
        stochastic_depth: probability with which an example goes past either half of the last
            block; it rises linearly from 0 at the first one.
        dtype: type of the computation; parameters are float32.
        gelu: of the MLPs, 'tanh' or 'erf'.
    """

    layers: int
    heads: int
    mlp_dim: int
    reductions: tuple[tuple[int, Factory], ...] = ()
    fuser: Factory | None = None
    attention: str = 'auto'
    remat: str = 'none'
    scan: bool = False
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    dtype: Dtype | None = None
    gelu: str = 'tanh'

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
        check_choice('attention', self.attention, IMPLEMENTATIONS)
        check_choice('remat', self.remat, tuple(REMAT))
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'b n c'],
        grid: tuple[int, ...],
        *,
        train: bool = False,
        return_sizes: bool = False,
    ) -> Float[Array, 'b m c'] | tuple[Float[Array, 'b m c'], Float[Array, 'b m'] | None]:
        """Encodes a sequence.

        Args:
            x: [b, n, c]; where there are reductions, n is t*h*w.
            grid: (t, h, w).
            train: whether dropout is on.
            return_sizes: whether to say how many positions each token stands for.

        Returns:
            [b, m, c], m being n, or what the reductions leave; with return_sizes also
            [b, m], or None where no tokens were merged.

        Raises:
            ValueError: if a reduction finds tokens where it needs a grid or makes something
                else, or a fuser follows one that makes no tokens to write back.
        """
        reductions = dict(self.reductions)
        sizes: Array | None = None
        block = partial(
            EncoderBlock,
            self.heads,
            self.mlp_dim,
            attention=self.attention,
            dropout=self.dropout,
            dtype=self.dtype,
            gelu=self.gelu,
        )
        for first, end in runs(self.layers, self.reductions):
            tokenizer = reductions.get(first)
            scanned = self.scan and end - first > 1
            if tokenizer and not self.fuser:
                x, grid, sizes = self._reduce(first, tokenizer, x, grid, sizes, train)
            layer = partial(
                _apply_layer,
                block=block,
                tokenizer=tokenizer,
                fuser=self.fuser if tokenizer else None,
                grid=grid,
                apply=partial(_apply, remat=self.remat, scanned=scanned, train=train),
            )
            bias = None if sizes is None else jnp.log(sizes.reshape(x.shape[0], 1, 1, -1))
            drops = self._drops(first, end)
            if scanned:
                stack = _repeated(end - first)(layer, name=f'layers_{first}_{end}')
                x, _ = stack(x, bias, None if drops is None else jnp.array(drops))
                continue
            for i in range(first, end):
                x = layer(x, bias, drops and drops[i - first], suffix=f'_{i}')
        x = nn.LayerNorm(dtype=self.dtype, name='norm')(x)
        if not return_sizes:
            return x
        return x, None if sizes is None else sizes.reshape(x.shape[:2])

    def _drops(self, first: int, end: int) -> list[float] | None:
        """Rates of stochastic depth of some blocks; None without it."""
        if not self.stochastic_depth:
            return None
        last = max(1, self.layers - 1)
        return [self.stochastic_depth * layer / last for layer in range(first, end)]

    def _reduce(
        self,
        layer: int,
        factory: Factory,
        x: Array,
        grid: tuple[int, ...],
        sizes: Array | None,
        train: bool,
    ) -> tuple[Array, tuple[int, ...], Array | None]:
        """The sequence, its grid and the tokens' sizes after a reduction."""
        b, _, c = x.shape
        reduction = factory(name=f'tokenizer_{layer}')
        apply = partial(_apply, remat=self.remat, scanned=False, train=train)
        if 'sizes' in parameters_of(reduction):  # it merges tokens, which may be no grid any more
            grid = (*grid, 1)[:3]  # tokens are a grid of one column
            sizes = None if sizes is None else sizes.reshape(b, *grid)
            tokens, sizes = apply(reduction, x.reshape(b, *grid, c), sizes)
        elif len(grid) == 3:
            tokens = apply(reduction, x.reshape(b, *grid, c))
            if tokens.ndim not in (4, 5) or (tokens.shape[0], tokens.shape[-1]) != (b, c):
                raise ValueError(
                    f'{type(reduction).__name__} makes {list(tokens.shape)} of a grid '
                    f'{[b, *grid, c]}; return tokens [b, t, s, c] or a grid [b, t, h, w, c]'
                )
        else:
            raise ValueError(f'the reduction at layer {layer} needs a grid, but finds tokens')
        return tokens.reshape(b, -1, c), tokens.shape[1:-1], sizes


def runs(layers: int, reductions: tuple[tuple[int, Any], ...]) -> list[tuple[int, int]]:
    """Ranges (first, end) of equal layers: a new one begins at each reduction."""
    starts = sorted({0, *(layer for layer, _ in reductions)})
    return list(zip(starts, [*starts[1:], layers], strict=True))


def _apply_layer(
    x: Array,
    bias: Array | None,
    drop: Any,
    *,
    suffix: str,
    block: Factory,
    tokenizer: Factory | None,
    fuser: Factory | None,
    grid: tuple[int, ...],
    apply: Callable[..., Any],
) -> Array:
    """A block, or with a fuser tokenizer, block and fuser: [b, n, c] to [b, n, c]."""
    if tokenizer is None or fuser is None:
        return apply(block(name=f'block{suffix}'), x, bias, drop)
    b, _, c = x.shape
    frames = x.reshape(b, *grid, c)
    made = tokenizer(name=f'tokenizer{suffix}')
    check_return_maps(made)
    tokens, maps = apply(made, frames, return_maps=True)
    x = apply(block(name=f'block{suffix}'), tokens.reshape(b, -1, c), None, drop)
    x = apply(fuser(name=f'fuser{suffix}'), x.reshape(tokens.shape), frames, maps)
    return x.reshape(b, -1, c)


def _apply(
    module: nn.Module, *args: Any, remat: str, scanned: bool, train: bool, **options: Any
) -> Any:
    """module(*args), of which the backward pass computes anew what `remat` says."""

    def apply(module: Any, *args: Any) -> Any:
        return jax.tree.map(shard_batch, module(*args, train=train, **options))

    if remat != 'none':
        apply = nn.remat(apply, policy=REMAT[remat], prevent_cse=not scanned)
    return apply(module, *args)


class _Repeated(nn.Module):
    """One of several equal layers, for `nn.scan`."""

    layer: Callable[..., Array]

    @nn.compact
    def __call__(self, x: Array, bias: Array | None, drop: Any) -> tuple[Array, None]:
        return self.layer(x, bias, drop, suffix=''), None


def _repeated(times: int) -> Any:
    return nn.scan(
        _Repeated,
        variable_axes={'params': 0, 'intermediates': 0, 'batch_stats': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=(nn.broadcast, 0),
        length=times,
    )
