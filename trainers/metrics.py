"""What evaluators measure, and what the trainer knows of them."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from datasets.dataset import Dataset, Unreadable
from trainers.metric_names import count_name
from trainers.sharding import put_batch
from trainers.state import TrainState

log = logging.getLogger(__name__)


class Metric(NamedTuple):
    """A value and the number of examples that it was computed on."""

    value: float
    n: int


Metrics = dict[str, Metric]


class Evaluator(Protocol):
    """What the trainer knows of an evaluator.

    Its metrics are called PREFIX/..., and where it has protocols PREFIX/...@PROTOCOL, such as
    kinetics400/val/top1@4x3_logits; see `trainers.metric_names`.

    Attributes:
        prefix: of its metrics' names.
        protocols: that they end with, such as '4x3' and '4x3_logits'; ('',) where they have none.
    """

    prefix: str
    protocols: tuple[str, ...]

    def __call__(self, state: TrainState, workdir: Path | None = None) -> Metrics:
        """Evaluates.

        Args:
            state: of the model.
            workdir: where files of an evaluator that has some are written; None writes none.
        """

    def check_data(self) -> None:
        """Reads an example of each split, so that one that is missing is told of at once."""


def count_names(metrics: Metrics) -> dict[str, int]:
    """The numbers of examples of metrics, by their names."""
    return {count_name(name): metric.n for name, metric in metrics.items()}


def count_seen(name: str, seen: int, unreadable: int, size: int) -> None:
    """Checks that a pass saw every example once.

    Raises:
        RuntimeError: if it did not.
    """
    if seen + unreadable != size:
        raise RuntimeError(f'{name}: saw {seen} and {unreadable} unreadable of {size} examples')
    if unreadable:
        log.warning('%s: %d of %d examples could not be read', name, unreadable, size)


def each_batch(
    step: Callable[[Any], Any], batches: Iterable[dict[str, np.ndarray]], mesh: Mesh
) -> Iterator[Any]:
    """Yields what a jitted function makes of each batch, on the host.

    The device is two batches ahead: no more of them lie in its memory.
    """
    pending: deque[Any] = deque()
    for batch in batches:
        pending.append(step(put_batch(batch, mesh)))
        if len(pending) > 2:
            yield jax.device_get(pending.popleft())
    yield from map(jax.device_get, pending)


def read_one(dataset: Dataset, split: str) -> None:
    """Reads an example.

    Raises:
        OSError: if the data are not there.
    """
    source = dataset.split(split)
    with suppress(Unreadable):  # it is there
        source.read(0, [0]) if dataset.videos else source[0]
