"""Trains tokenizers and fusers under one recipe, three seeds each: of images, and of videos.

    python -m benchmarks.ablation [--study digits] [--epochs 24] [--seeds 0 1 2] \
        [--runs runs/ablation] [--docs docs]

`digits` has every tokenizer and fuser in a ViT; `moving_digits` bottleneck models of videos that
have one to three motions, with the Vector Transformer, by mean average precision.

Each run is the command that is printed, in a folder of its own; a finished run is not trained
again and an interrupted one goes on, so that the whole can be stopped at any time; one seed follows
the other, so that a stop leaves whole comparisons. At the end the times of the train steps are
measured, all models in turn in one process, and the table and the plot are written.
"""

import argparse
import importlib
import json
import math
import platform
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax
import jax
from ml_collections import ConfigDict

from benchmarks.runs import command, measure_steps, run
from datasets.moving_digits import load_moving_digits
from trainers.plots import Point, plot_flops, save


@dataclass(frozen=True)
class Variant:
    """A row of the table: a model and what it is in the paper."""

    name: str
    spec: str
    settings: dict[str, Any] = field(default_factory=dict)
    source: str = ''

    @property
    def folder(self) -> str:
        return '_'.join([re.sub('[/:]', '_', self.spec), *map(str, self.settings.values())])


@dataclass(frozen=True)
class Row:
    """A variant with what its runs measured."""

    variant: Variant
    accuracies: list[float]  # percent, a seed each; of videos mAP
    examples: int  # of the test behind each
    gflops: float
    params: int
    step: float  # seconds

    @property
    def accuracy(self) -> float:
        return statistics.mean(self.accuracies)


@dataclass(frozen=True)
class Study:
    """Models that are trained under one recipe.

    Attributes:
        title: of its page.
        config: name of the recipe.
        arg: of the config, besides model and epochs.
        epochs: that are trained.
        metric: that is compared.
        measure: what it is, in percent.
        example: what the models are of.
        page: name of the page and of the plot.
        note: says what the figures are of.
        variants: the models, the first one plain.
    """

    title: str
    config: str
    arg: str
    epochs: float
    metric: str
    measure: str
    example: str
    page: str
    note: Callable[[list[Row]], str]
    variants: tuple[Variant, ...]

    def full_arg(self, variant: Variant, epochs: float) -> str:
        return f'model={variant.spec},{self.arg},epochs={epochs:g}'

    def make_config(self, variant: Variant) -> ConfigDict:
        config = importlib.import_module(f'configs.{self.config}')
        made = config.get_config(self.full_arg(variant, 1))
        made.model.update(variant.settings)
        return made


TOKENIZERS_AND_FUSERS = (
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


BOTTLENECKS = (
    Variant('Conv2D + Conv1D', 'X2plus1D-mini', {}, 'Table 13'),
    Variant('Conv2D + TokenLearner', 'X2plus1D-mini:conv2d_tlx2', {'num_tokens': 4}, 'Table 13'),
    Variant('TokenLearner', 'X2plus1D-mini:tlx2', {'num_tokens': 4}, 'Table 13'),
)


def note_of_digits(rows: list[Row]) -> str:
    share, examples = statistics.mean(row.accuracy for row in rows) / 100, rows[0].examples
    error = 100 * math.sqrt(share * (1 - share) / examples)
    return (
        '**These are 5,000 MNIST digits and a model of four layers, not ImageNet.** With '
        f'{examples:,} test images alone, an accuracy near those below has a standard error '
        f'of {error:.1f} points; the order of the models need not be that of the paper.'
    )


def note_of_moving_digits(rows: list[Row]) -> str:
    dataset = load_moving_digits('', several=True)
    videos = dataset.split('test')
    motions = sum(len(videos.read(i, []).actions) for i in range(len(videos)))
    chance = 100 * motions / len(videos) / len(dataset.label_names)
    return (
        f'**These are {rows[0].examples:,} drawn test videos with one to three of eight motions, '
        'and a model of four modules, not Charades.** The order of the models need not be that of '
        f'the paper. By chance the mAP is {chance:.1f} %, the share of the videos that a class is '
        'in.'
    )


STUDIES = {
    'digits': Study(
        'Tokenizers and fusers on the digits',
        'digits',
        'res=32',  # 8x8 patches, which pooling and the fixed grid can divide
        24,
        'digits/test/top1',
        'test accuracy',
        'image',
        'ablation',
        note_of_digits,
        TOKENIZERS_AND_FUSERS,
    ),
    'moving_digits': Study(
        'Bottleneck models on moving digits of several labels',
        'moving_digits',
        'several',
        10,
        'moving_digits/test/map@allx1_max',
        'test mAP',
        'clip',
        'ablation_videos',
        note_of_moving_digits,
        BOTTLENECKS,
    ),
}


def collect(study: Study, variant: Variant, workdirs: list[Path], step: float) -> Row:
    results = [json.loads((workdir / 'results.json').read_text()) for workdir in workdirs]
    measured = [r['metrics'][study.metric] for r in results]
    return Row(
        variant=variant,
        accuracies=[100 * m['value'] for m in measured],
        examples=measured[0]['n'],
        gflops=results[0]['gflops'],
        params=results[0]['params'],
        step=step,
    )


def table(study: Study, rows: list[Row], epochs: float, seeds: list[int]) -> str:
    """The table as Markdown."""
    base = rows[0]
    lines = [
        f'# {study.title}',
        '',
        f'Output of `python -m benchmarks.ablation --study {study.config} --seeds '
        f'{" ".join(map(str, seeds))}`: {epochs:g} epochs of the recipe '
        f'`configs/{study.config}.py:{study.arg}` for every model, '
        'none tuned for itself.',
        '',
        study.note(rows),
        '',
        f'| model | spec | settings | paper | {study.measure}, % | seeds | GFLOPs | of plain '
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
        'Mean and standard deviation over the seeds. Train step: median, the models '
        f'taking turns in one process, batch 32, {jax.default_backend()} ({platform.machine()}), '
        f'jax {jax.__version__}, flax {flax.__version__}.',
        '',
        f'![Against GFLOPs]({study.page}.png)',
        '',
    ]
    return '\n'.join(lines)


def plot(study: Study, rows: list[Row], path: Path) -> None:
    """The measure against GFLOPs: a point a model, a line from the worst to the best seed."""
    points = [Point(row.variant.name, row.gflops, row.accuracies) for row in rows]
    figure = plot_flops(
        points,
        f'{study.measure}, % (mean, worst and best seed)',
        title=f'{study.title}, {rows[0].examples:,} for the test',
        example=study.example,
    )
    save(figure, path)


def carry_out(study: Study, args: argparse.Namespace) -> None:
    """Trains what is not yet trained, and writes the page."""
    epochs = study.epochs if args.epochs is None else args.epochs
    folder = args.runs / study.config / f'epochs_{epochs:g}'

    def workdir(variant: Variant, seed: int) -> Path:
        return Path(folder / f'seed_{seed}' / variant.folder)

    for seed in args.seeds:
        for variant in study.variants:
            place = workdir(variant, seed)
            if not (place / 'results.json').exists():
                arg = study.full_arg(variant, epochs)
                run(command(study.config, arg, place, seed, 'train', variant.settings))
    steps = measure_steps([study.make_config(variant) for variant in study.variants])
    rows = [
        collect(study, variant, [workdir(variant, seed) for seed in args.seeds], step)
        for variant, step in zip(study.variants, steps, strict=True)
    ]
    text = table(study, rows, epochs, args.seeds)
    print(f'\n{text}')
    args.docs.mkdir(parents=True, exist_ok=True)
    page = args.docs / f'{study.page}.md'
    page.write_text(text)
    plot(study, rows, page.with_suffix('.png'))
    print(f'wrote {page} and {page.with_suffix(".png")}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--study', choices=STUDIES, help='one of them; both by default')
    parser.add_argument('--epochs', type=float, help="instead of each study's own")
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--runs', type=Path, default=Path('runs/ablation'))
    parser.add_argument('--docs', type=Path, default=Path('docs'))
    args = parser.parse_args()
    for name in [args.study] if args.study else STUDIES:
        carry_out(STUDIES[name], args)


if __name__ == '__main__':
    main()
