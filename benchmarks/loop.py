"""What the train loop adds to its step: batches, logging and all else of `trainers.train`.

    python -m benchmarks.loop [--rounds 7] [--json FILE]

A run of the digits takes 300 steps as main.py would. Every 20 steps it stands still while the same
compiled step is called as often in a bare loop, on a state of its own and a batch that is already
on the device. The overhead is the ratio of both times, over the run, less 1; the checkpoint and the
evaluation at the end are left out.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from configs import digits
from trainers import train as loop
from trainers.evaluators import make_evaluators
from trainers.experiment import Experiment, make_experiment
from trainers.memory import keep_freed_memory
from trainers.sharding import put_batch
from trainers.state import create_state
from trainers.step import make_train_step
from trainers.workdir import open_workdir

STEPS, BLOCK = 300, 20


class Alternation:
    """A train step that stops every `BLOCK` calls to time the same step in a bare loop."""

    def __init__(self, experiment: Experiment) -> None:
        self._step = make_train_step(experiment)
        self._batch = put_batch(next(experiment.train_batches()), experiment.mesh)
        self._state = create_state(experiment)
        self._bare(2)  # compiles
        self._calls = 0
        self._since = 0.0
        self.in_loop = self.bare = 0.0

    def __call__(self, state: Any, batch: Any) -> Any:
        if self._calls and self._calls % BLOCK == 0:
            jax.block_until_ready(state)
            self.in_loop += time.perf_counter() - self._since
            self.bare += self._bare(BLOCK)
        if self._calls % BLOCK == 0:
            self._since = time.perf_counter()
        self._calls += 1
        return self._step(state, batch)

    def _bare(self, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            self._state, sums = self._step(self._state, self._batch)
        jax.block_until_ready(sums)
        return time.perf_counter() - start


def measure(make_step: Callable[[Experiment], Any], workdir: Path) -> Alternation:
    """One run; the block behind the last call is not counted, as the run's end follows it."""
    config = digits.get_config()
    config.total_steps = STEPS + BLOCK
    config.eval_every_epochs = 0.0
    experiment = make_experiment(config)
    made = make_step(experiment)
    loop.make_train_step = lambda experiment: made
    loop.train(experiment, make_evaluators(experiment), open_workdir(workdir))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    keep_freed_memory()  # as main.py does
    rows = []
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            run = measure(Alternation, Path(folder))
        rows.append({'in_loop_s': run.in_loop, 'bare_s': run.bare})
        print(
            f'run {number + 1}: {1000 * run.in_loop / STEPS:.2f} ms a step in the loop, '
            f'{1000 * run.bare / STEPS:.2f} ms bare, overhead {run.in_loop / run.bare - 1:+.1%}',
            flush=True,
        )
    overheads = [row['in_loop_s'] / row['bare_s'] - 1 for row in rows]
    print(
        f'overhead of the loop in {STEPS} steps: {statistics.median(overheads):+.1%} '
        f'(median of {args.rounds} runs, {min(overheads):+.1%} to {max(overheads):+.1%})'
    )
    if args.json:
        record = {
            'runs': rows,
            'overhead': statistics.median(overheads),
            'versions': {'jax': jax.__version__, 'python': platform.python_version()},
        }
        args.json.write_text(json.dumps(record, indent=2) + '\n')


if __name__ == '__main__':
    main()
