"""A run on one page: DIR/report.html, of what its workdir holds.

    python -m trainers.report DIR

The file needs nothing else, no network and no JavaScript: pictures and style are in it.
"""

import argparse
import base64
import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from flax.traverse_util import flatten_dict
from matplotlib.figure import Figure

from trainers.metric_names import count_name, is_count, is_share, parse_name
from trainers.plots import COMPARED, Curve, collect_curves, draw_curves, panel_height
from trainers.results import read_results
from trainers.workdir import read_json, read_metrics, writing

_INK = '#0b0c0d'  # of lines and letters in plots; becomes the page's own, light or dark

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --faint: #5d6672; --line: #d9dde3;
  --paper: #ffffff; --card: #f5f6f8; --good: #0b6e4f; --bad: #a33b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --faint: #9aa4b0;
  --line: #363c44; --paper: #14171a; --card: #1e2226; --good: #5fd3a6; --bad: #ff9b63; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 72rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .7rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
.faint { color: var(--faint); }
.state { font-weight: 600; } .finished { color: var(--good); } .unfinished { color: var(--bad); }
.tiles { display: grid; gap: .7rem; margin-top: 1.1rem;
  grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); }
.tile { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.25; }
.tile span { display: block; font-size: .82rem; color: var(--faint); overflow-wrap: anywhere; }
.curves { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
.curves svg { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .28rem 1.2rem .28rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.key { font-family: ui-monospace, monospace; font-size: .85em; }
td.value { font-family: ui-monospace, monospace; font-size: .85em; overflow-wrap: anywhere; }
figure { margin: 0 0 1.2rem; } figure img { max-width: 100%; height: auto; display: block;
  border-radius: .4rem; background: #fff; }
@media (max-width: 40rem) { figure img { max-width: none; width: 44rem; } }
figcaption { font-size: .85rem; color: var(--faint); margin-top: .3rem; }
details { margin: .6rem 0; } summary { cursor: pointer; font-weight: 600; }
details .scroll { max-height: 32rem; overflow: auto; margin-top: .5rem; }
"""


def report(workdir: Path) -> Path:
    """Writes report.html into a workdir.

    Returns:
        The file.

    Raises:
        ValueError: if the folder is no workdir, or a file in it cannot be read.
    """
    if not workdir.is_dir():
        raise ValueError(f'{workdir} is no folder; name the workdir of a run')
    if not (workdir / 'config.json').is_file():
        raise ValueError(f'{workdir} has no config.json; name the workdir of a run')
    path = workdir / 'report.html'
    page = make_page(workdir)
    with writing(path) as file:
        file.write(page)
    return path


def make_page(workdir: Path) -> str:
    """The page as HTML; everything that came from the run is escaped."""
    config, lines = read_json(workdir / 'config.json'), read_metrics(workdir)
    results, environment = read_results(workdir), read_json(workdir / 'environment.json') or {}
    stopped = read_json(workdir / 'nonfinite.json')
    spec, dataset = config['model']['spec'], config['dataset']['name']
    title = f'{spec} on {dataset}'
    metrics = _final(workdir, results, lines)
    sections = [
        _head(title, results, config, lines),
        _tiles(metrics, results),
        _section('Curves', _curves(lines)),
        _section('Results', _results(metrics, results)),
        _section('Where the tokens look', _pictures(workdir)),
        _section('Classes', _classes(workdir)),
        _section('Left out', _left_out(stopped, metrics, results, lines)),
        _section('Environment', _mapping(environment)),
        _section('Config', _mapping(config, folded=True)),
    ]
    body = '\n'.join(filter(None, sections))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n'
        f'<body>\n{body}\n</body>\n</html>\n'
    )


def _final(
    workdir: Path, results: Mapping[str, Any] | None, lines: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[Any, Any, int]]:
    """Value, number of examples and step of each metric of evaluations, the newest of it."""
    found: dict[str, tuple[Any, Any, int]] = {}
    for line in lines:
        for name, value in line.items():
            counted = count_name(name)
            if '/' in parse_name(name).prefix and name != counted:
                found[name] = (value, line.get(counted), line['step'])
    for measured in (results, read_json(workdir / 'eval.json')):
        if measured:
            step = measured['steps'] if 'steps' in measured else measured['step']
            for name, metric in measured['metrics'].items():
                found[name] = (metric['value'], metric['n'], step)
    return found


def _head(
    title: str,
    results: Mapping[str, Any] | None,
    config: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
) -> str:
    if results:
        state = f'<span class="state finished">Finished</span> after {results["steps"]:,} steps'
    else:
        step = max((line['step'] for line in lines), default=0)
        total = f' of {config["total_steps"]:,}' if config['total_steps'] else ''
        state = f'<span class="state unfinished">Unfinished</span>: step {step:,}{total} was logged'
    return f'<h1>{escape(title)}</h1>\n<p>{state}, seed {escape(str(config["seed"]))}.</p>'


def _tiles(metrics: Mapping[str, tuple[Any, Any, int]], results: Mapping[str, Any] | None) -> str:
    """The figures that one looks for first."""
    main = [name for name in metrics if parse_name(name).measure in COMPARED][:4]
    tiles = []
    for name in main:
        value, n, step = metrics[name]
        of = '' if n is None else f', n = {n:,.0f}'
        tiles.append((_shown(name, value), f'{name}{of}, step {step:,}'))
    if results:
        tiles.append((f'{results["params"]:,}', 'parameters'))
        tiles.append((f'{results["gflops"]:.4g}', 'GFLOPs of one example'))
        if (speed := results['examples_per_s']) is not None:
            tiles.append((f'{speed:,.0f}', 'examples a second, training'))
    cells = (
        f'<div class="tile"><b>{escape(value)}</b><span>{_breakable(escape(of))}</span></div>'
        for value, of in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>' if tiles else ''


def _breakable(name: str) -> str:
    """A metric's name, to be broken where its parts meet."""
    return name.replace('/', '/<wbr>').replace('@', '<wbr>@')


def _curves(lines: Sequence[Mapping[str, Any]]) -> str:
    panels = collect_curves(lines).items()
    drawn = [_svg(curves, measure, number) for number, (measure, curves) in enumerate(panels)]
    return f'<div class="curves">{"".join(drawn)}</div>' if drawn else ''


def _svg(curves: Mapping[str, Curve], measure: str, number: int) -> str:
    """A panel as SVG within the page, in the page's colours."""
    style: Any = {
        **dict.fromkeys(('text.color', 'axes.labelcolor', 'axes.titlecolor'), _INK),
        **dict.fromkeys(('axes.edgecolor', 'xtick.color', 'ytick.color', 'grid.color'), _INK),
        'svg.hashsalt': measure,
    }
    file = io.StringIO()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.2, panel_height(curves)), layout='constrained')
        draw_curves(curves, measure, figure.subplots())
        figure.savefig(file, format='svg', transparent=True, metadata={'Date': None})
    drawn = file.getvalue()
    drawn = drawn[drawn.index('<svg') :].replace(_INK, 'currentColor')
    drawn = re.sub(r'<metadata>.*?</metadata>', '', drawn, flags=re.DOTALL)
    drawn = re.sub(
        r' id="(figure|patch|axes|matplotlib|xtick|ytick|line2d|text|legend)[\w.]*"', '', drawn
    )
    label = escape(f'curves of {measure}', quote=True)
    return drawn.replace('<svg ', f'<svg role="img" aria-label="{label}" ', 1)


def _pictures(workdir: Path) -> str:
    """The pictures of `--mode=visualize`, the animation first."""
    shown = []
    for path in sorted(workdir.glob('attention_maps*')):
        if path.suffix in ('.gif', '.png') and path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            source = f'data:image/{path.suffix[1:]};base64,{data}'
            name = escape(path.name, quote=True)
            shown.append(
                f'<figure><div class="scroll"><img src="{source}" alt="{name}"></div>'
                f'<figcaption>{name}</figcaption></figure>'
            )
    return ''.join(shown)


def _results(metrics: Mapping[str, tuple[Any, Any, int]], results: Mapping[str, Any] | None) -> str:
    rows = [
        (name, _shown(name, value), '' if n is None else f'{n:,.0f}', f'{step:,}')
        for name, (value, n, step) in metrics.items()
        if not is_count(name)
    ]
    table = _table(('metric', 'value', 'n', 'step'), rows, numbers=(1, 2, 3)) if rows else ''
    if not results:
        return table or '<p>Nothing was evaluated yet.</p>'
    named = ('split', 'train_split', 'resolution', 'eval_resolution', 'clip', 'fps', 'batch_size')
    about = {key: results[key] for key in named if results.get(key) is not None}
    return table + '<p></p>' + _mapping(about)


def _shown(name: str, value: float | None) -> str:
    """A value as one reads it: shares in percent."""
    if value is None:
        return 'not finite'
    if is_share(name):
        return f'{100 * value:.2f} %'
    return f'{value:,.0f}' if is_count(name) else f'{value:.4g}'


def _classes(workdir: Path) -> str:
    """Tables of the classes, folded."""
    return ''.join(_folded(path.name, _csv(path)) for path in sorted(workdir.glob('classes_*.csv')))


def _csv(path: Path) -> str:
    with path.open(newline='', encoding='utf-8') as file:
        head, *rows = csv.reader(file)
    return _table(head, rows, numbers=[k for k, name in enumerate(head) if name in _OF_CLASSES])


_OF_CLASSES = ('videos', 'right', 'top1', 'times')


def _left_out(
    stopped: Mapping[str, Any] | None,
    metrics: Mapping[str, tuple[Any, Any, int]],
    results: Mapping[str, Any] | None,
    lines: Sequence[Mapping[str, Any]],
) -> str:
    """Examples that could not be read, and steps without an update."""
    rows = []
    for key, text in (
        ('train/unreadable', 'training examples that could not be read'),
        ('train/skipped_steps', 'steps without an update (loss or gradient not finite)'),
    ):
        logged = [line[key] for line in lines if key in line]
        if key == 'train/skipped_steps' and results:
            logged = [results['skipped_steps']]
        if logged:
            rows.append((text, f'{sum(logged):,.0f}'))
    counts = {name: value for name, (value, _, _) in metrics.items() if is_count(name)}
    rows += [(name, _shown(name, value)) for name, value in counts.items()]
    table = _table(('what', 'how many'), rows, numbers=(1,)) if rows else ''
    if stopped:
        ids = ', '.join(map(str, stopped['ids'][:10]))
        table += (
            f'<p>The loss or gradient was not finite at step {stopped["step"]:,}, of a batch with '
            f'{escape(ids)} and others.</p>'
        )
    return table


def _mapping(content: Mapping[str, Any], *, folded: bool = False) -> str:
    """Nested keys and their values as a table, a row a key."""
    if not content:
        return ''
    flat = flatten_dict(dict(content), keep_empty_nodes=True, sep='.')
    rows = [(key, _text(value)) for key, value in flat.items()]
    cells = ''.join(
        f'<tr><td class="key">{escape(key)}</td><td class="value">{escape(value)}</td></tr>'
        for key, value in rows
    )
    table = f'<div class="scroll"><table>{cells}</table></div>'
    return _folded(f'{len(rows)} keys', table) if folded else table


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, Iterable | bool | int | float) else '-'


def _table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()
) -> str:
    def cells(row: Sequence[str], tag: str) -> Iterator[str]:
        for k, cell in enumerate(row):
            kind = ' class="number"' if k in numbers else ''
            yield f'<{tag}{kind}>{escape(cell)}</{tag}>'

    lines = [f'<tr>{"".join(cells(row, "td"))}</tr>' for row in rows]
    top = f'<thead><tr>{"".join(cells(head, "th"))}</tr></thead>'
    return f'<div class="scroll"><table>{top}<tbody>{"".join(lines)}</tbody></table></div>'


def _folded(summary: str, content: str) -> str:
    return f'<details><summary>{escape(summary)}</summary>{content}</details>'


def _section(title: str, content: str) -> str:
    return f'<section><h2>{title}</h2>{content}</section>' if content else ''


def main(argv: list[str] | None = None) -> int:
    """Writes the page; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument('workdir', type=Path, metavar='DIR')
    args = parser.parse_args(argv)
    try:
        print(report(args.workdir))
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    matplotlib.use('Agg')
    sys.exit(main())
