"""Batches through Grain, in an order that is a pure function of (seed, step).

The iterator has no state to store: batch k of a run follows from the seed and k, for any
number of worker processes. Every process takes each P-th example of one global order, so
that the global batches are the same sets for any number of shares P.
"""

import functools
import logging
import signal
import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from grain.experimental import index_shuffle

from datasets.dataset import Unreadable
from datasets.examples import Examples, Sample

log = logging.getLogger(__name__)

Batch = dict[str, np.ndarray]

# Of a share of the data that cannot be read, this many examples at least were looked at.
_JUDGED_FROM = 1000

_ORDER, _GEOMETRY = 0, 1  # streams of random numbers of one seed


@dataclass(frozen=True)
class Reading:
    """How a process reads its share of the data.

    Attributes:
        workers: processes; 0 reads in this one.
        threads: that read at the same time, each a batch; 0 reads when a batch is asked for, which
            is best for small images in memory.
        prefetch: batches ready in advance; at least one a thread is in work or ready.
        max_unreadable: share of the examples that may be unreadable; more end the run.
        share: which part of each global batch this process reads.
        shares: P, how many there are.
    """

    workers: int = 0
    threads: int = 2
    prefetch: int = 4
    max_unreadable: float = 0.001
    share: int = 0
    shares: int = 1

    def __post_init__(self) -> None:
        for name in ('workers', 'threads', 'prefetch'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name}={getattr(self, name)} is negative; use 0 or more')
        if not 0 <= self.max_unreadable <= 1:
            raise ValueError(f'max_unreadable={self.max_unreadable} is no share; use 0 to 1')

    def check(self, batch_size: int) -> None:
        """Raises ValueError if the shares do not divide a global batch."""
        if batch_size % self.shares:
            raise ValueError(
                f'batch_size={batch_size} is not divisible by the {self.shares} shares of the '
                'processes; use a multiple'
            )


class _Batches:
    """Random access to this process's share of each global batch.

    To Grain a batch is one element: its own nodes for order, transform and generator cost more
    time an example than a small image does.
    """

    def __init__(self, examples: Examples, batch_size: int, reading: Reading, seed: int) -> None:
        reading.check(batch_size)
        self._examples, self._seed = examples, seed
        self._batch_size, self._reading = batch_size, reading

    def __getitem__(self, number: int) -> Batch:
        examples, mine = self._examples, self._places(number)
        indices, mask = self._order(mine)
        pixels = np.empty((len(mine), *examples.shape), np.uint8)
        triples = zip(indices.tolist(), mine.tolist(), pixels, strict=True)
        rows = [self._example(index, place, out) for index, place, out in triples]
        ids, errors, labels = map(list, zip(*rows, strict=True))
        unreadable = mask * np.array([bool(error) for error in errors], np.float32)
        return {
            'id': np.array(ids),
            'error': np.array(errors),
            examples.pixels: pixels,
            'label' if examples.max_labels is None else 'labels': np.array(labels, np.int32),
            'place': np.array(mine - number * self._batch_size, np.int32),
            'mask': mask - unreadable,
            'unreadable': unreadable,
            **{key: values[indices] for key, values in examples.numbers.items()},
        }

    def ids(self, number: int) -> list[str]:
        """The ids of a batch, whose pixels are not drawn."""
        places = self._places(number)
        indices, _ = self._order(places)
        return [self._id(*pair) for pair in zip(indices.tolist(), places.tolist(), strict=True)]

    def _places(self, number: int) -> np.ndarray:
        """Which places of all batches in a row this process has of a batch, [b]."""
        first = number * self._batch_size
        share, shares = self._reading.share, self._reading.shares
        return np.arange(first, first + self._batch_size)[share::shares]

    def _sample(self, index: int, place: int) -> Sample:
        return self._examples.sample(index, (self._seed, _GEOMETRY, place))

    def _id(self, index: int, place: int) -> str:
        try:
            return self._sample(index, place).id
        except Unreadable:
            return self._examples.name(index)

    def _example(self, index: int, place: int, out: np.ndarray) -> tuple[str, str, Any]:
        """Id, error and labels; fills in the pixels. Of one that cannot be read they are blank."""
        name = self._examples.name(index)
        try:
            sample = self._sample(index, place)
            name = sample.id
            sample.draw(out)
            return name, '', self._filled(sample.label)
        except Unreadable as error:
            out[...] = 0
            blank = -1 if self._examples.max_labels is None else []
            return name, str(error), self._filled(blank)

    def _filled(self, labels: Any) -> Any:
        """A label as it is; a list of them filled up with -1."""
        most = self._examples.max_labels
        if most is None:
            return labels
        if len(labels) > most:
            raise Unreadable(f'{len(labels)} labels are more than config.dataset.max_labels={most}')
        return [*labels, *[-1] * (most - len(labels))]

    def _order(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Examples [b] at these places of all batches in a row, and their masks [b]."""
        raise NotImplementedError


class _Shuffled(_Batches):
    """Every example once an epoch, for ever."""

    def __len__(self) -> int:
        return sys.maxsize // self._batch_size

    def _order(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = len(self._examples)
        epochs, indices = np.divmod(places, size)
        for epoch in range(epochs[0], epochs[-1] + 1):
            part = epochs == epoch
            indices[part] = shuffled(indices[part], size, (self._seed, _ORDER, epoch))
        return indices, np.ones(len(places), np.float32)


class _Once(_Batches):
    """Every example once, in order; then copies of the last one with mask 0."""

    def __len__(self) -> int:
        return -(-len(self._examples) // self._batch_size)

    def _order(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        last = len(self._examples) - 1
        return np.minimum(places, last), (places <= last).astype(np.float32)


def shuffled(indices: np.ndarray, size: int, seed: tuple[int, ...]) -> np.ndarray:
    """Which of `size` examples are at these places of the order that the seed gives.

    The order of a small set is held in memory, that of a large one computed place by place. (For
    a small one Grain's function would be slow: it shuffles at least 2**16 places, and tries again
    until it meets one below the size.)
    """
    if size < 2**16:
        return _permutation(size, seed)[indices]
    (number,) = np.random.SeedSequence(seed).generate_state(1).tolist()
    return np.array([index_shuffle(i, size - 1, number, 4) for i in indices.tolist()])


@functools.lru_cache(4)
def _permutation(size: int, seed: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).permutation(size)


def train_batches(
    examples: Examples,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    reading: Reading = Reading(),
) -> Generator[Batch, None, None]:
    """Yields batches for ever: shuffled anew in each epoch, none left out.

    Args:
        examples: of a split.
        batch_size: of the global batch; this process yields its share.
        seed: of the order and of what is random in an example.
        start_step: number of global batches to leave out.
        reading: workers and this process's place among the processes.

    Yields:
        Batches: image [b, h, w, channels] or video [b, t, h, w, channels] uint8, label
        [b] or labels [b, most labels] int32, place [b] int32 in the global batch, mask [b],
        unreadable [b] (1 where an example should be and cannot be read; its mask is 0), id [b]
        and error [b], why; and `examples.numbers`.

    Raises:
        OSError: if more examples are unreadable than may be.
    """
    batches = _Shuffled(examples, batch_size, reading, seed)
    yield from _counted(_read(batches, start_step, reading), reading)


def train_ids(examples: Examples, *, batch_size: int, seed: int, step: int) -> list[str]:
    """The ids of the global batch that `train_batches` yields after `step` others.

    Nothing is decoded for them but what `Examples.sample` itself decodes.
    """
    return _Shuffled(examples, batch_size, Reading(), seed).ids(step)


def eval_batches(
    examples: Examples,
    *,
    batch_size: int,
    reading: Reading = Reading(),
) -> Generator[Batch, None, None]:
    """Yields every example exactly once, in order; the last batch is filled up with mask 0.

    Otherwise as `train_batches`.
    """
    batches = _Once(examples, batch_size, reading, seed=0)
    yield from _counted(_read(batches, 0, reading), reading)


def _counted(
    batches: Generator[Batch, None, None], reading: Reading
) -> Generator[Batch, None, None]:
    """The same batches; tells of every example that could not be read, and ends at too many.

    Of clips that are evaluated their videos count.
    """
    seen = unreadable = 0
    videos: set[int] = set()
    bad_videos: set[int] = set()
    with closing(batches):
        for batch in batches:
            bad = np.flatnonzero(batch['unreadable'])
            for i in bad:
                log.warning('cannot be read, left out: %s: %s', batch['id'][i], batch['error'][i])
            if 'video_number' in batch:
                videos.update(batch['video_number'].tolist())
                bad_videos.update(batch['video_number'][bad].tolist())
                seen, unreadable = len(videos), len(bad_videos)
            else:
                seen += len(batch['mask'])
                unreadable += len(bad)
            if unreadable > reading.max_unreadable * max(seen, _JUDGED_FROM):
                raise OSError(
                    f'{unreadable} of {seen} examples could not be read, the last one '
                    f'{batch["id"][i]} ({batch["error"][i]}); mend the data, or allow more with '
                    '--config.reading.max_unreadable'
                )
            yield batch


def _leave_signals_to_the_parent(index: int, count: int) -> None:
    """Ctrl-C and schedulers signal whole groups; the parent still needs batches to stop well."""
    del index, count
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)


def _read(batches: _Batches, start: int, reading: Reading) -> Generator[Batch, None, None]:
    if not reading.threads and not reading.workers:
        yield from (batches[number] for number in range(start, len(batches)))
        return
    # Of more threads than batches in advance, Grain leaves those without work.
    ahead = max(reading.threads, reading.prefetch)
    threads = grain.ReadOptions(reading.threads, ahead)
    iterable = grain.MapDataset.source(batches)[start:].to_iter_dataset(threads)
    if reading.workers:
        options = grain.MultiprocessingOptions(reading.workers)
        iterable = iterable.mp_prefetch(options, worker_init_fn=_leave_signals_to_the_parent)
    with closing(iter(iterable)) as iterator:  # ends the workers
        yield from iterator
