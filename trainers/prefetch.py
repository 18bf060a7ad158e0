"""Batches on the devices, read while they compute."""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from datasets.pipeline import Batch
from trainers.batch import Batch as DeviceBatch
from trainers.sharding import put_batch
from trainers.step import Sums

_AHEAD = 4  # steps that are queued on the devices


class Prefetch:
    """Reads the batch of the next step behind a step that is running.

    Attributes:
        waited_s: seconds for which the devices may have had nothing to do because the last batch
            was not there yet.
    """

    def __init__(self, batches: Iterator[Batch], mesh: Mesh) -> None:
        self._batches, self._mesh = batches, mesh
        self._running: deque[jax.Array] = deque()
        self.waited_s = 0.0

    def next(self, running: Sums | None = None) -> DeviceBatch | None:
        """The next batch, None after the last one.

        Args:
            running: results of the step that was started last. It is not waited for, but the one
                `_AHEAD` steps before it is: queued batches take memory on the devices, and on
                SIGTERM queued steps are computed before anything can be saved.
        """
        last: Any = None if running is None else running['n']
        if last is not None:
            self._running.append(last)
        if len(self._running) > _AHEAD:
            self._running.popleft().block_until_ready()
        start = time.perf_counter()
        batch = next(self._batches, None)
        idle = last is None or last.is_ready()
        self.waited_s = time.perf_counter() - start if idle else 0.0
        return None if batch is None else put_batch(batch, self._mesh)
