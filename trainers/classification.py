"""Accuracy and loss of classification, for one label an example or several."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from datasets.dataset import Dataset
from trainers.batch import Batch, labels_of, pixels_of
from trainers.experiment import Data, Experiment, open_dataset
from trainers.metrics import Metric, Metrics
from trainers.passes import count_seen, each_batch, read_one
from trainers.sharding import check_batch_size, replicated
from trainers.state import TrainState


def compute_logits(experiment: Experiment, state: TrainState, batch: Batch) -> jax.Array:
    """Logits [b, classes] in float32, without dropout; of a clip the mean over its crops."""
    return compute_crop_logits(experiment, state, batch).mean(axis=1)


def compute_crop_logits(experiment: Experiment, state: TrainState, batch: Batch) -> jax.Array:
    """Logits [b, crops, classes] in float32, without dropout; an image is its only crop."""
    pixels = pixels_of(batch)
    images = experiment.preprocess(pixels.reshape(-1, *experiment.eval_input_shape))
    logits: Any = experiment.apply(state.variables, images)
    return logits.astype(jnp.float32).reshape(len(pixels), -1, logits.shape[-1])


def open_evaluated(name: str, data: Data) -> Dataset:
    """Opens a dataset to evaluate on: one with the trained classes; '' is the trained one.

    Raises:
        ValueError: if the classes are others, or only one of the two has videos.
    """
    dataset = open_dataset(name, data.data_dir) if name else data.dataset
    if dataset.label_names != data.dataset.label_names:
        raise ValueError(
            f'{dataset.name} has other classes than {data.dataset.name}; use a dataset with the '
            'same'
        )
    if dataset.videos != data.dataset.videos:
        raise ValueError(f'only one of {dataset.name} and {data.dataset.name} has videos')
    return dataset


class Classification:
    """Top-1 and top-5 accuracy, and the training loss on the dataset that is trained on.

    Where examples have any number of labels, each of them is right, and an example without one is
    not counted: with `imagenet2012_real` this is ReaL accuracy (Beyer et al., arXiv:2006.07159).

    Attributes:
        dataset: that it evaluates on.
        split: of it.
        batch_size: of the global batch.
        prefix: of its metrics' names.
        protocols: of videos, one clip in the middle and of it the middle; none of images.
    """

    def __init__(
        self, *, experiment: Experiment, dataset: str, split: str, batch_size: int
    ) -> None:
        """Builds an evaluator.

        Args:
            experiment: of the model.
            dataset: name of one with the same classes, in the same data_dir; '' is the trained
                one.
            split: to evaluate on.
            batch_size: of the global batch.

        Raises:
            ValueError: if the classes are others.
        """
        check_batch_size(batch_size, experiment.mesh)
        self._experiment = experiment
        self.dataset = open_evaluated(dataset, experiment.data)
        self.split, self.batch_size = split, batch_size
        self._size = len(self.dataset.split(split))
        self.prefix = f'{self.dataset.name}/{split}'
        self.protocols: tuple[str, ...] = ('1x1_center' if self.dataset.videos else '',)
        self._step = jax.jit(self._sums, out_shardings=replicated(experiment.mesh))

    def _sums(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        experiment, mask = self._experiment, batch['mask']
        logits = compute_logits(experiment, state, batch)
        labels = labels_of(batch)
        per_example = dict(zip(('top1', 'top5'), top_hits(logits, labels), strict=True))
        if self.dataset is experiment.data.dataset:
            per_example['loss'] = experiment.loss(logits, batch)
        scored = mask * (labels >= 0).any(axis=-1)
        seen = {'seen': mask.sum(), 'unreadable': batch['unreadable'].sum(), 'n': scored.sum()}
        return seen | {k: jnp.sum(v * scored) for k, v in per_example.items()}

    def __call__(self, state: TrainState, workdir: Path | None = None) -> Metrics:
        """Evaluates; there are no files to write.

        Raises:
            RuntimeError: if the pass did not see every example exactly once.
        """
        del workdir
        experiment = self._experiment
        batches = experiment.eval_batches(self.dataset, self.split, self.batch_size)
        sums = list(each_batch(partial(self._step, state), batches, experiment.mesh))
        total = jax.tree.map(lambda *x: float(sum(x)), *sums)
        n, seen, unreadable = (round(total.pop(key)) for key in ('n', 'seen', 'unreadable'))
        count_seen(self.prefix, seen, unreadable, self._size)
        if not n:
            raise RuntimeError(f'{self.prefix}: no example has a label; use another split')
        (protocol,) = self.protocols
        ending = f'@{protocol}' if protocol else ''
        return {
            f'{self.prefix}/{name}{ending}': Metric(value / n, n) for name, value in total.items()
        }

    def check_data(self) -> None:
        """Reads an example."""
        read_one(self.dataset, self.split)


def top_hits(
    logits: Float[Array, 'b classes'], labels: Array
) -> tuple[Float[Array, 'b'], Float[Array, 'b']]:
    """Whether a label is the likeliest class, and whether one is among the five likeliest.

    Of classes that are equally likely the one with the lower number counts as likelier. Nothing is
    right where a logit is not finite.

    Args:
        logits: [b, classes].
        labels: [b, most labels], -1 for none.
    """
    top = jax.lax.top_k(logits, min(5, logits.shape[-1]))[1]
    hits = (top[:, :, None] == labels[:, None, :]).any(axis=-1).astype(jnp.float32)
    hits *= jnp.isfinite(logits).all(axis=-1, keepdims=True)
    return hits[:, 0], hits.max(axis=-1)
