"""Every table of the paper, with our counts beside the printed ones.

    python -m benchmarks.paper_tables [--table 2] [--json FILE] [--workdirs DIR...]

Prints Markdown; `docs/paper_tables.md` is this program's output. The counts come from traces of
the models (`token_learner.counting`). Accuracies are the paper's; ours stand beside them, with the
numbers of examples, where a folder below DIR holds a finished run of the same model settings,
resolution and clip. What it measured is in its results.json and, of its last step, eval.json. Of a
fine-tuning on the paper's dataset and split these are top-1 and ReaL, of videos top-1 and top-5 in
as many views; of a pre-training on any set, which is named, ImageNet 5-shot and, if it is over the
paper's nine sets, the mean.
"""

import argparse
import functools
import inspect
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import paper_images, paper_videos
from benchmarks.paper import Row, Table
from benchmarks.paper_markdown import MARKED, Entry, format_table
from configs.common import FEW_SHOT_SETS
from token_learner.build import RUNTIME_SETTINGS, build_model, build_vit
from token_learner.counting import Cost, count
from token_learner.spec import parse_spec

TABLES = {**paper_images.TABLES, **paper_videos.TABLES}
READ = ('model', 'dataset', 'split', 'resolution', 'clip', 'steps', 'metrics')
FEW_SHOT_NAMES = [
    f'fewshot_lsr_rank/{name}/{test}/5shot' for name, (_, test) in FEW_SHOT_SETS.items()
]

Results = dict[str, Any]
Measured = dict[str, dict[str, Any]]  # value and n, by name


@functools.cache
def count_model(
    spec: str, shape: tuple[int, ...], classes: int, settings: tuple[tuple[str, str], ...] = ()
) -> Cost:
    """Counts one image or clip of a shape. Equal layers are traced once."""
    model = build_model({'spec': spec, **dict(settings), 'attention': 'xla', 'scan': True}, classes)
    return count(model, jax.ShapeDtypeStruct((1, *shape), jnp.float32))['']


def deviation(ours: float, printed: str) -> float:
    """In percent of the printed figure."""
    return 100 * (ours / float(printed) - 1)


def digits(ours: float, printed: str) -> str:
    """Whether ours, with as many digits as are printed, is the printed figure."""
    unit = Decimal(printed).as_tuple().exponent
    step = Decimal(1).scaleb(int(unit))
    exact = Decimal(repr(ours))
    if exact.quantize(step, ROUND_HALF_UP) == Decimal(printed):
        return 'equal'
    return 'cut off' if (exact // step) * step == Decimal(printed) else 'differ'


def find_results(folders: list[Path]) -> dict[Path, Results]:
    """The results of all finished runs below some folders, see `read_run`.

    Raises:
        ValueError: if a folder does not exist or a file cannot be read.
    """
    found = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f'{folder} is no folder; name the folder of your runs')
        for file in sorted(folder.rglob('results.json')):
            found[file.parent] = read_run(file.parent)
    return found


def read_run(workdir: Path) -> Results:
    """A finished run's results, with what was measured of its last step afterwards.

    Raises:
        ValueError: if results.json or eval.json cannot be read.
    """
    with _naming(file := workdir / 'results.json'):
        results = json.loads(file.read_text())
        model_key(results['model'])
        results = {key: results[key] for key in READ}
        if clip := results['clip']:
            results['clip'] = clip['frames'], clip['stride']
    file = workdir / 'eval.json'
    if file.exists():
        with _naming(file):
            evaluated = json.loads(file.read_text())
            if evaluated['step'] == results['steps']:
                results['metrics'] = {**results['metrics'], **evaluated['metrics']}
    return results


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Names the file in whose content something is wrong."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{file} is no results file of ours ({error}); move it') from error


def model_key(settings: dict[str, Any]) -> dict[str, Any]:
    """What makes a model: the spec parsed, defaults filled in, two names of one thing made one."""
    parameters = inspect.signature(build_vit).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    key = {k: v for k, v in {**defaults, **settings}.items() if k not in RUNTIME_SETTINGS}
    if key['activation'] == {'v1.0': 'sigmoid', 'v1.1': 'softmax'}.get(key['version']):
        key['activation'] = None
    return {**key, 'spec': parse_spec(key['spec'])}


def is_run_of(row: Row, table: Table, results: Results) -> bool:
    """Whether a run trained the row's model on its data, which for pre-training may be any."""
    recipe = table.recipe
    return (
        row.spec is not None
        and recipe.dataset in (None, results['dataset'])
        and recipe.split in (None, results['split'])
        and (row.resolution, recipe.clip) == (results['resolution'], results['clip'])
        and model_key(results['model']) == model_key({'spec': row.spec, **row.settings})
    )


def accuracies(row: Row, table: Table, metrics: Measured) -> Measured:
    """Those of a run's metrics that a row compares, by their column."""
    views = f'@{row.views}_logits' if row.views else ''
    names = {key: name + views for key, name in table.recipe.accuracies.items()}
    found = {key: metrics[name] for key, name in names.items() if name in metrics}
    if 'mean_5shot' in found and not _is_of_nine_sets(found['mean_5shot'], metrics):
        del found['mean_5shot']
    return found


def _is_of_nine_sets(mean: dict[str, Any], metrics: Measured) -> bool:
    """Whether a few-shot mean is over the paper's sets: these and, by its examples, no other."""
    sets = [metrics[name]['n'] for name in FEW_SHOT_NAMES if name in metrics]
    return len(sets) == len(FEW_SHOT_NAMES) and mean['n'] == sum(sets)


def describe(row: Row, table: Table, runs: dict[Path, Results]) -> Entry:
    """A row of the JSON output, with the runs that measured it."""
    ours: dict[str, float | int] = {}
    if row.spec is not None:
        settings = tuple(row.settings.items())
        cost = count_model(row.spec, table.shape(row), table.recipe.classes, settings)
        ours = {
            'params': cost.params,
            'params_m': cost.params / 1e6,
            'gflops': cost.gflops,
            'macs': cost.macs,
        }
        if row.views:
            ours['gflops_of_all_views'] = math.prod(map(int, row.views.split('x'))) * cost.gflops
    compared = [key for key in ('gflops', 'params_m') if key in row.paper and key in ours]
    return {
        'row': row.name,
        'spec': row.spec,
        'settings': row.settings,
        'overrides': row.overrides,
        'resolution': row.resolution,
        'clip': table.recipe.clip if row.spec else None,
        'views': row.views,
        'config': table.recipe.config if row.spec else None,
        'paper': row.paper,
        'ours': ours,
        'deviation_percent': {key: deviation(ours[key], row.paper[key]) for key in compared},
        'digits': {key: digits(ours[key], row.paper[key]) for key in compared},
        'explanation': row.note,
        'measured': [
            {'workdir': str(path), 'dataset': results['dataset'], **found}
            for path, results in runs.items()
            if is_run_of(row, table, results)
            and (found := accuracies(row, table, results['metrics']))
        ],
    }


INTRODUCTION = f"""# The paper's tables

Output of `python -m benchmarks.paper_tables`. GFLOPs are counted as the paper's ViT tables count
them (`token_learner/counting.py`): half of XLA's FLOPs before optimisation, one image or clip, no
class token but where the row says so, and 1,000 classes or those of Kinetics. All TokenLearner rows
are v1.0 with sum pooling, which the two decimals of Table 4 decide. "digits" says whether our
figure, rounded to the printed digits, is the printed one; deviations of more than {MARKED:g} % are
bold. Views are clips of a video x crops of a clip; the paper prints their product. Accuracies are
the paper's, in percent; what is "measured here" is of the finished runs below `--workdirs`, with
the number of examples.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--table', choices=[*TABLES], help='one table or figure; all by default')
    parser.add_argument('--json', type=Path, help='write the rows to this file as well')
    parser.add_argument('--workdirs', type=Path, nargs='+', default=[], help='folders of runs')
    args = parser.parse_args()
    try:
        runs = find_results(args.workdirs)
        if args.json:
            args.json.touch()
    except (OSError, ValueError) as error:
        parser.error(str(error))
    chosen = {args.table: TABLES[args.table]} if args.table else dict(TABLES)
    tables = {
        name: [describe(row, table, runs) for row in table.rows] for name, table in chosen.items()
    }
    print(INTRODUCTION)
    for name, rows in tables.items():
        print(format_table(TABLES[name], rows))
    used = {m['workdir'] for rows in tables.values() for row in rows for m in row['measured']}
    for path in sorted({*map(str, runs)} - used):
        print(f'{path} holds a finished run that is none of these rows, or lacks their figures.')
    if args.json:
        args.json.write_text(json.dumps(tables, indent=2) + '\n')


if __name__ == '__main__':
    main()
