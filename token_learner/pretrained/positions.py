"""Position embeddings for another grid."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Shape = tuple[int, ...]

# Of a factorised encoder the latter, too, over the times.
POSITIONS = ('position_embedding', 'temporal_position_embedding')


def adapt_positions(
    path: str,
    ours: Mapping[str, np.ndarray],
    target: Mapping[str, Any],
    source_grid: Shape | None,
    target_grid: Shape | None,
    resize_time: bool,
) -> tuple[np.ndarray, str]:
    """Position embeddings [1, n, c] for a model.

    Args:
        path: one of `POSITIONS`.
        ours: the source's parameters.
        target: the model's.
        source_grid: see `adapt`.
        target_grid: see `adapt`.
        resize_time: whether another number of times is interpolated.

    Returns:
        The array, and what was done: 'loaded', 'resized' or 'inflated'.

    Raises:
        ValueError: if positions make no grid, or the times differ.
    """
    source, leaf = ours[path], target[path]
    token = path.replace('position_embedding', 'class_token')
    had, has = int(token in ours), int(token in target)
    counts = source.shape[1] - had, leaf.shape[1] - has
    if path != 'position_embedding':
        source_grid, target_grid = ((count,) for count in counts)
    elif source_grid is None and _has_times(ours) and counts[0] == counts[1]:
        source_grid = target_grid
    if (source.shape, had, source_grid) == (leaf.shape, has, target_grid):
        return source, 'loaded'
    old = _grid('source_grid', source_grid, counts[0], _has_times(ours))
    new = _grid('target_grid', target_grid, counts[1], _has_times(target))
    if (old, had) == (new, has):
        return source, 'loaded'
    first = source[:, :has]
    if has and not had:
        if not hasattr(leaf, '__array__'):
            raise ValueError('the new class token has no position yet; give arrays as target')
        first = np.asarray(leaf)[:, :1]
    grid = source[0, had:].reshape(*old, -1)
    if inflated := (len(old), len(new)) == (2, 3):
        grid = np.stack([resize_grid(grid, new[1:])] * new[0])
    else:
        _check_times(path, old, new, resize_time)
        grid = resize_grid(grid, new)
    made = np.concatenate([first, grid.reshape(1, -1, grid.shape[-1])], axis=1)
    return made, 'inflated' if inflated else 'resized'


def resize_grid(grid: np.ndarray, size: Shape) -> np.ndarray:
    """Interpolates [*n, c] linearly to [*size, c], corners on corners."""
    for axis, new in enumerate(size):
        old = grid.shape[axis]
        distance = np.linspace(0, old - 1, new)[:, None] - np.arange(old)
        weights = np.maximum(1 - np.abs(distance), 0)
        grid = np.moveaxis(np.tensordot(weights, grid, (1, axis)), 0, axis)
    return grid


def _has_times(parameters: Mapping[str, Any]) -> bool:
    """Whether the positions are of clips: those of a factorised encoder are not."""
    if 'embedding/kernel' not in parameters or POSITIONS[1] in parameters:
        return False
    return len(parameters['embedding/kernel'].shape) == 5


def _grid(name: str, grid: Shape | None, positions: int, has_times: bool) -> Shape:
    side = math.isqrt(positions)
    if grid is None and has_times:
        raise ValueError(
            f'{positions} position embeddings of clips are of no known grid; give {name}, or use '
            'clips of the same size'
        )
    if grid is None and side**2 != positions:
        raise ValueError(f'{positions} position embeddings make no square; give {name}')
    grid = (side, side) if grid is None else tuple(grid)
    if math.prod(grid) != positions:
        raise ValueError(f'{name}={grid} has no {positions} positions, as the embeddings have')
    return grid


def _check_times(path: str, old: Shape, new: Shape, resize_time: bool) -> None:
    if len(old) != len(new):
        raise ValueError(
            f'{path} of the source is of times, rows and columns, {old}, and of the model of rows '
            f'and columns, {new}: name ^{path} in `new`'
        )
    if len(new) != 2 and old[0] != new[0] and not resize_time:
        raise ValueError(
            f'{path} of the source is for {old[0]} times (tubelets one after another), of the '
            f'model for {new[0]}: use clips of {old[0]} tubelets, or resize_time=True'
        )
