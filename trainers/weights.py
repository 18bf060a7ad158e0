"""Weights to begin with: of a workdir, an export, or public ones."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from token_learner.build import build_model
from token_learner.pretrained import HUGGINGFACE_GELUS, OURS, read
from token_learner.variables import flatten_variables
from trainers.checkpoints import labels_digest
from trainers.export import read_export


class Weights(NamedTuple):
    """Parameters and running statistics to begin with.

    Attributes:
        flat: path -> array, see `token_learner.variables`.
        source: whose names they have, see `token_learner.pretrained.rename`.
        grid: of the positions, see `adapt`; None is not known.
        labels: digest of the classes of the head, where it is known.
        about: what they were trained with, as far as it is known: keys of the config, with dots,
            and `heads`.
    """

    flat: Mapping[str, np.ndarray]
    source: str
    grid: tuple[int, ...] | None
    labels: str | None
    about: Mapping[str, Any]


def read_weights(path: Path) -> Weights:
    """Reads a workdir or one of its checkpoints, an export, or public weights.

    Raises:
        ValueError: if it is none of these, or damaged.
    """
    if not path.exists():
        raise ValueError(f'{path} is not there; name a workdir or a file of weights')
    if (path / 'checkpoints').is_dir():
        steps = [p for p in (path / 'checkpoints').iterdir() if p.name.isdigit()]
        if not steps:
            raise ValueError(f'{path} holds no checkpoint; train there first, or name another')
        return _read_step(max(steps, key=lambda p: int(p.name)))
    if (path / 'state').is_dir():
        return _read_step(path)
    flat, source = read(path)
    if source == OURS:
        made = read_export(path / 'model.safetensors' if path.is_dir() else path).about
        return _of_config(flat, made, made, labels_digest(made['label_names']))
    config = (path if path.is_dir() else path.parent) / 'config.json'
    if source == 'huggingface' and config.is_file():
        return _of_huggingface(flat, config)
    return Weights(flat, source, None, None, {'model.gelu': 'tanh'})


def _of_huggingface(flat: Mapping[str, np.ndarray], file: Path) -> Weights:
    """Weights of transformers' ViT or ViViT, with what their config.json says.

    Raises:
        ValueError: if that is no such config.
    """
    try:
        config = json.loads(file.read_bytes())
        size = _sides(config['image_size'])
        if config['model_type'] == 'vivit':
            size, patch = (config['num_frames'], *size), tuple(config['tubelet_size'])
        else:
            patch = _sides(config['patch_size'])
        grid = tuple(side // part for side, part in zip(size, patch, strict=True))
        about = {
            'model.gelu': HUGGINGFACE_GELUS[config['hidden_act']],
            'heads': config['num_attention_heads'],
        }
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        line = f'{type(error).__name__}: {error}'
        raise ValueError(f'{file} describes no ViT and no ViViT ({line}); get it anew') from error
    return Weights(flat, 'huggingface', grid, None, about)


def _sides(size: int | Sequence[int]) -> tuple[int, ...]:
    """Height and width, of which a square has one number."""
    return (size, size) if isinstance(size, int) else tuple(size)


def _read_step(folder: Path) -> Weights:
    """The variables of a checkpoint, the averaged parameters where it has them."""
    try:
        config = ocp.JsonCheckpointHandler().restore(folder / 'config')
        identity = ocp.JsonCheckpointHandler().restore(folder / 'identity')
        handler = ocp.PyTreeCheckpointHandler()
        tree = handler.metadata(folder / 'state').tree
        params = 'ema' if tree.get('ema') else 'params'
        wanted = {name: tree[name] for name in (params, 'mutable') if tree.get(name)}
        arguments = ocp.args.PyTreeRestore(
            item=jax.tree.map(lambda _: 0, wanted),
            restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted),
            partial_restore=True,
        )
        restored = handler.restore(folder / 'state', args=arguments)
    except Exception as error:  # whatever Orbax and TensorStore make of a damaged file
        line = ' '.join(str(error).split())[:200]
        raise ValueError(f'{folder} cannot be read ({line}); name another checkpoint') from error
    flat = flatten_variables({'params': restored[params], **restored.get('mutable', {})})
    try:
        return _of_config(flat, config, config['dataset'], identity['dataset.labels'])
    except KeyError as error:
        raise ValueError(
            f'{folder} is of an older version, without {error}; name another checkpoint'
        ) from error


def _of_config(
    flat: Mapping[str, np.ndarray], config: Mapping[str, Any], data: Mapping[str, Any], labels: str
) -> Weights:
    """Weights of ours, with the settings of their model, clips and data."""
    clip = config['clip']
    size = (*([clip['frames']] if clip else []), data['resolution'], data['resolution'])
    about = {f'model.{key}': value for key, value in config['model'].items()}
    about |= {f'dataset.{key}': data[key] for key in ('mean', 'std')}
    grid = build_model(config['model'], 1).position_grid(size)
    return Weights(flat, OURS, grid, labels, about)
