"""From config sections to objects, with errors that name the key and say what to do."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from token_learner.checks import check_keys, find

T = TypeVar('T')


class UserError(ValueError):
    """Input that cannot be used. The message is one line: what is wrong; what to do."""


def construct(
    function: Callable[..., T], settings: Mapping[str, Any], where: str, **given: Any
) -> T:
    """Calls `function(**settings, **given)`.

    Every key must be a parameter of the function and every parameter without a default
    must be a key, so that no key goes unread. A function with **settings checks those itself.

    Args:
        function: a class or function with named parameters.
        settings: a section of the config.
        where: its name, such as 'config.optimizer'.
        **given: arguments that do not come from the config.

    Raises:
        UserError: if a key is unknown or missing, or the function refuses a value or cannot
            compute with it.
    """
    signature = inspect.signature(function).parameters
    parameters = {
        name: p
        for name, p in signature.items()
        if name not in given and p.kind is not p.VAR_KEYWORD
    }
    try:
        if not any(p.kind is p.VAR_KEYWORD for p in signature.values()):
            check_keys(settings, parameters)
    except ValueError as error:
        raise UserError(f'{where}.{error}') from error
    for name, parameter in parameters.items():
        if name not in settings and parameter.default is parameter.empty:
            raise UserError(f'{where}.{name} is missing; set it')
    try:
        return function(**settings, **given)
    except UserError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f'{where}: {error}') from error


def construct_named(
    table: Mapping[str, Callable[..., T]], settings: Mapping[str, Any], where: str, **given: Any
) -> T:
    """As `construct`, the function being what the table has for `settings['name']`.

    A name 'MODULE:OBJECT' is a function or class of one's own, which is imported.
    """
    rest = dict(settings)
    try:
        function = find(f'{where}.name', rest.pop('name', None), table)
    except ValueError as error:
        raise UserError(str(error)) from error
    return construct(function, rest, where, **given)
