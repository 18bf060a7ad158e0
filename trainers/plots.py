"""Plots of runs: curves of what was logged, and accuracy against computation.

    python -m trainers.plots curves WORKDIR... [--out curves.png]
    python -m trainers.plots flops WORKDIR... [--metric NAME] [--out flops.png]

The ending of --out says in which form: .png, .svg or .pdf.
"""

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trainers.metric_names import is_count, is_share, parse_name
from trainers.results import Results, read_results
from trainers.workdir import read_metrics

# Okabe and Ito's colours, which the colour-blind can tell apart, without black and yellow; the blue
# is lighter than theirs, for dark pages.
COLORS = ('#2b83c6', '#e69f00', '#009e73', '#d55e00', '#cc79a7', '#56b4e9')
MARKERS = 'osD^vP<X>d'

# What panels of curves are called, in their order; other measures follow by their own names.
PANELS = {
    'loss': 'loss',
    'top1': 'top-1 accuracy',
    'top5': 'top-5 accuracy',
    'map': 'mean average precision',
    'learning_rate': 'learning rate',
    'gradient_norm': 'gradient norm',
    'examples_per_s': 'examples a second',
    'data_wait_ms': 'wait for data, ms a step',
}
COMPARED = ('top1', 'map')  # of the measures that runs are compared by, the first that is there

Curve = tuple[list[int], list[float]]  # steps and values


@dataclass(frozen=True)
class Point:
    """A model in a plot against computation.

    Attributes:
        name: in the legend.
        gflops: of one example.
        values: of the measure, one a run.
    """

    name: str
    gflops: float
    values: Sequence[float]


def collect_curves(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """Curves by what they measure and their names.

    Counts are none, and of the measures that `COMPARED` does not name those that have no value at
    a second step. A value that was not finite leaves a gap.
    """
    found: dict[str, dict[str, Curve]] = defaultdict(dict)
    for line in lines:
        for name, value in line.items():
            prefix, measure, _ = parse_name(name)
            if prefix.endswith('/l2'):
                measure += ' l2'  # a strength, and no accuracy as the others of its name
            if measure in ('step', 'uptime', 'steps_per_sec') or is_count(name):
                continue
            steps, values = found[measure].setdefault(name, ([], []))
            steps.append(line['step'])
            values.append(math.nan if value is None else value)
    panels = {
        measure: curves
        for measure, curves in found.items()
        if measure in COMPARED or any(len(steps) > 1 for steps, _ in curves.values())
    }
    order = [*PANELS, *sorted(panels.keys() - PANELS.keys())]
    return {measure: panels[measure] for measure in order if measure in panels}


def panel_height(curves: Mapping[str, Curve]) -> float:
    """Inches of a panel, the names below it included."""
    return 2.7 + 0.17 * len(curves)


def draw_curves(curves: Mapping[str, Curve], measure: str, axes: Axes) -> None:
    """Draws one panel: the curves of a measure, by their names, which may be RUN: NAME."""
    percent = all(is_share(name.rpartition(': ')[2]) for name in curves)
    for k, (name, (steps, values)) in enumerate(curves.items()):
        shown = [100 * value for value in values] if percent else values
        marker = 'o' if len(steps) <= 30 else ''
        style = ('-', '--', ':', '-.')[k // len(COLORS) % 4]
        color = COLORS[k % len(COLORS)]
        axes.plot(steps, shown, style, color=color, label=name, lw=1.4, marker=marker, ms=3)
    axes.set_title(PANELS.get(measure, measure) + ', %' * percent, loc='left', fontsize=10)
    axes.set_xlabel('step', fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.legend(
        loc='upper left',
        bbox_to_anchor=(-0.02, -0.2),
        fontsize=7.5,
        frameon=False,
        handlelength=1.6,
    )
    tidy(axes)


def check_folder(workdir: Path) -> None:
    """Raises ValueError if there is no such folder."""
    if not workdir.is_dir():
        raise ValueError(f'there is no folder {workdir}; name the workdir of a run')


def plot_curves(workdirs: Sequence[Path]) -> Figure:
    """All curves of some runs, a panel a measure; of several runs with their names.

    Raises:
        ValueError: if a folder has no metrics, or all together no curve.
    """
    together: dict[str, dict[str, Curve]] = defaultdict(dict)
    for workdir, run in zip(workdirs, short_names(workdirs), strict=True):
        check_folder(workdir)
        lines = read_metrics(workdir)
        if not lines:
            raise ValueError(f'{workdir} has no metrics; name the workdir of a run with some')
        for measure, curves in collect_curves(lines).items():
            for name, curve in curves.items():
                together[measure][f'{run}: {name}' if len(workdirs) > 1 else name] = curve
    if not together:
        names = ', '.join(map(str, workdirs))
        raise ValueError(f'{names}: all metrics are of one step, which is no curve')
    columns = min(3, len(together))
    rows = -(-len(together) // columns)
    height = max(map(panel_height, together.values()))
    figure = Figure(figsize=(4.4 * columns, height * rows), layout='constrained')
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (measure, curves) in zip(grid, together.items(), strict=False):
        draw_curves(curves, measure, axes)
    for axes in grid[len(together) :]:
        axes.set_axis_off()
    return figure


def plot_flops(
    points: Sequence[Point], measure: str, *, title: str = '', example: str = 'example'
) -> Figure:
    """A measure against the operations of one example: a point a model.

    Of several values the point is the mean, and a line goes from the least to the greatest.

    Args:
        points: the models.
        measure: what the values are, as on the axis.
        title: of the plot.
        example: what an example is called.
    """
    most = max(point.gflops for point in points)
    scale, unit = (1000.0, 'MFLOPs') if most < 0.1 else (1.0, 'GFLOPs')
    height = max(4.2, 1 + 0.24 * len(points))
    figure = Figure(figsize=(8, height), layout='constrained')
    axes = figure.subplots()
    for k, point in enumerate(points):
        mean = sum(point.values) / len(point.values)
        low, high = mean - min(point.values), max(point.values) - mean
        axes.errorbar(
            scale * point.gflops,
            mean,
            [[low], [high]] if len(point.values) > 1 else None,
            fmt=MARKERS[k % len(MARKERS)],
            color=COLORS[k % len(COLORS)],
            markersize=7,
            capsize=3,
            label=point.name,
        )
    axes.set_xlabel(f'{unit} of one {example}')
    axes.set_ylabel(measure)
    axes.set_title(title, loc='left', fontsize=11)
    axes.margins(0.08)
    axes.legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    tidy(axes)
    return figure


def tidy(axes: Axes) -> None:
    """The look that all plots share: a light grid, no box."""
    axes.grid(alpha=0.25, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(labelsize=8)


def choose_metric(runs: Sequence[Results], name: str | None = None) -> str:
    """The metric that all runs have: the one of this name, or the first accuracy or mAP.

    Raises:
        ValueError: if there is none.
    """
    common = [key for key in runs[0]['metrics'] if all(key in run['metrics'] for run in runs)]
    if name is not None:
        if name in common:
            return name
        raise ValueError(f'--metric={name} is not of every run; use one of {", ".join(common)}')
    for measure in COMPARED:
        for key in common:
            if parse_name(key).measure == measure:
                return key
    raise ValueError(
        f'the runs have no accuracy in common; name one of {", ".join(common) or "no metric"} with '
        '--metric, or other runs'
    )


def make_points(workdirs: Sequence[Path], metric: str | None = None) -> tuple[list[Point], str]:
    """Points of finished runs, one a run, and the name of the metric; shares in percent.

    Raises:
        ValueError: if a run is not finished, or has not this metric.
    """
    runs = []
    for workdir in workdirs:
        check_folder(workdir)
        results = read_results(workdir)
        if results is None:
            raise ValueError(f'{workdir} has no results.json; name finished runs')
        runs.append(results)
    name = choose_metric(runs, metric)
    scale = 100 if is_share(name) else 1
    points = [
        Point(f'{run["spec"]}  ({short})', run['gflops'], [scale * run['metrics'][name]['value']])
        for run, short in zip(runs, short_names(workdirs), strict=True)
    ]
    return points, name


def short_names(workdirs: Sequence[Path]) -> list[str]:
    """Names of folders, with as much of their paths as tells them apart."""
    parts = [workdir.resolve().parts for workdir in workdirs]
    names = ['/'.join(p[-1:]) for p in parts]
    length = 1
    while len(set(names)) < len(set(parts)):
        length += 1
        names = ['/'.join(p[-length:]) for p in parts]
    return names


def main(argv: list[str] | None = None) -> int:
    """Writes a plot; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    kinds = parser.add_subparsers(dest='kind', required=True)
    for kind in ('curves', 'flops'):
        add = kinds.add_parser(kind, allow_abbrev=False).add_argument
        add('workdirs', type=Path, nargs='+', metavar='WORKDIR')
        add('--out', type=Path, default=Path(f'{kind}.png'), help='.png, .svg or .pdf')
        if kind == 'flops':
            add('--metric', help='such as digits/test/top1; by default the first accuracy')
    args = parser.parse_args(argv)
    try:
        if args.kind == 'curves':
            figure = plot_curves(args.workdirs)
        else:
            points, name = make_points(args.workdirs, args.metric)
            figure = plot_flops(points, name + ', %' * is_share(name))
        save(figure, args.out)
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(args.out)
    return 0


def save(figure: Figure, path: Path) -> None:
    """Writes a figure in the form that the ending says.

    Raises:
        ValueError: if that is none of .png, .svg and .pdf.
    """
    if path.suffix not in ('.png', '.svg', '.pdf'):
        raise ValueError(f'{path} is no .png, .svg or .pdf; name one')
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    matplotlib.use('Agg')
    sys.exit(main())
