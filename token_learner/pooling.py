"""Reductions by fixed windows: spatial pooling, and a fixed split into cells."""

from fractions import Fraction

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from token_learner.checks import check_positive


def average_cells(
    grid: Float[Array, '*b h w c'], rows: int, columns: int
) -> Float[Array, '*b {rows} {columns} c']:
    """Averages equal cells: [..., h, w, c] to [..., rows, columns, c]."""
    *batch, h, w, c = grid.shape
    cells = grid.reshape(*batch, rows, h // rows, columns, w // columns, c)
    return cells.mean(axis=(-4, -2))


class SpatialPooling(nn.Module):
    """Average pooling to a smaller grid, in equal windows over one or several places.

    Source: TPAMI version, Sec. 3.5.2 and Table 6. The published counts fit only where "NxN
    pool" names the last grid: "2x2 pool at 9 and 18" takes 32x32 to 8x8 and then to 2x2. The
    paper does not say whether it averages or takes the maximum; the counts are the same.

    Attributes:
        size: side of the last grid.
        places: poolings that lead there, this one included.
    """

    size: int
    places: int = 1

    def __post_init__(self) -> None:
        check_positive('size', self.size)
        check_positive('places', self.places)
        super().__post_init__()

    def __call__(
        self, grid: Float[Array, '*b h w c'], *, train: bool = False
    ) -> Float[Array, '*b g1 g2 c']:
        """Maps a grid [..., h, w, c] to a smaller grid.

        Raises:
            ValueError: if no equal whole windows lead from h or w to `size`.
        """
        del train
        h, w = grid.shape[-3:-1]
        return average_cells(grid, h // self._window(h, h, w), w // self._window(w, h, w))

    def _window(self, side: int, h: int, w: int) -> int:
        """Side of this place's window: the places'-th root of side / size."""
        window = round((side / self.size) ** (1 / self.places))
        if window < 2 or window**self.places * self.size != side:
            windows = 'windows' if self.places == 1 else f'windows at {self.places} places'
            raise ValueError(
                f'equal {windows} do not take a {h}x{w} grid to {self.size}x{self.size}; '
                'use another resolution, last grid or number of places'
            )
        return window


class GridSplit(nn.Module):
    """Fixed split of each frame into S equal cells, a token being a cell's mean.

    Source: TPAMI version, Sec. 6.3.3, alternative (1). How the paper makes one token of a
    cell, and how it lays out 8 cells, is not written: here the mean, and the layout of
    equal cells that are nearest to square, the columns being the more where two are as near.

    Attributes:
        num_tokens: S, cells a frame.
    """

    num_tokens: int

    def __post_init__(self) -> None:
        check_positive('num_tokens', self.num_tokens)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, grid: Float[Array, '*b h w c'], *, train: bool = False, return_maps: bool = False
    ) -> Float[Array, '*b s c'] | tuple[Float[Array, '*b s c'], Float[Array, '*b s h w']]:
        """Maps a grid [..., h, w, c] to tokens [..., s, c], and with `return_maps` to maps too.

        The maps [..., s, h, w] are 1 inside the token's cell and 0 outside.

        Raises:
            ValueError: if the grid does not split into S equal cells.
        """
        del train
        *batch, h, w, c = grid.shape
        rows, columns = self._layout(h, w)
        tokens = average_cells(grid, rows, columns).reshape(*batch, self.num_tokens, c)
        cells = jnp.arange(h)[:, None] // (h // rows) * columns + jnp.arange(w) // (w // columns)
        inside = cells == jnp.arange(self.num_tokens)[:, None, None]
        maps = jnp.broadcast_to(inside.astype(grid.dtype), (*batch, self.num_tokens, h, w))
        self.sow('intermediates', 'maps', maps)
        return (tokens, maps) if return_maps else tokens

    def _layout(self, h: int, w: int) -> tuple[int, int]:
        """Rows and columns of cells."""
        s = self.num_tokens
        layouts = [(r, s // r) for r in range(1, s + 1) if not (s % r or h % r or w % (s // r))]
        if not layouts:
            raise ValueError(
                f'a {h}x{w} grid does not split into {s} equal cells; '
                'use another resolution or number of tokens'
            )

        def shape(layout: tuple[int, int]) -> tuple[Fraction, int]:
            sides = h // layout[0], w // layout[1]
            return Fraction(max(sides), min(sides)), layout[0]

        return min(layouts, key=shape)
