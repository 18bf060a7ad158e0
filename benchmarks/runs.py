"""Runs of main.py as their commands, and the steps of their configs timed afterwards."""

import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

TIMED_STEPS = 30


def command(
    config: str,
    arg: str,
    workdir: Path,
    seed: int,
    mode: str,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> list[str]:
    """The command of a run: the config, its argument, and settings of the model."""
    return [
        sys.executable,
        'main.py',
        f'--config=configs/{config}.py:{arg}',
        *(f'--config.model.{key}={value}' for key, value in settings.items()),
        f'--config.seed={seed}',
        f'--workdir={workdir}',
        f'--mode={mode}',
    ]


def run(words: list[str]) -> None:
    """Runs a command to its end, also when Ctrl-C, which the command gets too, makes it save."""
    print('\n$', shlex.join(['python', *words[1:]]), flush=True)
    with subprocess.Popen(words) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while True:
            try:
                status = process.wait()
                break
            except KeyboardInterrupt:
                continue
    if status:
        sys.exit(status)


def measure_steps(configs: list[ConfigDict]) -> list[float]:
    """Median seconds of a train step of each config, the configs taking turns."""
    import jax

    from benchmarks.environment import as_main_does
    from trainers.experiment import make_experiment
    from trainers.sharding import put_batch
    from trainers.state import create_state
    from trainers.step import make_train_step

    as_main_does()
    runs: list[Any] = []
    for config in configs:
        experiment = make_experiment(config)
        step, state = make_train_step(experiment), create_state(experiment)
        batch = put_batch(next(experiment.train_batches()), experiment.mesh)
        state, _ = jax.block_until_ready(step(state, batch))  # compiles
        runs.append([step, state, batch, []])
    for _ in range(TIMED_STEPS):
        for timed in runs:
            step, state, batch, seconds = timed
            start = time.perf_counter()
            timed[1], _ = jax.block_until_ready(step(state, batch))
            seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for *_, seconds in runs]
