"""Trains every tokenizer and fuser on the digits under one recipe, three seeds each.

    python -m benchmarks.ablation [--epochs 24] [--seeds 0 1 2] [--runs runs/ablation] [--docs docs]

Each run is the command that is printed, in a folder of its own; a finished run is not trained
again and an interrupted one goes on, so that the whole can be stopped at any time; one seed follows
the other, so that a stop leaves whole comparisons. At the end the times of the train steps are
measured, all models in turn in one process, and the table and the plot are written.
"""

import argparse
import json
import math
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax
import jax
from ml_collections import ConfigDict

from benchmarks.demo import command, measure_steps, run
from configs import digits

RESOLUTION = 32  # 8x8 patches, which pooling and the fixed grid can divide


@dataclass(frozen=True)
class Variant:
    """A row of the table: a model and what it is in the paper."""

    name: str
    spec: str
    settings: dict[str, str] = field(default_factory=dict)
    source: str = ''

    @property
    def folder(self) -> str:
        return '_'.join([self.spec.replace('/', '_'), *self.settings.values()])

    def arg(self, epochs: float) -> str:
        return f'model={self.spec},res={RESOLUTION},epochs={epochs:g}'

    def config(self) -> ConfigDict:
        config = digits.get_config(self.arg(1))
        config.model.update(self.settings)
        return config


VARIANTS = (
    Variant('plain ViT', 'mini/4'),
    Variant('TokenLearner v1.0', 'mini/4-8at2', {}, 'Fig. 3a'),
    Variant('TokenLearner v1.1', 'mini/4-8at2', {'version': 'v1.1'}, 'Sec. 2.1'),
    Variant('TokenLearner, TokenFuser', 'mini/4-8at2-fuser', {}, 'Fig. 3b'),
    Variant('TokenLearner, unpool', 'mini/4-8at2-fuser', {'fuser': 'unpool'}, 'Sec. 3.5.3'),
    Variant(
        'TokenLearner, re-projection',
        'mini/4-8at2-fuser',
        {'fuser': 'reprojection'},
        'Sec. 3.5.3',
    ),
    Variant('pooling to 2x2', 'mini/4-pool2at2', {}, 'Sec. 3.5.2'),
    Variant('pooling to 4x4', 'mini/4-pool4at2', {}, 'Sec. 3.5.2'),
    Variant('fixed grid, 8 cells', 'mini/4-8at2', {'tokenizer': 'grid'}, 'Sec. 6.3.3 (1)'),
    Variant('dense', 'mini/4-8at2', {'tokenizer': 'dense'}, 'Sec. 6.3.3 (2)'),
    Variant('pooled, then dense', 'mini/4-8at2', {'tokenizer': 'pooled_dense'}, 'Sec. 6.3.3 (3)'),
    Variant('token merging', 'mini/4-8at2', {'tokenizer': 'merge'}, 'not in it (ToMe)'),
    Variant(
        'token merging, three places',
        'mini/4-8at1at2at3',
        {'tokenizer': 'merge'},
        'not in it (ToMe)',
    ),
)


@dataclass(frozen=True)
class Row:
    """A variant with what its runs measured."""

    variant: Variant
    accuracies: list[float]  # percent, a seed each
    examples: int  # test images behind each accuracy
    gflops: float
    params: int
    step: float  # seconds

    @property
    def accuracy(self) -> float:
        return statistics.mean(self.accuracies)


def collect(variant: Variant, workdirs: list[Path], step: float) -> Row:
    results = [json.loads((workdir / 'results.json').read_text()) for workdir in workdirs]
    top1 = [r['metrics']['digits/test/top1'] for r in results]
    return Row(
        variant=variant,
        accuracies=[100 * m['value'] for m in top1],
        examples=top1[0]['n'],
        gflops=results[0]['gflops'],
        params=results[0]['params'],
        step=step,
    )


def table(rows: list[Row], epochs: float, seeds: list[int]) -> str:
    """The table as Markdown."""
    base = rows[0]
    share = statistics.mean(row.accuracy for row in rows) / 100
    error = 100 * math.sqrt(share * (1 - share) / base.examples)
    lines = [
        '# Tokenizers and fusers on the digits',
        '',
        f'Output of `make ablation`: {len(seeds)} seeds ({", ".join(map(str, seeds))}), '
        f'{epochs:g} epochs of the recipe of `configs/digits.py` at {RESOLUTION} pixels for every '
        'model, none tuned for itself.',
        '',
        '**These are 5,000 MNIST digits and a model of four layers, not ImageNet.** With '
        f'{base.examples:,} test images alone, an accuracy near those below has a standard error '
        f'of {error:.1f} points; the order of the models need not be that of the paper.',
        '',
        '| model | spec | settings | paper | test accuracy, % | seeds | GFLOPs | of plain '
        '| parameters | train step, ms | of plain |',
        '|---|---|---|---|---|---|---|---|---|---|---|',
    ]
    for row in rows:
        spread = statistics.stdev(row.accuracies) if len(row.accuracies) > 1 else 0.0
        cells = [
            row.variant.name,
            f'`{row.variant.spec}`',
            ', '.join(f'`{k}={v}`' for k, v in row.variant.settings.items()),
            row.variant.source,
            f'{row.accuracy:.1f} ± {spread:.1f}',
            ' '.join(f'{a:.1f}' for a in row.accuracies),
            f'{row.gflops:.5f}',
            f'{row.gflops / base.gflops:.2f}',
            f'{row.params:,}',
            f'{1000 * row.step:.1f}',
            f'{row.step / base.step:.2f}',
        ]
        lines.append(f'| {" | ".join(cells)} |')
    lines += [
        '',
        'Accuracy: mean and standard deviation over the seeds. Train step: median, the models '
        f'taking turns in one process, batch 32, {jax.default_backend()} ({platform.machine()}), '
        f'jax {jax.__version__}, flax {flax.__version__}.',
        '',
        '![Accuracy against GFLOPs](ablation.png)',
        '',
    ]
    return '\n'.join(lines)


def plot(rows: list[Row], path: Path) -> None:
    """Accuracy against GFLOPs: a point a model, a line from the worst to the best seed."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout='constrained')
    for i, row in enumerate(rows):
        color = plt.get_cmap('tab20')(i)
        low, high = row.accuracy - min(row.accuracies), max(row.accuracies) - row.accuracy
        axes.errorbar(
            1000 * row.gflops,
            row.accuracy,
            [[low], [high]],
            fmt='o^sDv<>pPX*hd'[i % 13],
            color=color,
            capsize=3,
            label=row.variant.name,
        )
    axes.set_xlabel('MFLOPs an image')
    axes.set_ylabel('test accuracy, % (mean, worst and best seed)')
    axes.set_title(f'{rows[0].examples:,} test digits of MNIST, four-layer models')
    axes.grid(alpha=0.3)
    axes.legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--epochs', type=float, default=24)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--runs', type=Path, default=Path('runs/ablation'))
    parser.add_argument('--docs', type=Path, default=Path('docs'))
    args = parser.parse_args()

    def workdir(variant: Variant, seed: int) -> Path:
        return args.runs / f'epochs_{args.epochs:g}_seed_{seed}' / variant.folder

    for seed in args.seeds:
        for variant in VARIANTS:
            folder = workdir(variant, seed)
            if not (folder / 'results.json').exists():
                arg = variant.arg(args.epochs)
                run(command('digits', arg, folder, seed, 'train', variant.settings))
    steps = measure_steps([variant.config() for variant in VARIANTS])
    rows: list[Any] = [
        collect(variant, [workdir(variant, seed) for seed in args.seeds], step)
        for variant, step in zip(VARIANTS, steps, strict=True)
    ]
    text = table(rows, args.epochs, args.seeds)
    print(f'\n{text}')
    args.docs.mkdir(parents=True, exist_ok=True)
    (args.docs / 'ablation.md').write_text(text)
    plot(rows, args.docs / 'ablation.png')
    print(f'wrote {args.docs / "ablation.md"} and {args.docs / "ablation.png"}')


if __name__ == '__main__':
    main()
