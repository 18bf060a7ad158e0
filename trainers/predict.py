"""Prediction: of a workdir for its split, and of exported weights for files of images."""

import json
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import tee
from pathlib import Path

import jax
import numpy as np

from datasets.dataset import Unreadable
from datasets.pipeline import Batch
from trainers.checkpoints import restore_trained
from trainers.classification import compute_logits
from trainers.construct import UserError
from trainers.evaluators import Evaluators
from trainers.experiment import Experiment
from trainers.export import predictor, read_export
from trainers.loss import PROBABILITIES
from trainers.passes import each_batch
from trainers.sharding import replicated
from trainers.workdir import finite, writing

log = logging.getLogger(__name__)


def predict(experiment: Experiment, evaluators: Evaluators, workdir: Path) -> Path:
    """Writes predictions_SPLIT.jsonl, for the split of the first evaluator.

    A line holds the example's id, its labels and the five likeliest classes with their
    probabilities.

    Returns:
        The file, which is there whole or not at all.

    Raises:
        UserError: if there is no checkpoint.
        OSError: if more examples are unreadable than `config.reading` allows.
    """
    state = restore_trained(workdir, experiment)
    first = evaluators.first
    names = experiment.data.dataset.label_names

    probabilities = PROBABILITIES[experiment.output_activation]
    step = jax.jit(
        lambda state, batch: probabilities(compute_logits(experiment, state, batch)),
        out_shardings=replicated(experiment.mesh),
    )
    path = workdir / f'predictions_{first.split}.jsonl'
    read = experiment.eval_batches(first.dataset, first.split, first.batch_size)
    batches, sent = tee(read)  # the device is ahead
    found = each_batch(partial(step, state), sent, experiment.mesh)
    with writing(path) as file:
        for batch, scores in zip(batches, found, strict=True):
            for i in np.flatnonzero(batch['mask']):
                line = {
                    'id': str(batch['id'][i]),
                    'labels': label_names(batch, int(i), names),
                    'predicted': likeliest(scores[i], names),
                }
                file.write(json.dumps(finite(line)) + '\n')
    log.info('predictions: %s', path)
    return path


def label_names(batch: Batch, row: int, names: Sequence[str]) -> list[str]:
    """The labels of an example of a batch."""
    labels = batch['labels'][row] if 'labels' in batch else [batch['label'][row]]
    return [names[label] for label in labels if label >= 0]


def likeliest(probabilities: np.ndarray, names: Sequence[str], count: int = 5) -> dict[str, float]:
    """The likeliest classes of an example, the first the likeliest, with their probabilities.

    Of classes that are equally likely the one with the lower number comes first.

    Args:
        probabilities: [classes].
        names: of the classes.
        count: of those that are named.
    """
    best = np.argsort(-probabilities, kind='stable')[:count]
    return {names[k]: float(probabilities[k]) for k in best}


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
    exported = read_export(weights)
    about = exported.about
    if about['clip']:
        raise UserError(f'{weights} is of a model of videos; predict with --workdir and a config')
    geometry, logits = exported.geometry, jax.jit(predictor(exported))
    for path in images:
        try:
            pixels = geometry(path.read_bytes(), (0,))
        except (OSError, Unreadable) as error:
            raise UserError(f'{path} cannot be read: {error}; name a file of an image') from error
        pixels = to_channels(pixels, about['channels'])
        probabilities = PROBABILITIES[about['loss']](logits(exported.variables, pixels[None])[0])
        yield path, likeliest(np.asarray(probabilities), about['label_names'], count)


def to_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Colours as grey where a model has one channel: [..., 3] to [..., channels] uint8."""
    if channels == 1 and pixels.shape[-1] == 3:
        return pixels.mean(axis=-1, keepdims=True).round().astype(np.uint8)
    return pixels
