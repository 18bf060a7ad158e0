"""The state that training begins with: fresh, or with the weights of another model."""

import dataclasses
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from token_learner.build import RUNTIME_SETTINGS
from token_learner.pretrained import Row, adapt, format_report, rename
from token_learner.variables import flatten_variables, unflatten_variables
from token_learner.vit import ViT
from trainers.checkpoints import labels_digest
from trainers.construct import UserError
from trainers.experiment import Experiment
from trainers.state import TrainState, abstract_state, create_state
from trainers.weights import Weights, read_weights
from trainers.workdir import write_json

log = logging.getLogger(__name__)


def begin(experiment: Experiment, workdir: Path) -> TrainState:
    """The state before the first step, with the weights of `config.init_from`.

    Running statistics, such as BatchNorm's, are taken with the parameters.

    What became of each is logged, and written to init_from.json; so is what the weights
    were trained with otherwise than this model computes.

    Raises:
        UserError: if the weights cannot be read, or do not fit but for what the config names.
    """
    source = experiment.init_from
    if not source.path:
        log.info('new weights; config.init_from.path is empty')
        return create_state(experiment)
    weights, ours = _read(experiment)
    target = _variables(abstract_state(experiment))
    try:
        adapted, report = adapt(
            ours,
            target,
            new=source.new,
            unused=source.unused,
            source_grid=weights.grid,
            target_grid=experiment.model.position_grid(experiment.input_shape[:-1]),
            inflate=source.inflate,
            resize_time=source.resize_time,
        )
    except ValueError as error:
        raise UserError(f'config.init_from: {error}') from error
    ours_labels = labels_digest(experiment.data.dataset.label_names)
    if 'head/kernel' in _taken(report) and weights.labels not in (None, ours_labels):
        raise UserError(
            f'config.init_from: the head of {source.path} is of other classes than those of '
            f"{experiment.data.dataset.name}; put '^head/' into config.init_from.new"
        )
    log.info('weights of %s: %s', source.path, format_report(report))
    differences = compare(weights.about, experiment, report)
    for key, (theirs, here) in differences.items():
        log.warning('the weights were trained with config.%s=%r, here it is %r', key, theirs, here)
    write_json(
        workdir / 'init_from.json',
        {
            'path': source.path,
            'parameters': [row._asdict() for row in report],
            'trained_otherwise': differences,
        },
    )
    state = create_state(experiment)
    fresh = _variables(state)
    made = unflatten_variables({path: _place(adapted[path], x) for path, x in fresh.items()})
    params = made.pop('params')
    ema = jax.tree.map(jnp.copy, params) if experiment.ema else None
    return dataclasses.replace(state, params=params, ema=ema, mutable=made)


def _read(experiment: Experiment) -> tuple[Weights, dict[str, np.ndarray]]:
    """The weights of `config.init_from`, and all of them by our names where they have one."""
    path, model = experiment.init_from.path, experiment.model
    try:
        weights = read_weights(Path(path).expanduser().absolute())
        if isinstance(model, ViT) and weights.about.get('heads', model.heads) != model.heads:
            raise ValueError(
                f'{path} has {weights.about["heads"]} heads, the model {model.heads}; use a spec '
                'of its size'
            )
        ours, unknown = rename(weights.flat, source=weights.source, model=model)
    except ValueError as error:
        raise UserError(f'config.init_from: {error}') from error
    return weights, ours | {path: weights.flat[path] for path in unknown}


# Expression of the paths of parts of a model, and the settings that are of no other.
_SETTINGS_OF = {
    '/tokenizer_|/tl/': {'tokenizer', 'version', 'pooling', 'activation'},
    '/fuser_|/tl/': {'fuser', 'mix_scope', 'beta', 'fuser_norm', 'mix_init'},
    '/tl/': {'composition', 'num_tokens'},
    '/(tl|temporal|joint)/': {'transformer'},
    '^temporal_': {'temporal_layers'},
}


def compare(
    about: Mapping[str, Any], experiment: Experiment, report: Collection[Row]
) -> dict[str, tuple[Any, Any]]:
    """Settings that change what the weights compute: key -> theirs and ours, where they differ.

    Those of a tokenizer, fuser or temporal encoder count only if its weights are taken, and the
    scope of a mixing not if it was inflated to the clip.
    """
    ours = {
        **{f'model.{key}': value for key, value in experiment.model_settings.items()},
        'dataset.mean': list(experiment.data.mean),
        'dataset.std': list(experiment.data.std),
    }
    leave = {'spec', 'head', 'representation', *RUNTIME_SETTINGS}
    taken = _taken(report)
    for part, settings in _SETTINGS_OF.items():
        if not any(re.search(part, path) for path in taken):
            leave |= settings
    if any('/mix/' in row.path and row.action == 'inflated' for row in report):
        leave |= {'mix_scope'}
    return {
        key: (value, ours[key])
        for key, value in about.items()
        if key in ours and key.removeprefix('model.') not in leave and value != ours[key]
    }


def _taken(report: Collection[Row]) -> set[str]:
    """The parameters that do not begin anew."""
    return {row.path for row in report if row.action in ('loaded', 'resized', 'inflated')}


def _variables(state: TrainState) -> dict[str, Any]:
    """Those that are trained or counted, path -> array or shape."""
    return flatten_variables({'params': state.params, **state.mutable})


def _place(array: Any, like: jax.Array) -> jax.Array:
    """An array as another one lies on the devices; where there is none, that other one."""
    if not isinstance(array, np.ndarray):
        return like
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: array[index])
