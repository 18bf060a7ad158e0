"""From the names and array layouts of other code bases to those of these models."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from flax.traverse_util import unflatten_dict

from token_learner.pretrained.layouts import from_torch
from token_learner.pretrained.names import OURS, SOURCES, Names, check_counterpart, names_of
from token_learner.vit import ViT
from token_learner.vivit import ViViT


def convert(flat: Mapping[str, np.ndarray], *, source: str, model: nn.Module) -> dict[str, Any]:
    """Converts parameters of the same model in another code base.

    Args:
        flat: path, without a leading 'params/', -> array.
        source: 'scenic', the parameter tree of google-research/scenic's token_learner
            project: the classifier `TokenLearnerViT`, or one of its modules; 'augreg', a
            checkpoint of google-research/vision_transformer; or 'huggingface', the state of
            transformers' `ViTForImageClassification` or `VivitForVideoClassification`, which
            compute GELU as `gelu='erf'` where their config says 'gelu'.
        model: the module to convert for: `ViT`, but for 'augreg' `ViViT`, or for 'scenic' also
            `TokenLearner`, `TokenLearnerV11` or `TokenFuser`.

    Returns:
        The nested parameters of `model`, to be applied as {'params': ...}.

    Raises:
        ValueError: if a parameter has no place in `model`, or one of `model` has no source; or
            if one is a model of clips and the other of images.
    """
    check_counterpart(source, model)
    ours, unknown = rename(flat, source=source, model=model)
    _check_family(ours, model)
    absent = _absent(model)
    unknown += [path for path in ours if path.partition('/')[0] in absent]
    if unknown:
        raise ValueError(
            f'parameter {unknown[0]} has no place in {type(model).__name__}; '
            'build the model that the parameters come from'
        )
    last = {part: theirs for theirs, part in names_of(source, model).items()}
    for part, theirs in last.items():
        if part not in absent and not any(f'{path}/'.startswith(f'{part}/') for path in ours):
            raise ValueError(f'there is no parameter {theirs}, from which {part} would come')
    return unflatten_dict(ours, sep='/')


def rename(
    flat: Mapping[str, np.ndarray], *, source: str, model: nn.Module
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Renames what this model and another model of the source may have in common.

    A class token and a representation are renamed even if `model` has none. Hugging Face's
    pooler, which no classifier reads, is left out.

    Args:
        flat: as for `convert`.
        source: as for `convert`, or 'token_learner', whose names are ours.
        model: the module that gives the names, its layers and heads.

    Returns:
        Our path -> array, and the paths in `flat` that have no counterpart. So that `adapt`
        accounts for these, too, give it `ours | {path: flat[path] for path in unknown}`.

    Raises:
        ValueError: if the source has no such model, two parameters have one place, or heads do
            not divide a parameter.
    """
    if source == OURS:
        return dict(flat), []
    names = names_of(source, model)
    ours: dict[str, np.ndarray] = {}
    unknown = []
    for path, array in flat.items():
        if source == 'huggingface' and path.startswith(('vit.pooler.', 'vivit.pooler.')):
            continue
        new = place(path, names, before=SOURCES[source])
        if new is None:
            unknown.append(path)
            continue
        if source == 'huggingface' and isinstance(model, ViT):
            new, array = from_torch(new, array, model.heads)
        if new in ours:
            raise ValueError(f'{path} is not the only parameter that becomes {new}; keep one')
        ours[new] = array
    return ours, unknown


def place(path: str, names: Names, *, before: str = '/', after: str = '/') -> str | None:
    """The new path of a parameter: the longest known beginning is replaced."""
    for end in range(len(pieces := path.split(before)), 0, -1):
        if (known := names.get(before.join(pieces[:end]))) is not None:
            return after.join([known, *pieces[end:]])
    return None


def _check_family(ours: Mapping[str, np.ndarray], model: nn.Module) -> None:
    if not isinstance(model, ViT) or 'embedding/kernel' not in ours:
        return
    if (ours['embedding/kernel'].ndim == 5) != isinstance(model, ViViT):
        theirs, other = ('images', 'clips') if isinstance(model, ViViT) else ('clips', 'images')
        raise ValueError(
            f'the parameters are of a model of {theirs}, and this is one of {other}; build the '
            'model that the parameters come from'
        )


def _absent(model: nn.Module) -> set[str]:
    """The parts of a ViT that `names_of` knows and this model has not."""
    if not isinstance(model, ViT):
        return set()
    there = {'class_token': model.head == 'token', 'representation': model.representation}
    return {part for part, value in there.items() if not value}
