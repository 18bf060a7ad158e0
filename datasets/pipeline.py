"""Batches through Grain, in an order that is a pure function of (seed, step).

The iterator has no state to store: batch k of a run follows from the seed and k, for any
number of worker processes. Every process takes each P-th example of one global order, so
that the global batches are the same sets for any number of shares P.
"""

import signal
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from datasets.dataset import Source
from datasets.geometry import Geometry

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Reading:
    """How a process reads its share of the data.

    Attributes:
        workers: processes; 0 reads in this one.
        threads: that read at the same time, each a batch.
        prefetch: batches ready in advance.
        share: which part of each global batch this process reads.
        shares: P, how many there are.
    """

    workers: int = 0
    threads: int = 2
    prefetch: int = 4
    share: int = 0
    shares: int = 1

    def __post_init__(self) -> None:
        for name in ('workers', 'threads', 'prefetch'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name}={getattr(self, name)} is negative; use 0 or more')

    def local(self, batch_size: int) -> int:
        """This process's share of a global batch.

        Raises:
            ValueError: if the shares do not divide it.
        """
        if batch_size % self.shares:
            raise ValueError(
                f'batch_size={batch_size} is not divisible by the {self.shares} shares of the '
                'processes; use a multiple'
            )
        return batch_size // self.shares


@dataclass(frozen=True)
class _Transform:
    """Applies the geometry; at random for training."""

    geometry: Geometry

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        image = self.geometry(example['image'], rng)
        return {'mask': np.float32(1), **example, 'image': image}


class _Padded:
    """A source made longer by copies of its last example with mask 0."""

    def __init__(self, source: Source, length: int) -> None:
        self._source, self._length = source, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        last = len(self._source) - 1
        return {'mask': np.float32(index <= last), **self._source[min(index, last)]}


def train_batches(
    source: Source,
    geometry: Geometry,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    reading: Reading = Reading(),
) -> Generator[Batch, None, None]:
    """Yields batches for ever: shuffled anew in each epoch, none left out.

    Args:
        source: examples.
        geometry: from an image and a generator to an image of the model's size.
        batch_size: of the global batch; this process yields its share.
        seed: of the order and of the geometry.
        start_step: number of global batches to leave out.
        reading: workers and this process's place among the processes.

    Yields:
        Batches as in design: image [b, h, w, channels] uint8, label [b] int32, mask [b], id [b].
    """
    data = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    data = data.random_map(_Transform(geometry))
    yield from _read(data, batch_size, start_step, reading)


def eval_batches(
    source: Source, geometry: Geometry, *, batch_size: int, reading: Reading = Reading()
) -> Generator[Batch, None, None]:
    """Yields every example exactly once, in order; the last batch is filled up with mask 0."""
    length = -(-len(source) // batch_size) * batch_size
    data = grain.MapDataset.source(_Padded(source, length)).seed(0)
    data = data.random_map(_Transform(geometry))
    yield from _read(data, batch_size, 0, reading)


def _leave_signals_to_the_parent(index: int, count: int) -> None:
    """Ctrl-C and schedulers signal whole groups; the parent still needs batches to stop well."""
    del index, count
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)


def _read(
    data: grain.MapDataset, batch_size: int, start_step: int, reading: Reading
) -> Generator[Batch, None, None]:
    mine = data[reading.share :: reading.shares]
    batches = mine.batch(reading.local(batch_size), drop_remainder=True)[start_step:]
    threads = grain.ReadOptions(reading.threads, reading.prefetch)
    iterable = batches.to_iter_dataset(threads)
    if reading.workers:
        options = grain.MultiprocessingOptions(reading.workers)
        iterable = iterable.mp_prefetch(options, worker_init_fn=_leave_signals_to_the_parent)
    with closing(iter(iterable)) as iterator:  # ends the workers
        yield from iterator
