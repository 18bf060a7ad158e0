"""Passes over a split without an update: of evaluators and predictions."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from datasets.dataset import Dataset, Unreadable
from trainers.sharding import put_batch

log = logging.getLogger(__name__)


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
