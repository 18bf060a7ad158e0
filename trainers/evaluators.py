"""Evaluators by name: one exact pass over a split.

An evaluator is built from the experiment and its settings, and called with a state. It
returns, for each metric, the value and the number of examples that it was computed on.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from trainers.construct import UserError, construct_named
from trainers.experiment import Experiment
from trainers.loss import Batch
from trainers.sharding import check_batch_size, put_batch, replicated
from trainers.state import TrainState


class Metric(NamedTuple):
    """A value and the number of examples that it was computed on."""

    value: float
    n: int


Metrics = dict[str, Metric]


def compute_logits(experiment: Experiment, state: TrainState, batch: Batch) -> jax.Array:
    """Logits [b, classes] in float32, without dropout."""
    images = experiment.preprocess(batch['image'])
    logits: Any = experiment.apply(state.variables, images)
    return logits.astype(jnp.float32)


class Classification:
    """Top-1 and top-5 accuracy and the training loss, for one label an example.

    Attributes:
        split: that it evaluates.
        batch_size: of the global batch.
        prefix: of its metrics' names.
    """

    def __init__(self, *, experiment: Experiment, split: str, batch_size: int) -> None:
        check_batch_size(batch_size, experiment.mesh)
        self._experiment = experiment
        self.split, self.batch_size = split, batch_size
        self._size = len(experiment.data.dataset.split(split))
        self.prefix = f'{experiment.data.dataset.name}/{split}'
        self._step = jax.jit(self._sums, out_shardings=replicated(experiment.mesh))

    def _sums(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        experiment, mask = self._experiment, batch['mask']
        logits = compute_logits(experiment, state, batch)
        top = jax.lax.top_k(logits, min(5, logits.shape[-1]))[1]
        hits = top == batch['label'][:, None]
        per_example = {
            'top1': hits[:, 0],
            'top5': hits.any(axis=-1),
            'loss': experiment.loss(logits, batch),
        }
        return {'n': mask.sum()} | {k: jnp.sum(v * mask) for k, v in per_example.items()}

    def __call__(self, state: TrainState) -> Metrics:
        """Evaluates.

        Raises:
            RuntimeError: if the pass did not see every example exactly once.
        """
        experiment = self._experiment
        batches = experiment.eval_batches(self.split, self.batch_size)
        sums = [self._step(state, put_batch(batch, experiment.mesh)) for batch in batches]
        total = jax.tree.map(lambda *x: float(sum(x)), *jax.device_get(sums))
        n = round(total.pop('n'))
        if n != self._size:
            raise RuntimeError(f'{self.prefix}: saw {n} of {self._size} examples')
        return {f'{self.prefix}/{name}': Metric(value / n, n) for name, value in total.items()}


EVALUATORS = {'classification': Classification}
Evaluators = Mapping[str, Classification]


def make_evaluators(experiment: Experiment) -> Evaluators:
    """The evaluators of `config.evaluators`, by the names given there.

    Raises:
        UserError: if there are none, or one cannot be built.
    """
    if not experiment.evaluators:
        raise UserError('config.evaluators is empty; name at least one')
    evaluators = {
        name: construct_named(
            EVALUATORS, settings, f'config.evaluators.{name}', experiment=experiment
        )
        for name, settings in experiment.evaluators.items()
    }
    if len({e.prefix for e in evaluators.values()}) < len(evaluators):
        raise UserError(
            'two of config.evaluators have metrics of the same name; '
            'keep one, or give them different splits'
        )
    return evaluators
