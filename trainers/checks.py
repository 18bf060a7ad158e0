"""Whether model, data and machine go together, seen before the first step."""

import logging

from token_learner.vivit import ViViT
from trainers.construct import UserError
from trainers.evaluators import Evaluators
from trainers.experiment import Experiment
from trainers.metrics import read_one

log = logging.getLogger(__name__)


def check_model(experiment: Experiment) -> None:
    """Traces the model, and says which pixels the patches leave out.

    Raises:
        UserError: if the model does not go with the machine, or with the images or clips: a patch
            that is larger, frames that tubelets do not divide, or a grid of patches that a
            reduction does not divide.
    """
    attention = experiment.model_settings['attention']
    backend = experiment.mesh.devices.flat[0].platform
    if {'cudnn': 'gpu', 'flash': 'tpu'}.get(attention, backend) != backend:
        raise UserError(
            f"config.model.attention={attention!r} does not run on a {backend}; use 'auto', which "
            'takes what does'
        )
    if experiment.clip is None and isinstance(experiment.model, ViViT):
        raise UserError(
            f'config.model.spec: {experiment.model_settings["spec"]} is a model of clips, and '
            f'{experiment.data.dataset.name} has images; use one such as B/16'
        )
    if experiment.clip is not None and not isinstance(experiment.model, ViViT):
        raise UserError(
            f'config.model.spec: {experiment.model_settings["spec"]} is a model of images, and '
            f'{experiment.data.dataset.name} has videos; use one such as ViViT-B/16x2'
        )
    try:
        experiment.model.position_grid(experiment.input_shape[:-1])
        variables = experiment.abstract_variables()
    except ValueError as error:
        raise UserError(f'config.model.spec: {error}') from error
    if experiment.microbatches > 1 and 'batch_stats' in variables:
        raise UserError(
            f'config.microbatches={experiment.microbatches} would change what BatchNorm computes; '
            'use 1'
        )
    size, patch = experiment.data.resolution, experiment.model.patch[-1]
    if rest := size % patch:
        log.warning(
            'patch %dx%d does not divide the image %dx%d: the last %d rows and columns of pixels '
            'are cropped',
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
