"""Metrics to TensorBoard and to JSON lines, and the window that they are summed over."""

import json
import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from clu import metric_writers

from trainers.processes import is_first
from trainers.step import Sums
from trainers.workdir import read_metrics, writing

log = logging.getLogger(__name__)


class JsonLinesWriter(metric_writers.MetricWriter):
    """Scalars as one JSON object a line: {"step": 100, "train/loss": 0.5}; not finite is null.

    Lines of later steps than `start_step`, left by a run that was stopped after its last
    checkpoint, are cut off: they will be written again. Lines that find no room on the disk are
    kept for the next time.
    """

    def __init__(self, workdir: Path, start_step: int) -> None:
        kept = [line for line in read_metrics(workdir) if line['step'] <= start_step]
        self._path = workdir / 'metrics.jsonl'
        with writing(self._path) as file:
            file.writelines(json.dumps(line) + '\n' for line in kept)
        self._pending: list[str] = []

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        values = {k: float(v) for k, v in scalars.items()}
        line = {'step': step} | {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._pending.append(json.dumps(line) + '\n')
        self.flush()  # to be read while the run goes on

    def flush(self) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open('a') as file:
                file.writelines(self._pending)
        except OSError:
            os.truncate(self._path, size)
            raise
        self._pending = []

    close = flush

    def _ignore(self, *args: Any, **kwargs: Any) -> None:
        """JSON lines hold scalars only."""

    write_summaries = write_images = write_videos = write_audios = _ignore
    write_texts = write_histograms = write_pointcloud = write_hparams = _ignore


def was_logged(workdir: Path, step: int, wanted: Callable[[str], bool]) -> bool:
    """Whether metrics.jsonl has, at a step, a value whose name is wanted."""
    return any(line['step'] == step and any(map(wanted, line)) for line in read_metrics(workdir))


class _Lenient:
    """A writer whose errors, such as of a full disk, are told of once and do not end the run."""

    def __init__(self, writer: metric_writers.MetricWriter) -> None:
        self._writer, self._told = writer, False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._writer, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except Exception as error:  # of TensorFlow too, which has its own
                if not self._told:
                    log.error('metrics cannot be written: %s; the run goes on', error)
                self._told = True

        return call


def make_writer(workdir: Path, start_step: int) -> metric_writers.MetricWriter:
    """TensorBoard and metrics.jsonl; nothing on processes other than the first."""
    if not is_first():
        return metric_writers.MultiWriter([])
    return metric_writers.MultiWriter(
        [
            _Lenient(metric_writers.SummaryWriter(str(workdir / 'tensorboard'))),
            _Lenient(JsonLinesWriter(workdir, start_step)),
        ]
    )


class Window:
    """Sums of the steps since the last log, fetched only when they are logged."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._sums: list[tuple[int, Sums]] = []
        self._seen = 0  # of them looked at by `skipped`
        self._waited_s = 0.0
        self._start: float | None = None
        self._speeds: list[float] = []

    def add(self, step: int, sums: Sums, waited_s: float) -> None:
        """Keeps the sums of a step, on the device, and the time for which it had no data."""
        self._sums.append((step, sums))
        self._waited_s += waited_s

    def skipped(self) -> list[int]:
        """Steps without an update that were not told of before; waits for the device."""
        new = self._sums[self._seen :]
        self._seen = len(self._sums)
        flags = jax.device_get([sums['skipped'] for _, sums in new])
        return [step for (step, _), flag in zip(new, flags, strict=True) if flag]

    def fetch(self) -> dict[str, float]:
        """Means over the window, and its speed; waits for the device.

        Means are over the examples of the steps with an update; without any there are none. `n` is
        the number of these examples, and `unreadable` of those that could not be read.
        """
        sums = jax.device_get([sums for _, sums in self._sums])
        total = {name: float(sum(s[name] for s in sums)) for name in sums[0]}
        n, skipped = total.pop('n'), total.pop('skipped')
        now = time.perf_counter()
        scalars = {f'train/{name}': value / n for name, value in total.items() if n}
        unreadable = (len(sums) - skipped) * self._batch_size - n
        scalars |= {'train/n': n, 'train/unreadable': unreadable, 'train/skipped_steps': skipped}
        scalars['train/data_wait_ms'] = 1000 * self._waited_s / len(sums)
        if self._start is not None:
            self._speeds.append(len(sums) * self._batch_size / (now - self._start))
            scalars['train/examples_per_s'] = self._speeds[-1]
        self._sums, self._seen, self._waited_s, self._start = [], 0, 0.0, now
        return scalars

    def pause(self) -> None:
        """Leaves what comes before the next `fetch` out of the speed: it did other work."""
        self._start = None

    @property
    def examples_per_s(self) -> float | None:
        """Median over the windows that only trained; None before the first."""
        return statistics.median(self._speeds) if self._speeds else None
