"""Whether model, data and machine go together, seen before the first step."""

import logging
from typing import Any

import jax
import jax.numpy as jnp
from flax.errors import FlaxError

from token_learner.layers import without_scan
from token_learner.variables import flatten_variables
from trainers.construct import UserError
from trainers.evaluators import Evaluators
from trainers.experiment import Experiment
from trainers.passes import read_one

log = logging.getLogger(__name__)

# Settings of config.model that do not run everywhere, and the backends on which they do.
_BACKENDS = {
    ('attention', 'cudnn'): ('gpu',),
    ('attention', 'flash'): ('tpu',),
    ('vector_attention', 'pallas'): ('gpu', 'tpu'),
}


def check_model(experiment: Experiment) -> None:
    """Traces the model, and says which pixels the patches leave out.

    Raises:
        UserError: if the model does not go with the machine, or with the images or clips: a patch
            that is larger, frames that tubelets do not divide, a grid of patches that a reduction
            does not divide, or layers that do not fit the resolution of evaluation; or if a batch
            whose statistics it needs is cut into microbatches.
    """
    _check_backend(experiment)
    _check_kind(experiment)
    try:
        grid = experiment.model.position_grid(experiment.input_shape[:-1])
        variables = experiment.abstract_variables
    except ValueError as error:
        raise UserError(f'config.model.spec: {error}') from error
    try:
        flatten_variables(variables)
    except ValueError as error:
        raise UserError(f'config.model: {error}') from error
    _check_evaluation(experiment, variables)
    if (
        'batch_stats' in variables
        and experiment.microbatches > 1
        and experiment.batch_statistics == 'batch'
    ):
        raise UserError(
            f'config.microbatches={experiment.microbatches} would change what BatchNorm computes; '
            "use 1, or config.batch_statistics='microbatch'"
        )
    if grid is not None:
        _tell_cropped(experiment)


def _check_backend(experiment: Experiment) -> None:
    backend = experiment.mesh.devices.flat[0].platform
    for key, value in experiment.model_settings.items():
        if backend not in _BACKENDS.get((key, value), (backend,)):
            raise UserError(
                f"config.model.{key}={value!r} does not run on a {backend}; use 'auto', which "
                'takes what does'
            )


def _check_kind(experiment: Experiment) -> None:
    spec, data = experiment.model_settings['spec'], experiment.data.dataset
    if data.videos and not experiment.model.of_clips:
        raise UserError(
            f'config.model.spec: {spec} is a model of images, and {data.name} has videos; use one '
            'such as ViViT-B/16x2'
        )
    if experiment.model.of_clips and not data.videos:
        raise UserError(
            f'config.model.spec: {spec} is a model of clips, and {data.name} has images; use one '
            'such as B/16'
        )


def _check_evaluation(experiment: Experiment, variables: Any) -> None:
    """Traces the model at the resolution of evaluation."""
    data, model = experiment.data, without_scan(experiment.model)
    if data.eval_resolution == data.resolution:
        return
    pixels = jax.ShapeDtypeStruct((1, *experiment.eval_input_shape), jnp.float32)
    try:
        jax.eval_shape(model.apply, variables, pixels)
    except ValueError as error:
        raise UserError(
            f'config.dataset.eval_resolution={data.eval_resolution}: {error}'
        ) from error
    except FlaxError as error:
        raise UserError(
            f'config.dataset.eval_resolution={data.eval_resolution}: '
            f'{experiment.model_settings["spec"]} has layers for {data.resolution} pixels alone; '
            'train and evaluate at one resolution'
        ) from error


def _tell_cropped(experiment: Experiment) -> None:
    patch = experiment.model.cell[-1]
    for size in sorted({experiment.data.resolution, experiment.data.eval_resolution}):
        if rest := size % patch:
            log.warning(
                'patch %dx%d does not divide the image %dx%d: the last %d rows and columns of '
                'pixels are cropped',
                *(patch, patch, size, size, rest),
            )


def check_data(experiment: Experiment, evaluators: Evaluators) -> None:
    """Reads an example of each split, so that data that are not there are told of at once.

    Raises:
        OSError: if they are not.
    """
    read_one(experiment.data.dataset, experiment.data.split)
    for evaluator in evaluators.due(end=True):
        evaluator.check_data()
