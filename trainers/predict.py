"""Prediction with the newest checkpoint of a workdir."""

import json
import logging
from pathlib import Path

import jax
import numpy as np

from trainers.checkpoints import restore_trained
from trainers.classification import compute_logits
from trainers.evaluators import Evaluators
from trainers.experiment import Experiment
from trainers.sharding import put_batch, replicated

log = logging.getLogger(__name__)


def predict(experiment: Experiment, evaluators: Evaluators, workdir: Path) -> Path:
    """Writes predictions_SPLIT.jsonl, for the split of the first evaluator.

    A line holds the example's id, its label and the five likeliest classes with their
    probabilities (softmax of the logits).

    Returns:
        The file.
    """
    state = restore_trained(workdir, experiment)
    first = evaluators.first
    names = experiment.data.dataset.label_names

    step = jax.jit(
        lambda state, batch: jax.nn.softmax(compute_logits(experiment, state, batch)),
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
                    'label': names[batch['label'][i]],
                    'predicted': {names[k]: float(scores[i, k]) for k in best},
                }
                file.write(json.dumps(line) + '\n')
    log.info('predictions: %s', path)
    return path
