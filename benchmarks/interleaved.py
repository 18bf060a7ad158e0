"""Times several programs in turn on a few cores, so that what else runs there slows all alike."""

import itertools
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL, POLLS = 0.01, 10  # seconds between looks, and how many without work mean that all rest
KINDS = ('clock', 'processor')  # of seconds, as `timed` returns them

Run = Callable[[], Any]


@dataclass
class Task:
    """What several programs do.

    Attributes:
        title: of it.
        unit: what they make, such as 'images'.
        runs: one call of each; ours is 'ours'.
        stages: parts of ours, timed alone.
        calls: of each in a round.
        count: of units in a round.
    """

    title: str
    unit: str
    runs: Mapping[str, Run]
    stages: Mapping[str, Run]
    calls: int
    count: int


def over_batches(stage: Callable[[int], Any], examples: int, batch_size: int) -> Run:
    """A stage for the examples of one batch after the other, by their places in the set."""
    places = itertools.cycle(range(examples))

    def run() -> None:
        for place in itertools.islice(places, batch_size):
            stage(place)

    return run


def pin(count: int) -> None:
    """Keeps all threads of this process, and those to come, on so many cores."""
    cores = sorted(os.sched_getaffinity(0))
    if not 0 < count <= len(cores):
        raise ValueError(f'--cores={count} is not possible; use 1 to {len(cores)}')
    for task in Path('/proc/self/task').iterdir():
        os.sched_setaffinity(int(task.name), cores[-count:])


def rest() -> float:
    """Waits until no thread of this process works; when that began."""
    since, used, still = time.perf_counter(), time.process_time(), 0
    while still < POLLS:  # not so many seconds, in which another program may have had the core
        time.sleep(POLL)
        before, used = used, time.process_time()
        still += 1
        if used - before > POLL / 5:
            since, still = time.perf_counter(), 0
    return since


def timed(run: Run, times: int) -> tuple[float, float]:
    """Seconds by the clock and of the processor until so many calls are made and made up for."""
    rest()
    start, used = time.perf_counter(), time.process_time()
    for _ in range(times):
        run()
    return rest() - start, time.process_time() - used


def measure(runs: dict[str, Run], rounds: int, times: int) -> dict[str, list[tuple[float, float]]]:
    """Times all in turn, every other round backwards; the first two rounds do not count."""
    blocks: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(-2, rounds):
        for name in list(runs)[:: 1 if number % 2 else -1]:
            seconds = timed(runs[name], times)
            if number >= 0:
                blocks[name].append(seconds)
    return blocks


def ratio(ours: list[float], others: list[float]) -> dict[str, Any]:
    """How many times as fast ours is, and the 95 % interval by resampling rounds."""
    rng = random.Random(0)
    draws = []
    for _ in range(1000):
        rounds = rng.choices(range(len(ours)), k=len(ours))
        draws.append(sum(others[i] for i in rounds) / sum(ours[i] for i in rounds))
    low, high = statistics.quantiles(draws, n=40)[::38]
    return {'ratio': sum(others) / sum(ours), 'interval_95': [low, high]}
