"""What the train loop adds to its step: batches, logging and all else of `trainers.train`.

    python -m benchmarks.loop [--rounds 7] [--json FILE]

A run of the digits takes 300 steps as main.py would. Every 10 steps it stands still while the same
compiled step is called as often in a bare loop, on a state of its own and a batch that is already
on the device. The overhead is the ratio of both times less 1; the checkpoint and the evaluation at
the end are left out.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks.environment import as_main_does, describe, write_json
from benchmarks.interleaved import ratio
from configs import digits
from trainers import train as training
from trainers.evaluators import make_evaluators
from trainers.experiment import Experiment, make_experiment
from trainers.sharding import batch_sharding, put_batch
from trainers.state import create_state
from trainers.step import make_train_step
from trainers.workdir import open_workdir

STEPS, BLOCK = 300, 10


class Alternation:
    """A train step that stops every `BLOCK` calls to time the same step in a bare loop."""

    def __init__(self, experiment: Experiment) -> None:
        self._step = make_train_step(experiment)
        batch = put_batch(next(experiment.train_batches()), experiment.mesh)
        self._batch = jax.device_put(batch, batch_sharding(experiment.mesh))
        self._state = create_state(experiment)
        self._state, _ = self._step(self._state, batch)  # compiles
        self._bare(2)  # for arrays on the device
        self._calls = 0
        self._since = 0.0
        self._sums: Any = None  # of the last call
        self.blocks: list[tuple[float, float]] = []  # seconds in the loop, and bare

    def __call__(self, state: Any, batch: Any) -> Any:
        if self._calls and self._calls % BLOCK == 0:
            jax.block_until_ready(self._sums)
            in_loop = time.perf_counter() - self._since
            self.blocks.append((in_loop, self._bare(BLOCK)))
        if self._calls % BLOCK == 0:
            self._since = time.perf_counter()
        self._calls += 1
        state, self._sums = self._step(state, batch)
        return state, self._sums

    def _bare(self, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            self._state, sums = self._step(self._state, self._batch)
        jax.block_until_ready(sums)
        return time.perf_counter() - start


def measure(workdir: Path, steps: int = STEPS) -> Alternation:
    """One run; the block behind the last call is not counted, as the run's end follows it."""
    config = digits.get_config()
    config.total_steps = steps + BLOCK
    config.eval_every_epochs = 0.0
    config.schedule.warmup_epochs = 0.0  # which may be no longer than the run
    experiment = make_experiment(config)
    made = Alternation(experiment)
    training.make_train_step = lambda experiment: made
    try:
        training.train(experiment, make_evaluators(experiment), open_workdir(workdir))
    finally:
        training.make_train_step = make_train_step
    return made


def overhead(blocks: list[tuple[float, float]]) -> tuple[float, list[float]]:
    """What the loop adds, as a share of the bare steps, and its 95 % interval."""
    in_loop, bare = map(list, zip(*blocks, strict=True))
    found = ratio(bare, in_loop)
    return found['ratio'] - 1, [end - 1 for end in found['interval_95']]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    as_main_does()
    about = describe() | {'device': jax.devices()[0].device_kind}
    runs = []
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            blocks = measure(Path(folder)).blocks
        in_loop, bare = (sum(seconds) for seconds in zip(*blocks, strict=True))
        runs.append({'blocks_s': blocks, 'overhead': overhead(blocks)[0]})
        print(
            f'run {number + 1}: {1000 * in_loop / STEPS:.2f} ms a step in the loop, '
            f'{1000 * bare / STEPS:.2f} ms bare, overhead {runs[-1]["overhead"]:+.1%}',
            flush=True,
        )
    pairs = [pair for run in runs for pair in run['blocks_s']]
    added, (low, high) = overhead(pairs)
    result = {
        'steps': STEPS,
        'block': BLOCK,
        'overhead': added,
        'interval_95': [low, high],
        'runs': runs,
    }
    print(
        f'overhead of the loop in {STEPS} steps: {added:+.1%}, all {args.rounds} runs '
        f'together (95 % interval {low:+.1%} to {high:+.1%}, by resampling blocks)'
    )
    write_json(args.json, about | result)


if __name__ == '__main__':
    main()
