"""Checks of plain arguments, with messages that say what to do."""

import difflib
import inspect
from collections.abc import Callable, Collection
from typing import Any


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f'{name}={value!r} is not known; use one of {", ".join(choices)}')


def check_positive(name: str, value: int) -> None:
    """Raises ValueError unless `value` is at least 1."""
    if value < 1:
        raise ValueError(f'{name}={value} is too small; use 1 or more')


def check_keys(settings: Collection[str], known: Collection[str]) -> None:
    """Raises ValueError, naming the nearest known key, unless all keys are known."""
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f'did you mean {near[0]}?' if near else f'use one of {", ".join(known)}'
            hint = hint if known else 'leave it out'
            raise ValueError(f'{key} is not a known key; {hint}')


def refuse_unused(function: Callable[..., Any], where: str, **settings: Any) -> None:
    """Raises ValueError for settings, other than a function's defaults, of what is not there."""
    for key, value in settings.items():
        if value != inspect.signature(function).parameters[key].default:
            raise ValueError(f'{key}={value!r} does nothing to {where} or leave it out')
