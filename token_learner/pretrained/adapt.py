"""A model's first parameters from those of another."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from token_learner.checks import check_choice
from token_learner.pretrained.inflate import INFLATIONS, inflate_parameter
from token_learner.pretrained.positions import POSITIONS, Shape, adapt_positions

ACTIONS = ('loaded', 'resized', 'inflated', 'skipped', 'missing')


class Row(NamedTuple):
    """What became of a parameter.

    Attributes:
        path: our path.
        action: 'loaded'; 'resized', to another grid of positions; 'inflated', from images to
            clips; 'skipped', in the source and not used; 'missing', not in the source and fresh.
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
    inflate: str = 'central',
    resize_time: bool = False,
) -> tuple[dict[str, Any], list[Row]]:
    """Fills a model's parameters from those of another, and accounts for every one.

    Position embeddings may be of another grid: they are interpolated linearly, corners on
    corners, as in vision_transformer's `vit_jax.checkpoint.load_pretrained`. A class token that
    the model has not is skipped, and so is its position. One that the source has not must be
    named in `new`; then its position is fresh as well.

    A model of images begins one of clips: its kernel and a fuser's mixing become what
    `inflate_parameter` says, its position embeddings repeat at each time. With joint space-time
    attention and `head='gap'` a clip of one repeated image then gives the image's own logits. With
    a class token it does not: there are t copies of each position to attend to, and one token.

    Args:
        ours: our path -> array, from `rename`.
        target: the model's parameters, path -> array or `jax.ShapeDtypeStruct`.
        new: expressions, searched for in paths, of parameters that keep their initial values.
        unused: the same, of parameters of the source that may be left out.
        source_grid: what the source's positions are for, see `ViT.position_grid`; None is a
            square, and of clips the model's grid.
        target_grid: the same of the model's; None is a square.
        inflate: 'central' or 'average', see `inflate_parameter`.
        resize_time: whether positions of another number of times are interpolated.

    Returns:
        `target` with arrays of the source, of the target's types; and a row for each parameter.

    Raises:
        ValueError: if a parameter of the model is not in the source, one of the source not in the
            model, or shapes differ, and no expression allows it; if positions make no grid or are
            of another number of times; or if a model of clips is to begin one of images.
    """
    check_choice('inflate', inflate, INFLATIONS)
    fresh = {path for path in target if _matches(path, new)}
    times = target_grid[0] if target_grid is not None and len(target_grid) == 3 else 1
    fitted = {
        path: _fit(path, ours[path], leaf.shape, times, inflate)
        for path, leaf in target.items()
        if path in ours and path not in fresh
    }
    left = [path for path in ours if path not in target]
    lacking = [path for path in target if path not in ours and path not in fresh]
    spare = [p for p in left if p not in _TOKENS and not _matches(p, [*new, *unused])]
    odd = [
        f'{path} {ours[path].shape} -> {target[path].shape}'
        for path, array in fitted.items()
        if array is None
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
        if path in fitted:
            array, action = fitted[path], 'loaded' if source == leaf.shape else 'inflated'
            if path in POSITIONS:
                array, action = adapt_positions(
                    path, ours, target, source_grid, target_grid, resize_time
                )
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


_TOKENS = ('class_token', 'temporal_class_token')
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


def _fit(path: str, array: np.ndarray, shape: Shape, times: int, inflate: str) -> np.ndarray | None:
    """The parameter for the model, or None; positions are as they were."""
    if path == 'embedding/kernel' and (array.ndim, len(shape)) == (5, 4):
        raise ValueError(
            'the source is a model of clips, and this is one of images; begin with a model of '
            'images, or name a model of clips such as ViViT-B/16x2'
        )
    fits = array.shape == shape
    if path in POSITIONS:
        fits = array.ndim == len(shape) == 3 and array.shape[2] == shape[2]
    return array if fits else inflate_parameter(path, array, shape, times, inflate)
