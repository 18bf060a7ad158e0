"""All variables of a model in one flat mapping, as files have them."""

from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

# Beside the parameters.
COLLECTIONS = ('batch_stats',)


def flatten_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Path -> array: of parameters without 'params/', of other collections with their name.

    Raises:
        ValueError: of a collection that files do not have.
    """
    flat: dict[str, Any] = {}
    for collection, tree in variables.items():
        if collection not in ('params', *COLLECTIONS):
            raise ValueError(
                f'files have no collection {collection!r}; keep what it holds in the parameters or '
                f'in {" or ".join(COLLECTIONS)}'
            )
        start = '' if collection == 'params' else f'{collection}/'
        flat |= {f'{start}{path}': x for path, x in flatten_dict(tree, sep='/').items()}
    return flat


def unflatten_variables(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten_variables`: {'params': ...} and other collections."""
    named = {
        path if path.partition('/')[0] in COLLECTIONS else f'params/{path}': x
        for path, x in flat.items()
    }
    return unflatten_dict(named, sep='/')
