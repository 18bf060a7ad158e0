"""Parameters of a plain ViT for other code bases."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from token_learner.pretrained.convert import place
from token_learner.pretrained.layouts import to_torch
from token_learner.pretrained.names import SOURCES, check_counterpart, names_of
from token_learner.vit import ViT, patch_grid
from token_learner.vivit import ViViT


def to_augreg(params: Mapping[str, Any], model: ViT) -> dict[str, np.ndarray]:
    """The parameters as google-research/vision_transformer's released files have them.

    Args:
        params: nested, the layers one by one.
        model: a ViT without reductions.

    Returns:
        Path -> array, for `numpy.savez`.

    Raises:
        ValueError: if the other code base has no such model.
    """
    _check_images('augreg', model)
    check_counterpart('augreg', model)
    if model.gelu != 'tanh':
        raise ValueError(f"augreg has no gelu={model.gelu!r}; use 'tanh'")
    return _named(_flat(params), 'augreg', model)


def to_huggingface(
    params: Mapping[str, Any], model: ViT, image_size: int | tuple[int, int]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The parameters as transformers' ViTForImageClassification has them, and its config.

    Args:
        params: nested, the layers one by one.
        model: a ViT with a class token, without reductions and representation.
        image_size: of the images that the position embeddings are for, pixels: both sides, or
            height and width.

    Returns:
        Path -> array, and the content of config.json, see `write_huggingface`.

    Raises:
        ValueError: if the other code base has no such model, or the image has another number of
            patches than the position embeddings.
    """
    _check_images('huggingface', model)
    check_counterpart('huggingface', model)
    flat = _flat(params)
    theirs = _named(dict(to_torch(*item) for item in flat.items()), 'huggingface', model)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    h, w = patch_grid(size, model.patch)
    positions = flat['position_embedding'].shape[1]
    if positions != h * w + 1:
        raise ValueError(
            f'image_size={image_size} has {h * w} patches, the position embeddings are for '
            f'{positions - 1}; give the size they were trained at'
        )
    labels = {str(i): f'LABEL_{i}' for i in range(model.num_classes)}
    config = {
        'architectures': ['ViTForImageClassification'],
        'model_type': 'vit',
        'image_size': image_size if isinstance(image_size, int) else list(image_size),
        'patch_size': model.patch[0] if len(set(model.patch)) == 1 else list(model.patch),
        'num_channels': flat['embedding/kernel'].shape[2],
        'hidden_size': model.width,
        'num_hidden_layers': model.layers,
        'num_attention_heads': model.heads,
        'intermediate_size': model.mlp_dim,
        'hidden_act': {'tanh': 'gelu_pytorch_tanh', 'erf': 'gelu'}[model.gelu],
        'layer_norm_eps': 1e-6,  # Flax's
        'qkv_bias': True,
        'hidden_dropout_prob': model.dropout,
        'attention_probs_dropout_prob': 0.0,
        'id2label': labels,
        'label2id': {label: int(i) for i, label in labels.items()},
    }
    return theirs, config


def _check_images(source: str, model: ViT) -> None:
    if isinstance(model, ViViT):
        raise ValueError(f'a model of clips is not written as {source} has it; give a ViT')


def _flat(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {path: np.asarray(x) for path, x in flatten_dict(dict(params), sep='/').items()}


def _named(flat: Mapping[str, np.ndarray], source: str, model: ViT) -> dict[str, np.ndarray]:
    names = {ours: theirs for theirs, ours in names_of(source, model).items()}
    new = {path: place(path, names, after=SOURCES[source]) for path in flat}
    for path, theirs in new.items():
        if theirs is None:
            raise ValueError(
                f'parameter {path} has no place in {source}; give the parameters of this very '
                'model, its layers one by one'
            )
    return {theirs: flat[path] for path, theirs in new.items() if theirs is not None}
