"""A model's first parameters from those of another."""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

ACTIONS = ('loaded', 'resized', 'skipped', 'missing')

Shape = tuple[int, ...]

_POSITIONS = 'position_embedding'


class Row(NamedTuple):
    """What became of a parameter.

    Attributes:
        path: our path.
        action: 'loaded'; 'resized', to another grid of positions; 'skipped', in the source and
            not used; 'missing', not in the source and fresh.
        source: shape in the source, or None.
        target: shape in the model, or None.
    """

    path: str
    action: str
    source: Shape | None
    target: Shape | None


def adapt(
    ours: Mapping[str, np.ndarray],
    target: Mapping[str, Any],
    *,
    new: Collection[str] = (),
    unused: Collection[str] = (),
    source_grid: Shape | None = None,
    target_grid: Shape | None = None,
) -> tuple[dict[str, Any], list[Row]]:
    """Fills a model's parameters from those of another, and accounts for every one.

    Position embeddings may be of another grid: they are interpolated linearly, corners on
    corners, as in vision_transformer's `vit_jax.checkpoint.load_pretrained`. A class token that
    the model has not is skipped, and so is its position. One that the source has not must be
    named in `new`; then its position is fresh as well.

    Args:
        ours: our path -> array, from `rename`.
        target: the model's parameters, path -> array or `jax.ShapeDtypeStruct`.
        new: expressions, searched for in paths, of parameters that keep their initial values.
        unused: the same, of parameters of the source that may be left out.
        source_grid: rows and columns of the source's positions; None is a square.
        target_grid: the same of the model's.

    Returns:
        `target` with arrays of the source, of the target's types; and a row for each parameter.

    Raises:
        ValueError: if a parameter of the model is not in the source, one of the source not in the
            model, or shapes differ, and no expression allows it; or if positions make no grid.
    """
    fresh = {path for path in target if _matches(path, new)}
    taken = {path for path in target if path in ours and path not in fresh}
    left = [path for path in ours if path not in target]
    lacking = [path for path in target if path not in ours and path not in fresh]
    spare = [p for p in left if p != 'class_token' and not _matches(p, [*new, *unused])]
    odd = [
        f'{path} {ours[path].shape} -> {leaf.shape}'
        for path, leaf in target.items()
        if path in taken and not _fits(path, ours[path].shape, leaf.shape)
    ]
    _refuse(
        {
            'the source lacks {}: name what is to be initialised in `new`': lacking,
            'the model has no {}: name what is to be left out in `unused`': spare,
            'shapes differ, {}: name what is to be initialised in `new`': odd,
        }
    )
    params, report = dict(target), []
    for path, leaf in target.items():
        source = ours[path].shape if path in ours else None
        action = 'missing' if source is None else 'skipped'
        if path in taken:
            array, action = ours[path], 'loaded'
            if path == _POSITIONS:
                array, action = _positions(ours, target, source_grid, target_grid)
            params[path] = np.asarray(array, leaf.dtype)
        report.append(Row(path, action, source, leaf.shape))
    report += [Row(path, 'skipped', ours[path].shape, None) for path in left]
    return params, report


def format_report(report: Collection[Row]) -> str:
    """Counts of each action, and the rows but for those loaded; equal layers share one."""
    counts = Counter(row.action for row in report)
    lines = [', '.join(f'{counts[action]} {action}' for action in ACTIONS)]
    folded: dict[Row, list[str]] = {}
    for row in report:
        if row.action != 'loaded':
            key = row._replace(path=_LAYER.sub(r'\1*', row.path))
            folded.setdefault(key, []).append(row.path)
    names = [key.path if len(paths) > 1 else paths[0] for key, paths in folded.items()]
    width = max(map(len, names), default=0)
    for name, (row, paths) in zip(names, folded.items(), strict=True):
        source, target = ('-' if x is None else str(x) for x in (row.source, row.target))
        times = f'  x{len(paths)}' if len(paths) > 1 else ''
        lines.append(f'{row.action:8} {name:{width}}  {source} -> {target}{times}')
    return '\n'.join(lines)


_LAYER = re.compile(r'((?:block|tokenizer|fuser|layer)[_.])\d+')


def _matches(path: str, expressions: Collection[str]) -> bool:
    try:
        return any(re.search(expression, path) for expression in expressions)
    except re.error as error:
        raise ValueError(f'{error.pattern!r} is no regular expression: {error}') from error


def _refuse(problems: Mapping[str, list[str]]) -> None:
    """Raises one error for all problems, naming the first few of each kind."""
    parts = []
    for text, names in problems.items():
        if names:
            more = f' and {len(names) - 3} more' if len(names) > 3 else ''
            parts.append(text.format(', '.join(names[:3]) + more))
    if parts:
        raise ValueError('; '.join(parts))


def _fits(path: str, source: Shape, target: Shape) -> bool:
    if path == _POSITIONS:
        return len(source) == len(target) == 3 and source[2] == target[2]
    return source == target


def _positions(
    ours: Mapping[str, np.ndarray],
    target: Mapping[str, Any],
    source_grid: Shape | None,
    target_grid: Shape | None,
) -> tuple[np.ndarray, str]:
    """Position embeddings [1, n, c] for the model, and the action."""
    source, leaf = ours[_POSITIONS], target[_POSITIONS]
    had, has = int('class_token' in ours), int('class_token' in target)
    if (source.shape, had, source_grid) == (leaf.shape, has, target_grid):
        return source, 'loaded'
    old = _grid('source_grid', source_grid, source.shape[1] - had)
    new = _grid('target_grid', target_grid, leaf.shape[1] - has)
    if (old, had) == (new, has):
        return source, 'loaded'
    token = source[:, :has]
    if has and not had:
        if not hasattr(leaf, '__array__'):
            raise ValueError('the new class token has no position yet; give arrays as target')
        token = np.asarray(leaf)[:, :1]
    grid = resize_grid(source[0, had:].reshape(*old, -1), new)
    return np.concatenate([token, grid.reshape(1, -1, grid.shape[-1])], axis=1), 'resized'


def _grid(name: str, grid: Shape | None, positions: int) -> Shape:
    side = math.isqrt(positions)
    if grid is None and side**2 != positions:
        raise ValueError(f'{positions} position embeddings make no square; give {name}')
    grid = (side, side) if grid is None else tuple(grid)
    if math.prod(grid) != positions:
        raise ValueError(f'{name}={grid} has no {positions} positions, as the embeddings have')
    return grid


def resize_grid(grid: np.ndarray, size: Shape) -> np.ndarray:
    """Interpolates [h, w, c] linearly to [*size, c], corners on corners."""
    for axis, new in enumerate(size):
        old = grid.shape[axis]
        distance = np.linspace(0, old - 1, new)[:, None] - np.arange(old)
        weights = np.maximum(1 - np.abs(distance), 0)
        grid = np.moveaxis(np.tensordot(weights, grid, (1, axis)), 0, axis)
    return grid
