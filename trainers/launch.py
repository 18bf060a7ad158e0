"""From a config and a mode to the work."""

import logging
from pathlib import Path

from ml_collections import ConfigDict

from token_learner.vit import patch_grid
from trainers.construct import UserError
from trainers.evaluate import evaluate
from trainers.evaluators import make_evaluators
from trainers.experiment import Experiment, make_experiment
from trainers.predict import predict
from trainers.processes import several
from trainers.terminal import log_to_terminal
from trainers.workdir import open_workdir

log = logging.getLogger(__name__)


def launch(config: ConfigDict, workdir: str, mode: str, evaluator: str | None) -> None:
    """Does one mode of main.py other than plan.

    Raises:
        UserError: if the input cannot be used.
        Interrupted: if training was stopped by a signal.
    """
    log_to_terminal()
    if several() and mode not in ('train', 'eval'):
        raise UserError(f'--mode={mode} is for one process; start one')
    experiment = make_experiment(config)
    check_model(experiment)
    evaluators = make_evaluators(experiment)
    folder = Path(workdir)
    if mode == 'train':
        from trainers.train import train  # TensorFlow, behind clu's writers, is slow to load

        train(experiment, evaluators, open_workdir(folder))
    elif mode == 'eval':
        evaluate(experiment, evaluators, folder, evaluator)
    elif mode == 'predict':
        predict(experiment, evaluators, folder)
    else:
        from trainers.visualize import visualize  # matplotlib is slow to load

        visualize(experiment, evaluators, folder)


def check_model(experiment: Experiment) -> None:
    """Traces the model, and says which pixels the patches leave out.

    Raises:
        UserError: if the model does not go with the machine, or with the size of the images: a
            patch that is larger, or a grid of patches that a reduction does not divide.
    """
    size, patch = experiment.data.image_shape[:2], experiment.model.patch
    attention = experiment.model_settings['attention']
    backend = experiment.mesh.devices.flat[0].platform
    if {'cudnn': 'gpu', 'flash': 'tpu'}.get(attention, backend) != backend:
        raise UserError(
            f"config.model.attention={attention!r} does not run on a {backend}; use 'auto', which "
            'takes what does'
        )
    try:
        grid = patch_grid(size, patch)
        variables = experiment.abstract_variables()
    except ValueError as error:
        raise UserError(f'config.model.spec: {error}') from error
    if experiment.microbatches > 1 and 'batch_stats' in variables:
        raise UserError(
            f'config.microbatches={experiment.microbatches} would change what BatchNorm computes; '
            'use 1'
        )
    rest = [n - g * p for n, g, p in zip(size, grid, patch, strict=True)]
    if any(rest):
        log.warning(
            'patch %dx%d does not divide the image %dx%d: the last %d rows and %d columns of '
            'pixels are cropped',
            *patch,
            *size,
            *rest,
        )
