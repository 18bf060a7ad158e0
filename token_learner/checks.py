"""Checks of plain arguments, with messages that say what to do."""

from typing import Any


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f'{name}={value!r} is not known; use one of {", ".join(choices)}')


def check_positive(name: str, value: int) -> None:
    """Raises ValueError unless `value` is at least 1."""
    if value < 1:
        raise ValueError(f'{name}={value} is too small; use 1 or more')
