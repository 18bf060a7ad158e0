"""Parameters of equal layers: one by one, or stacked for a model with `scan`."""

import operator
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from token_learner.encoder import runs

_ONE = re.compile(r'(block|tokenizer|fuser)_(\d+)')
_STACK = re.compile(r'layers_(\d+)_(\d+)')


def stack_layers(tree: Any, model: nn.Module) -> Any:
    """Stacks equal layers, for a model with `scan`.

    Checkpoints, sharding rules and exports know the layers one by one; the stacked form
    exists inside a compiled program.

    Args:
        tree: parameters or variables of the model without `scan`, as nested dicts.
        model: `ViT`, `ViViT` or `Encoder`.

    Returns:
        The same with `layers_A_B`, whose arrays are [B - A, ...], in place of
        `block_A` to `block_B-1`, and with a fuser of the tokenizers and fusers as well.
    """
    parts = ('block', 'tokenizer', 'fuser') if model.fuser else ('block',)
    scanned = [(a, b) for a, b in runs(model.layers, model.reductions) if b - a > 1]
    single: dict[tuple[str, ...], Any] = {}
    stacks: dict[tuple[str, ...], list[Any]] = {}
    for path, leaf in flatten_dict(tree).items():
        place, one = _first(_ONE, path)
        ranges = [(a, b) for a, b in scanned if one and a <= int(one[2]) < b]
        if not one or not ranges or one[1] not in parts or 'temporal_encoder' in path:
            single[path] = leaf
            continue
        ((a, b),) = ranges
        new = (*path[:place], f'layers_{a}_{b}', one[1], *path[place + 1 :])
        stacks.setdefault(new, [None] * (b - a))[int(one[2]) - a] = leaf
    stacked = {
        path: jax.tree.map(lambda *x: jnp.stack(x), *leaves) for path, leaves in stacks.items()
    }
    return unflatten_dict(single | stacked)


def without_scan(model: Any) -> Any:
    """The model that takes variables with the layers one by one."""
    return model.clone(scan=False) if model.scan else model


def unstack_layers(tree: Any) -> Any:
    """The inverse of `stack_layers`."""
    flat = {}
    for path, leaf in flatten_dict(tree).items():
        place, stack = _first(_STACK, path)
        if not stack:
            flat[path] = leaf
            continue
        first, end = int(stack[1]), int(stack[2])
        for i in range(end - first):
            new = (*path[:place], f'{path[place + 1]}_{first + i}', *path[place + 2 :])
            flat[new] = jax.tree.map(operator.itemgetter(i), leaf)
    return unflatten_dict(flat)


def _first(pattern: re.Pattern[str], path: tuple[str, ...]) -> tuple[int, re.Match[str] | None]:
    """Where a name of the pattern stands first in a path; a layer's own modules stand behind it."""
    matches = ((i, match) for i, name in enumerate(path) if (match := pattern.fullmatch(name)))
    return next(matches, (0, None))
