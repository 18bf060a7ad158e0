"""Trains a plain ViT and a TokenLearner ViT on the digits and sets them side by side.

    python -m benchmarks.demo [--seed 0] [--epochs 24] [--runs runs/digits]

Each run is the command that is printed, in a folder of its own; a finished run is not trained
again. The time of a train step is measured afterwards, both models in turn in one process.
"""

import argparse
import json
import os
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

from configs import digits

SPECS = {'plain ViT': 'mini/4', 'TokenLearner ViT': 'mini/4-8at2'}
CONFIG = 'configs/digits.py'
TIMED_STEPS = 30


def command(
    arg: str,
    workdir: Path,
    seed: int,
    mode: str,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """The command of a run: the config's argument, and settings of the model."""
    return [
        sys.executable,
        'main.py',
        f'--config={CONFIG}:{arg}',
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

    from trainers.experiment import make_experiment
    from trainers.memory import keep_freed_memory
    from trainers.processes import hush_libtpu
    from trainers.sharding import put_batch
    from trainers.state import create_state
    from trainers.step import make_train_step

    hush_libtpu()
    keep_freed_memory()  # as main.py does
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


def print_table(results: list[dict[str, Any]], seconds: list[float]) -> None:
    top1 = [r['metrics']['digits/test/top1'] for r in results]
    head = ['', *SPECS]
    rows = [
        ['spec', *(r['spec'] for r in results)],
        ['test accuracy, %', *(f'{100 * m["value"]:.1f}' for m in top1)],
        ['  of test images', *(str(m['n']) for m in top1)],
        ['parameters', *(f'{r["params"]:,}' for r in results)],
        ['GFLOPs an image', *(f'{r["gflops"]:.5f}' for r in results)],
        [
            f'train step, ms (batch {results[0]["batch_size"]})',
            *(f'{1000 * s:.1f}' for s in seconds),
        ],
        ['images trained on', *(f'{r["steps"] * r["batch_size"]:,}' for r in results)],
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    print()
    for row in [head, *rows]:
        print(row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]), sep='   ')
    flops = results[1]['gflops'] / results[0]['gflops']
    print(
        f'\nTokenLearner against plain: {flops:.2f} of the GFLOPs, '
        f'{seconds[1] / seconds[0]:.2f} of the step time, '
        f'{100 * (top1[1]["value"] - top1[0]["value"]):+.1f} points of accuracy.'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--epochs', type=float, default=24)
    parser.add_argument('--runs', type=Path, default=Path('runs/digits'))
    args = parser.parse_args()
    folder = args.runs / f'epochs_{args.epochs:g}_seed_{args.seed}'
    workdirs = {spec: folder / spec.replace('/', '_') for spec in SPECS.values()}
    for spec, workdir in workdirs.items():
        run(command(f'model={spec},epochs={args.epochs:g}', workdir, args.seed, 'train'))
    results = [json.loads((w / 'results.json').read_text()) for w in workdirs.values()]
    learner = SPECS['TokenLearner ViT']
    arg = f'model={learner},epochs={args.epochs:g}'
    run(command(arg, workdirs[learner], args.seed, 'visualize'))
    seconds = measure_steps([digits.get_config(f'model={spec}') for spec in SPECS.values()])
    print_table(results, seconds)
    print(
        f'\npicture:      {workdirs[learner] / "attention_maps.png"}'
        f'\nresults:      {workdirs[learner] / "results.json"}'
        f'\nTensorBoard:  {os.path.relpath(sys.executable)} -m tensorboard.main --logdir={folder}'
    )


if __name__ == '__main__':
    main()
