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
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.runs import command, measure_steps, run
from benchmarks.tables import print_table


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


def print_results(demo: Demo, results: list[dict[str, Any]], seconds: list[float]) -> None:
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
    print()
    print_table(head, rows)
    flops = results[1]['gflops'] / results[0]['gflops']
    print(
        f'TokenLearner against plain: {flops:.2f} of the GFLOPs, '
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
    epochs = f'{demo.epochs if args.epochs is None else args.epochs:g}'
    folder = args.runs / args.name / f'epochs_{epochs}_seed_{args.seed}'
    workdirs = {spec: folder / spec.replace('/', '_') for spec in demo.specs.values()}
    for spec, workdir in workdirs.items():
        run(command(args.name, f'model={spec},epochs={epochs}', workdir, args.seed, 'train'))
    results = [json.loads((w / 'results.json').read_text()) for w in workdirs.values()]
    learner, workdir = list(workdirs.items())[-1]
    run(command(args.name, f'model={learner},epochs={epochs}', workdir, args.seed, 'visualize'))
    config = importlib.import_module(f'configs.{args.name}')
    seconds = measure_steps([config.get_config(f'model={spec}') for spec in workdirs])
    print_results(demo, results, seconds)
    print(
        f'\npicture:      {workdir / demo.picture}'
        f'\nresults:      {workdir / "results.json"}'
        f'\nTensorBoard:  {os.path.relpath(sys.executable)} -m tensorboard.main --logdir={folder}'
    )


if __name__ == '__main__':
    main()
