"""A table of the paper as Markdown: what is printed, our counts, and what was measured here."""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.paper import Table

Entry = dict[str, Any]  # a row of the JSON output, see `paper_tables.describe`
Column = tuple[str, Callable[[Entry], str]]  # its name, and what stands there of a row

MARKED = 1.0  # percent
ACCURACIES = {
    'top1': 'top-1',
    'top5': 'top-5',
    'real': 'ReaL',
    'imagenet_5shot': 'ImageNet 5-shot',
    'mean_5shot': 'mean 5-shot of nine sets',
    'map_6fps': 'mAP at 6 fps',
    'map_12fps': 'mAP at 12 fps',
    'mean_class': 'mean over classes',
}
WORDS = {'input': 'input', 'pretrained': 'pre-trained on'}  # that the paper prints of a row
RARE = ('top5', 'real')  # shown only where a row has them, printed or measured


def format_table(table: Table, rows: list[Entry]) -> str:
    """A table as Markdown, its explanations below."""
    notes = list(dict.fromkeys(row['explanation'] for row in rows if row['explanation']))
    columns = list_columns(table, rows)
    lines = [f'## {table.title}\n', _line([name for name, _ in columns])]
    lines.append(f'|{"---|" * len(columns)}')
    for row in rows:
        note = f' [{notes.index(row["explanation"]) + 1}]' if row['explanation'] else ''
        first, *cells = (cell(row) for _, cell in columns)
        lines.append(_line([first + note, *cells]))
    return '\n'.join([*lines, '', *(f'[{i}] {note}\n' for i, note in enumerate(notes, 1))])


def list_columns(table: Table, rows: list[Entry]) -> list[Column]:
    """The columns of a table: the name of each, and what stands there of a row."""
    recipe = table.recipe
    printed = {key for row in rows for key in row['paper']}
    ours = {key for row in rows for key in row['ours']}
    known = printed | {key for row in rows for run in row['measured'] for key in run}
    columns: list[Column] = [('', lambda row: row['row']), ('spec', _spec), ('pixels', _pixels)]
    if recipe.clip is not None:
        columns.append(('frames', _frames))
    of_view = recipe.clip is not None and table.counted == 'model'
    columns += _counts('gflops', 'GFLOPs a view' if of_view else 'GFLOPs', printed)
    columns += [('strict', partial(_ours, key='gflops_strict'))] if 'gflops_strict' in ours else []
    columns += [('`text`', partial(_ours, key='gflops_text'))] if 'gflops_text' in ours else []
    columns += _counts('params_m', 'parameters, M', printed)
    columns += [('`text`', partial(_ours, key='params_m_text'))] if 'params_m_text' in ours else []
    columns += [('views, paper', partial(_paper, key='views'))] if 'views' in printed else []
    if 'gflops_of_all_views' in ours:
        columns += [('views', lambda row: row['views'] or '-'), ('GFLOPs of all views', _all_views)]
    columns += [
        (f'{name}, paper', partial(_paper, key=key))
        for key, name in (WORDS | ACCURACIES).items()
        if key in printed
    ]
    columns += [
        (
            f'{name} measured here',
            partial(_measured, key=key, keys={*recipe.accuracies}, named=recipe.dataset is None),
        )
        for recipe in table.recipes
        for key, name in ACCURACIES.items()
        if key in recipe.accuracies and (key not in RARE or key in known)
    ]
    return [*columns, ('config', lambda row: f'`{row["config"]}`' if row['config'] else '-')]


def _counts(key: str, name: str, printed: set[str]) -> list[Column]:
    """Our count, and beside a printed one how they differ."""
    ours = partial(_ours, key=key)
    if key not in printed:
        return [(name, ours)]
    return [
        (f'{name}, paper', partial(_paper, key=key)),
        ('ours', ours),
        ('deviation', lambda row: _percent(row['deviation_percent'].get(key))),
        ('digits', lambda row: row['digits'].get(key, '-')),
    ]


def _line(cells: list[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _spec(row: Entry) -> str:
    settings = ''.join(f', `{k}={v}`' for k, v in row['settings'].items())
    return f'`{row["spec"]}`{settings}' if row['spec'] else '-'


def _pixels(row: Entry) -> str:
    return str(row['resolution'] or '-')


def _frames(row: Entry) -> str:
    return str(row['clip'][0]) if row['clip'] else '-'


def _paper(row: Entry, key: str) -> str:
    return row['paper'].get(key, '-')


def _ours(row: Entry, key: str) -> str:
    return f'{row["ours"][key]:.3f}' if key in row['ours'] else '-'


def _all_views(row: Entry) -> str:
    return f'{row["ours"]["gflops_of_all_views"]:,.0f}' if row['ours'] else '-'


def _percent(change: float | None) -> str:
    if change is None:
        return '-'
    return f'**{change:+z.2f} %**' if abs(change) > MARKED else f'{change:+z.3f} %'


def _measured(row: Entry, key: str, keys: set[str], named: bool) -> str:
    """An accuracy in percent of each run that has one of some keys; with the set's name if any."""
    runs = [run for run in row['measured'] if keys & run.keys()]
    return '; '.join(_of_run(run, key, named) for run in runs) or 'not run'


def _of_run(run: dict[str, Any], key: str, named: bool) -> str:
    if key not in run:
        return '-'
    source = f' ({run["dataset"]})' if named else ''
    return f'{100 * run[key]["value"]:.2f} of {run[key]["n"]:,}{source}'
