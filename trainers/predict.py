"""Prediction: of a workdir for its split, and of exported weights for files of images."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from datasets.dataset import Unreadable
from datasets.geometry import GEOMETRIES
from datasets.pipeline import Batch
from token_learner.build import build_model
from trainers.checkpoints import restore_trained
from trainers.classification import compute_logits
from trainers.construct import UserError, construct_named
from trainers.evaluators import Evaluators
from trainers.experiment import Experiment
from trainers.export import predictor, read_export
from trainers.loss import PROBABILITIES
from trainers.sharding import put_batch, replicated

log = logging.getLogger(__name__)


def predict(experiment: Experiment, evaluators: Evaluators, workdir: Path) -> Path:
    """Writes predictions_SPLIT.jsonl, for the split of the first evaluator.

    A line holds the example's id, its labels and the five likeliest classes with their
    probabilities.

    Returns:
        The file.
    """
    state = restore_trained(workdir, experiment)
    first = evaluators.first
    names = experiment.data.dataset.label_names

    probabilities = PROBABILITIES[experiment.probabilities]
    step = jax.jit(
        lambda state, batch: probabilities(compute_logits(experiment, state, batch)),
        out_shardings=replicated(experiment.mesh),
    )
    path = workdir / f'predictions_{first.split}.jsonl'
    with path.open('w') as file:
        for batch in experiment.eval_batches(first.dataset, first.split, first.batch_size):
            scores = np.asarray(step(state, put_batch(batch, experiment.mesh)))
            for i in np.flatnonzero(batch['mask']):
                best = np.argsort(-scores[i], kind='stable')[:5]
                line = {
                    'id': str(batch['id'][i]),
                    'labels': label_names(batch, int(i), names),
                    'predicted': {names[k]: float(scores[i, k]) for k in best},
                }
                file.write(json.dumps(line) + '\n')
    log.info('predictions: %s', path)
    return path


def label_names(batch: Batch, row: int, names: Sequence[str]) -> list[str]:
    """The labels of an example of a batch."""
    labels = batch['labels'][row] if 'labels' in batch else [batch['label'][row]]
    return [names[label] for label in labels if label >= 0]


def predict_files(
    weights: Path, images: Sequence[Path], count: int = 5
) -> Iterator[tuple[Path, dict[str, float]]]:
    """Yields the likeliest classes of each image, with their probabilities.

    Args:
        weights: a model.safetensors of `--mode=export`.
        images: files of any size.
        count: classes an image.

    Raises:
        UserError: if a file cannot be read, or the model is of videos.
    """
    variables, about = read_export(weights)
    names = about['label_names']
    if about['clip']:
        raise UserError(f'{weights} is of a model of videos; predict with --workdir and a config')
    geometry = construct_named(
        GEOMETRIES, about['eval_geometry'], 'eval_geometry', size=about['resolution']
    )
    model = build_model(about['model'], len(names))
    logits = jax.jit(predictor(model, about))
    for path in images:
        try:
            pixels = geometry(path.read_bytes(), (0,))
        except (OSError, Unreadable) as error:
            raise UserError(f'{path} cannot be read: {error}; name a file of an image') from error
        pixels = to_channels(pixels, about['channels'])
        scores = np.asarray(PROBABILITIES[about['loss']](logits(variables, pixels[None])[0]))
        best = np.argsort(-scores, kind='stable')[:count]
        yield path, {names[k]: float(scores[k]) for k in best}


def to_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Colours as grey where a model has one channel: [..., 3] to [..., channels] uint8."""
    if channels == 1 and pixels.shape[-1] == 3:
        return pixels.mean(axis=-1, keepdims=True).round().astype(np.uint8)
    return pixels
