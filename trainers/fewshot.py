"""Few-shot transfer: linear least squares on frozen features, in both published protocols.

`lsr_fixed` is that of google-research/big_vision (evaluators/fewshot_lsr.py): for each of three
seeds k random examples a class, one strength of the ridge. `lsr_rank` is the older one of
google-research/scenic (train_lib/transfer/fewshot_utils.py), of the time of the ViT and
TokenLearner papers: the first k examples a class, and of 30 strengths, for each k, the one with the
best mean rank over the datasets, ranked by accuracy on the test splits. Their figures cannot be
compared.

Features are the model's `pre_logits`: for TokenLearner the mean of the learned tokens after the
last LayerNorm.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from datasets.dataset import Dataset
from datasets.geometry import Resize
from token_learner.checks import check_choice, check_positive
from trainers.batch import Batch
from trainers.experiment import Experiment, open_dataset
from trainers.metrics import Metric, Metrics
from trainers.passes import count_seen, each_batch, read_one
from trainers.sharding import check_batch_size, replicated
from trainers.state import TrainState

PROTOCOLS = ('lsr_fixed', 'lsr_rank')
SEEDS = (0, 1, 2)
FIXED_STRENGTH = (2.0**10,)
STRENGTHS = tuple(2.0**i for i in range(-10, 20))

_BIAS = 100.0  # the constant feature, so large that the ridge hardly holds it
_BESIDE = ('label', 'mask', 'unreadable', 'place')
_EPSILON = 1e-5  # added to the standard deviation of each feature


class Features(NamedTuple):
    """Of a split.

    Attributes:
        x: [n, d] float32.
        labels: [n] int.
    """

    x: np.ndarray
    labels: np.ndarray


class FewShot:
    """Accuracy of few-shot transfer to several datasets, and its mean over them.

    Attributes:
        prefix: of its metrics' names.
        protocols: none, as it is of images.
    """

    protocols: tuple[str, ...] = ('',)

    def __init__(
        self,
        *,
        experiment: Experiment,
        protocol: str,
        datasets: Mapping[str, Sequence[str]],
        data_dir: str,
        shots: Sequence[int],
        share: float,
        batch_size: int,
    ) -> None:
        """Builds an evaluator.

        Args:
            experiment: of the model.
            protocol: 'lsr_fixed' or 'lsr_rank'.
            datasets: name -> split of the shots and split to test on, such as 'train[:1000]'.
            data_dir: where they lie; '' is where the trained dataset does.
            shots: numbers k of examples a class.
            share: of both sides of the squeezed image that is seen; 0.875 is the published
                "resize to 256x256, crop 224".
            batch_size: of the global batch.

        Raises:
            ValueError: if a value is not possible.
        """
        check_choice('protocol', protocol, PROTOCOLS)
        check_batch_size(batch_size, experiment.mesh)
        if not datasets or not shots:
            raise ValueError('datasets and shots need at least one each')
        for k in shots:
            check_positive('shots', k)
        self._experiment, self._batch_size = experiment, batch_size
        self._fixed, self._shots = protocol == 'lsr_fixed', tuple(shots)
        self._geometry = Resize(experiment.data.eval_resolution, share)
        self._splits = dict(datasets)
        folder = data_dir or experiment.data.data_dir
        self._datasets = {name: open_dataset(name, folder) for name in self._splits}
        for name, dataset in self._datasets.items():
            if dataset.videos or experiment.clip is not None:
                raise ValueError('few-shot evaluation is of images; leave it out for videos')
            if dataset.max_labels is not None:
                raise ValueError(f'{name} has several labels an example; use another dataset')
            if len(self._splits[name]) != 2:
                raise ValueError(f'{name} needs two splits, of the shots and to test on')
            for split in self._splits[name]:
                dataset.split(split)
        self.prefix = f'fewshot_{protocol}'
        self._step = jax.jit(self._features, out_shardings=replicated(experiment.mesh))

    def check_data(self) -> None:
        """Reads an example of each split."""
        for name, dataset in self._datasets.items():
            for split in self._splits[name]:
                read_one(dataset, split)

    def __call__(self, state: TrainState, workdir: Path | None = None) -> Metrics:
        """Evaluates; there are no files to write.

        Returns:
            Accuracies DATASET/SPLIT/kshot and their unweighted mean mean/kshot. With `lsr_fixed`
            they are means over the seeds, and ..._seed0 is that of one; with `lsr_rank` l2/kshot
            is the strength.

        Raises:
            RuntimeError: if a pass did not see every example exactly once.
        """
        del workdir
        seeds: Sequence[int | None] = SEEDS if self._fixed else (None,)
        strengths = FIXED_STRENGTH if self._fixed else STRENGTHS
        accuracies: dict[str, np.ndarray] = {}  # [seeds, shots, strengths], by dataset
        counts = {}
        for name, dataset in self._datasets.items():
            shots, test = (self._extract(state, dataset, split) for split in self._splits[name])
            counts[name] = len(test.labels)
            classes = len(dataset.label_names)
            accuracies[name] = np.array(
                [
                    [
                        transfer(choose_shots(shots, k, seed), test, classes, strengths)
                        for k in self._shots
                    ]
                    for seed in seeds
                ]
            )
        return self._metrics(accuracies, counts, strengths)

    def _metrics(
        self,
        accuracies: Mapping[str, np.ndarray],
        counts: Mapping[str, int],
        strengths: Sequence[float],
    ) -> Metrics:
        metrics: Metrics = {}
        for i, k in enumerate(self._shots):
            by_dataset = np.stack([a[:, i] for a in accuracies.values()])  # dataset, seed, strength
            best = choose_strength(by_dataset[:, 0])
            if not self._fixed:
                metrics[f'{self.prefix}/l2/{k}shot'] = Metric(strengths[best], len(counts))
            for name, of_seeds in zip(accuracies, by_dataset[..., best], strict=True):
                path = f'{self.prefix}/{name}/{self._splits[name][1]}/{k}shot'
                metrics[path] = Metric(float(of_seeds.mean()), counts[name])
                for seed, value in zip(SEEDS, of_seeds, strict=False):
                    if self._fixed:
                        metrics[f'{path}_seed{seed}'] = Metric(float(value), counts[name])
            mean = float(by_dataset[..., best].mean())
            metrics[f'{self.prefix}/mean/{k}shot'] = Metric(mean, sum(counts.values()))
        return metrics

    def _features(self, state: TrainState, batch: Batch) -> jax.Array:
        images = self._experiment.preprocess(batch['image'])
        _, mutable = self._experiment.apply(state.variables, images, mutable=['intermediates'])
        (features,) = mutable['intermediates']['pre_logits']
        # Beside the features where each belongs, whether it is an example, and of which class.
        beside = [batch[key].astype(jnp.float32) for key in _BESIDE]
        return jnp.concatenate([features.astype(jnp.float32), jnp.stack(beside, 1)], axis=1)

    def _extract(self, state: TrainState, dataset: Dataset, split: str) -> Features:
        """Features of all examples of a split that can be read, in their order."""
        experiment = self._experiment
        batches = experiment.eval_batches(dataset, split, self._batch_size, self._geometry)
        rows = each_batch(partial(self._step, state), batches, experiment.mesh)
        found = np.concatenate([in_order(row) for row in rows])
        features, beside = np.split(found, [-len(_BESIDE)], axis=1)
        label, mask, unreadable, _ = beside.T
        count_seen(
            f'{dataset.name}/{split}',
            int(mask.sum()),
            int(unreadable.sum()),
            len(dataset.split(split)),
        )
        return Features(features[mask > 0], label[mask > 0].astype(int))


def in_order(rows: np.ndarray) -> np.ndarray:
    """Rows of a batch [b, ...], that end with their place, in the order of the data."""
    return rows[np.argsort(rows[:, -1])]


def choose_shots(features: Features, k: int, seed: int | None) -> Features:
    """Some examples of each class, k or all it has: random ones, or without a seed the first."""
    rng = None if seed is None else np.random.default_rng(seed)
    rows = []
    for label in np.unique(features.labels):
        (own,) = np.nonzero(features.labels == label)
        rows.append((own if rng is None else rng.permutation(own))[:k])
    chosen = np.concatenate(rows)
    return Features(features.x[chosen], features.labels[chosen])


def choose_strength(accuracies: np.ndarray) -> int:
    """Of accuracies [datasets, strengths] the strength with the best mean rank; ties: the first.

    In a dataset, of strengths with the same accuracy the larger ranks higher.
    """
    ranks = np.argsort(np.argsort(accuracies, axis=1, kind='stable'), axis=1, kind='stable')
    return int(ranks.mean(axis=0).argmax())


def transfer(
    shots: Features, test: Features, classes: int, strengths: Sequence[float]
) -> list[float]:
    """Test accuracy of ridge regression onto +-1, for each strength."""
    # In float64, so that features that do not vary become 0, and the others have mean 0.
    mean = shots.x.mean(axis=0, dtype=np.float64)
    std = shots.x.std(axis=0, dtype=np.float64) + _EPSILON
    x, seen = (np.float32((f.x - mean) / std) for f in (shots, test))
    l2s = np.array(strengths, np.float32)
    hits = _hits(x, shots.labels, seen, test.labels, l2s, classes)
    return [int(h) / len(test.labels) for h in np.asarray(hits)]


@partial(jax.jit, static_argnums=5)
def _hits(
    x: Float[Array, 'n d'],
    labels: Array,
    test: Float[Array, 'm d'],
    test_labels: Array,
    strengths: Float[Array, 'l2'],
    classes: int,
) -> Array:
    """Numbers of right answers [l2]."""
    score = ridge(x, 2 * jax.nn.one_hot(labels, classes) - 1, test)
    return jax.lax.map(lambda l2: (score(l2).argmax(axis=-1) == test_labels).sum(), strengths)


def ridge(
    x: Float[Array, 'n d'], targets: Float[Array, 'n k'], test: Float[Array, 'm d']
) -> Callable[[Float[Array, '']], Float[Array, 'm k']]:
    """Scores by ridge regression, W = (X'X + l2 I)^-1 X'Y with a constant feature of 100 in X.

    The other features have mean 0, so that the constant's weight is found apart from theirs. The
    singular values of X serve every l2, and in float32: in X'X the smallest of `STRENGTHS` would
    drown in its rounding.

    Args:
        x: features with mean 0.
        targets: of k classes.
        test: features of what is scored.

    Returns:
        A function from l2 to the scores.
    """
    dot = partial(jnp.matmul, precision='highest')
    u, values, vh = jnp.linalg.svd(x, full_matrices=False)
    mean = targets.mean(axis=0)
    left, right = dot(test, vh.T), dot(u.T, targets - mean)
    rounding = 8 * jnp.finfo(x.dtype).eps * values.max()

    def score(l2: Float[Array, '']) -> Float[Array, 'm k']:
        weights = jnp.where(values > rounding, values / (values**2 + l2), 0)
        constant = _BIAS**2 * len(x) / (_BIAS**2 * len(x) + l2)
        return dot(left * weights, right) + constant * mean

    return score
