"""Checks of plain arguments, with messages that say what to do."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

T = TypeVar('T')


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f'{name}={value!r} is not known; use one of {", ".join(choices)}')


def find(name: str, value: Any, table: Mapping[str, T], base: type | None = None) -> T:
    """What a table has for `value`; of 'MODULE:OBJECT' the object, imported from there.

    Args:
        name: of the setting.
        value: of the setting.
        table: by the names of what there is.
        base: of what an imported object has to be a class; None for any object.

    Raises:
        ValueError: if there is no such name, module or object, or it is no such class.
    """
    if value in table:
        return table[value]
    if not isinstance(value, str) or ':' not in value:
        raise ValueError(f'{name}={value!r} is not known; use one of {", ".join(table)}')
    module, _, attribute = value.partition(':')
    try:
        found: T = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f'{name}={value!r} cannot be imported ({error}); name an object that is there as '
            'MODULE:OBJECT'
        ) from error
    if base is not None and not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f'{name}={value!r} is no class of {base.__name__}; name one')
    return found


def accepted(function: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that a function has parameters for."""
    parameters = inspect.signature(function).parameters
    return {key: value for key, value in settings.items() if key in parameters}


def parameters_of(module: Any) -> Collection[str]:
    """Names of what a module is called with."""
    return inspect.signature(type(module).__call__).parameters


def check_num_tokens(name: str, tokenizer: Callable[..., Any]) -> None:
    """Raises ValueError unless what makes a tokenizer takes the number of its tokens."""
    if 'num_tokens' not in inspect.signature(tokenizer).parameters:
        raise ValueError(f'tokenizer={name!r} has no attribute num_tokens; give it one')


def check_return_maps(tokenizer: Any) -> None:
    """Raises ValueError unless a tokenizer can stand before a fuser."""
    if 'return_maps' not in parameters_of(tokenizer):
        raise ValueError(
            f'{type(tokenizer).__name__} has no return_maps, which what writes tokens back to the '
            'grid needs; use another tokenizer, or give its call one'
        )


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
