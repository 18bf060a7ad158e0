"""Trains a plain and a TokenLearner model on the digits and sets them side by side.

    python -m benchmarks.demo [digits | moving_digits] [--seed 0] [--epochs 24] [--runs runs]

`digits` are images for a ViT, `moving_digits` videos for a ViViT, whose labels are the motions.

Each run is the command that is printed, in a folder of its own; a finished run is not trained
again. The time of a train step is measured afterwards, both models in turn in one process.
"""

import argparse
import importlib
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
from typing import Any, NamedTuple

from ml_collections import ConfigDict

TIMED_STEPS = 30


class Demo(NamedTuple):
    """Two models of one config.

    Attributes:
        specs: name -> spec, the plain model's first.
        accuracies: row of the table -> metric; the first one is compared.
        epochs: by default.
        example: what an example is called.
        picture: that `--mode=visualize` draws.
    """

    specs: Mapping[str, str]
    accuracies: Mapping[str, str]
    epochs: float
    example: str
    picture: str


DEMOS = {
    'digits': Demo(
        {'plain ViT': 'mini/4', 'TokenLearner ViT': 'mini/4-8at2'},
        {'test accuracy, %': 'digits/test/top1'},
        24,
        'image',
        'attention_maps.png',
    ),
    'moving_digits': Demo(
        {'plain ViViT': 'ViViT-mini/8x6', 'TokenLearner ViViT': 'ViViT-mini/8x6-4at2'},
        {
            'test accuracy, 4x3 views, %': 'moving_digits/test/top1@4x3_logits',
            '  one view': 'moving_digits/test/top1@1x1_center',
        },
        24,
        'clip',
        'attention_maps.gif',
    ),
}


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


def print_table(demo: Demo, results: list[dict[str, Any]], seconds: list[float]) -> None:
    metrics = {row: [r['metrics'][name] for r in results] for row, name in demo.accuracies.items()}
    compared = next(iter(metrics.values()))
    head = ['', *demo.specs]
    rows = [
        ['spec', *(r['spec'] for r in results)],
        *([row, *(f'{100 * m["value"]:.1f}' for m in found)] for row, found in metrics.items()),
        ['  of test examples', *(str(m['n']) for m in compared)],
        ['parameters', *(f'{r["params"]:,}' for r in results)],
        [f'GFLOPs of one {demo.example}', *(f'{r["gflops"]:.5f}' for r in results)],
        [
            f'train step, ms (batch {results[0]["batch_size"]})',
            *(f'{1000 * s:.1f}' for s in seconds),
        ],
        [f'{demo.example}s trained on', *(f'{r["steps"] * r["batch_size"]:,}' for r in results)],
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    print()
    for row in [head, *rows]:
        print(row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]), sep='   ')
    flops = results[1]['gflops'] / results[0]['gflops']
    print(
        f'\nTokenLearner against plain: {flops:.2f} of the GFLOPs, '
        f'{seconds[1] / seconds[0]:.2f} of the step time, '
        f'{100 * (compared[1]["value"] - compared[0]["value"]):+.1f} points of accuracy.'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('name', nargs='?', choices=DEMOS, default='digits')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--epochs', type=float)
    parser.add_argument('--runs', type=Path, default=Path('runs'))
    args = parser.parse_args()
    demo = DEMOS[args.name]
    epochs = f'{args.epochs or demo.epochs:g}'
    folder = args.runs / args.name / f'epochs_{epochs}_seed_{args.seed}'
    workdirs = {spec: folder / spec.replace('/', '_') for spec in demo.specs.values()}
    for spec, workdir in workdirs.items():
        run(command(args.name, f'model={spec},epochs={epochs}', workdir, args.seed, 'train'))
    results = [json.loads((w / 'results.json').read_text()) for w in workdirs.values()]
    learner, workdir = list(workdirs.items())[-1]
    run(command(args.name, f'model={learner},epochs={epochs}', workdir, args.seed, 'visualize'))
    config = importlib.import_module(f'configs.{args.name}')
    seconds = measure_steps([config.get_config(f'model={spec}') for spec in workdirs])
    print_table(demo, results, seconds)
    print(
        f'\npicture:      {workdir / demo.picture}'
        f'\nresults:      {workdir / "results.json"}'
        f'\nTensorBoard:  {os.path.relpath(sys.executable)} -m tensorboard.main --logdir={folder}'
    )


if __name__ == '__main__':
    main()
