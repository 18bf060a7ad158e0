"""Accuracy and computation against the place of TokenLearner, as in Figure 4 of the paper.

    python -m benchmarks.where_to_insert [--spec B/16] [--tokens 8] [--res 224] \
        [--workdirs DIR...] [--metric NAME] [--out where_to_insert.png]

Prints a table and draws it: our GFLOPs with TokenLearner before each block, and without, of images
in colour and 1,000 classes; the accuracies that the paper's tables print for these models at this
resolution, as the paper's; and where finished runs of them lie below DIR, what those measured.
Figure 4 is of the defaults, and prints no values.
"""

import argparse
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.paper_tables import TABLES, count_model, find_results, model_key
from token_learner.spec import Spec, parse_spec
from trainers.plots import COLORS, choose_metric, save, tidy


@dataclass
class Place:
    """A model with TokenLearner at one place, or without.

    Attributes:
        at: the block that it stands before; None without it.
        spec: of the model.
        gflops: of one image.
        printed: by table, the paper's top-1 accuracy, percent.
        measured: percent, of our runs.
    """

    at: int | None
    spec: str
    gflops: float
    printed: dict[str, float]
    measured: list[float] = field(default_factory=list)


def list_places(spec: str, tokens: int, resolution: int) -> list[Place]:
    """A model with TokenLearner before each of its blocks, and last without.

    Raises:
        ValueError: if the spec is of no plain ViT, or there are not as many places for tokens.
    """
    plain = parse_spec(spec)
    if not isinstance(plain, Spec) or plain.tubelet or plain.at:
        raise ValueError(f'{spec} is no plain ViT of images; use one such as B/16')
    specs = [(k, f'{spec}-{tokens}at{k}') for k in range(plain.layers)]
    return [
        Place(
            at,
            name,
            count_model(name, (resolution, resolution, 3), 1000).gflops,
            find_printed(name, resolution),
        )
        for at, name in [*specs, (None, spec)]
    ]


def find_printed(spec: str, resolution: int) -> dict[str, float]:
    """What the paper's tables print of a model's top-1 accuracy, percent, by table."""
    return {
        name: float(row.paper['top1'])
        for name, table in TABLES.items()
        for row in table.rows
        if (row.spec, row.resolution, row.settings) == (spec, resolution, {})
        and 'top1' in row.paper
    }


def add_measured(
    places: list[Place], folders: list[Path], resolution: int, metric: str | None
) -> str | None:
    """Adds what runs of these models measured; the metric's name, None without runs.

    Raises:
        ValueError: if a folder does not exist, no run in it is of these models, or they have not
            this metric in common.
    """
    runs = [
        (place, results)
        for results in find_results(folders).values()
        for place in places
        if results['eval_resolution'] == resolution
        and model_key(results['model']) == model_key({'spec': place.spec})
    ]
    if folders and not runs:
        raise ValueError(
            f'no finished run below {folders[0]} is of {places[-1].spec} at {resolution} pixels, '
            'with or without TokenLearner; name others'
        )
    if not runs:
        return None
    name = choose_metric([results for _, results in runs], metric)
    for place, results in runs:
        place.measured.append(100 * results['metrics'][name]['value'])
    return name


def format_table(places: list[Place], metric: str | None) -> str:
    """The places as Markdown."""
    base = places[-1].gflops
    lines = [
        f'| before block | spec | GFLOPs | of plain | paper top-1 | {metric or "measured here"} |',
        '|---|---|---|---|---|---|',
    ]
    for place in places:
        printed = ', '.join(f'{top1} (Table {name})' for name, top1 in place.printed.items())
        measured = f'{statistics.mean(place.measured):.1f}' if place.measured else 'not run'
        if len(place.measured) > 1:
            measured += f' ({len(place.measured)} runs)'
        at = 'none' if place.at is None else str(place.at)
        share = f'{place.gflops / base:.2f}'
        cells = [at, f'`{place.spec}`', f'{place.gflops:.4g}', share, printed or '-', measured]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def draw(places: list[Place], title: str, metric: str | None) -> Figure:
    """GFLOPs by place and, where there are some, accuracies above them."""
    printed = any(place.printed for place in places)
    panels = 2 if printed or metric else 1
    figure = Figure(figsize=(7, 2.9 * panels + 0.4), layout='constrained')
    axes = figure.subplots(panels, sharex=True, squeeze=False)[:, 0]
    figure.suptitle(title, x=0.02, ha='left', fontsize=11)
    if panels == 2:
        _accuracies(axes[0], places, metric)
    last, x = axes[-1], range(len(places))
    last.bar(x[:-1], [place.gflops for place in places[:-1]], color=COLORS[0], width=0.7)
    last.bar(x[-1], places[-1].gflops, color='0.6', width=0.7)
    last.set_ylabel('GFLOPs of one image, counted')
    last.set_xlabel('TokenLearner before block')
    last.set_xticks(x, ['none' if p.at is None else str(p.at) for p in places])
    for one in axes:
        tidy(one)
    return figure


def _accuracies(axes, places: list[Place], metric: str | None) -> None:
    x = range(len(places))
    if metric:
        runs = [(k, place.measured) for k, place in enumerate(places) if place.measured]
        means = [statistics.mean(values) for _, values in runs]
        low = [mean - min(values) for mean, (_, values) in zip(means, runs, strict=True)]
        high = [max(values) - mean for mean, (_, values) in zip(means, runs, strict=True)]
        at = [k for k, _ in runs]
        axes.errorbar(
            at, means, [low, high], fmt='o', color=COLORS[0], capsize=3, label=f'{metric}, here'
        )
    points = [(k, top1) for k in x for top1 in places[k].printed.values()]
    if points:
        axes.plot(
            *zip(*points, strict=True), 'D', color=COLORS[3], mfc='none', label="the paper's top-1"
        )
    axes.set_ylabel('accuracy, %')
    axes.margins(y=0.15)
    axes.legend(fontsize=8.5, frameon=False, loc='lower right')


def main(argv: list[str] | None = None) -> int:
    """Prints and draws; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add('--spec', default='B/16', help='of the plain model')
    add('--tokens', type=int, default=8)
    add('--res', type=int, default=224, help='pixels')
    add('--workdirs', type=Path, nargs='+', default=[], help='folders of runs')
    add('--metric', help='that the runs are compared by; the first accuracy by default')
    add('--out', type=Path, default=Path('where_to_insert.png'), help='.png, .svg or .pdf')
    args = parser.parse_args(argv)
    try:
        places = list_places(args.spec, args.tokens, args.res)
        metric = add_measured(places, args.workdirs, args.res, args.metric)
        title = f'{args.spec} at {args.res} pixels, {args.tokens} learned tokens'
        save(draw(places, title, metric), args.out)
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(format_table(places, metric))
    if not any(place.printed for place in places):
        print('\nThe paper prints no accuracy of these models (its Figure 4 is without values).')
    print(f'\n{args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
