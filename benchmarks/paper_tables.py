"""Every table of the paper, with our counts beside the printed ones.

    python -m benchmarks.paper_tables [--table 2] [--json FILE] [--workdirs DIR...]

Prints Markdown; `docs/paper_tables.md` is this program's output. The counts come from traces of
the models (`token_learner.counting`). Accuracies are the paper's; ours stand beside them, with the
numbers of examples, where a folder below DIR holds a finished run of the same model settings,
resolution, clip and frame rate. What it measured is in its results.json and, of its last step,
eval.json. Of a fine-tuning on the paper's dataset and split these are top-1 and ReaL, of videos
top-1 and top-5 in as many views, of Charades mAP and of AViD the mean over the classes; of a
pre-training on any set, which is named, ImageNet 5-shot and, if it is over the paper's nine sets,
the mean.
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

from benchmarks import paper_bottleneck, paper_images, paper_videos
from benchmarks.bottleneck_counts import count_layers, count_network
from benchmarks.environment import as_main_does
from benchmarks.paper import Recipe, Row, Table
from benchmarks.paper_markdown import MARKED, Entry, format_table
from configs.common import FEW_SHOT_SETS
from token_learner.build import RUNTIME_SETTINGS, build_countable, builder
from token_learner.counting import Cost, count
from token_learner.spec import BottleneckSpec, parse_spec

TABLES = {**paper_images.TABLES, **paper_videos.TABLES, **paper_bottleneck.TABLES}
CONDITIONS = ('eval_resolution', 'fps', 'clip')
READ = (
    'model',
    'dataset',
    'split',
    'resolution',
    'eval_resolution',
    'clip',
    'fps',
    'steps',
    'metrics',
)
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
    model = build_countable({'spec': spec, **dict(settings), 'scan': True}, classes)
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

    That is left out where it was at another resolution, frame rate or clip.

    Raises:
        ValueError: if results.json or eval.json cannot be read.
    """
    with _naming(file := workdir / 'results.json'):
        results = json.loads(file.read_text())
        model_key(results['model'])
        about = {key: results[key] for key in CONDITIONS}
        results = {key: results[key] for key in READ}
        if clip := results['clip']:
            results['clip'] = clip['frames'], clip['stride']
    file = workdir / 'eval.json'
    if file.exists():
        with _naming(file):
            evaluated = json.loads(file.read_text())
            same = {key: evaluated[key] for key in CONDITIONS} == about
            if same and evaluated['step'] == results['steps']:
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
    parameters = inspect.signature(builder(settings['spec'])).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    key = {k: v for k, v in {**defaults, **settings}.items() if k not in RUNTIME_SETTINGS}
    spec = key['spec'] = parse_spec(key['spec'])
    if settings.get('vector_attention') == 'chebyshev':
        key['vector_attention'] = 'chebyshev'  # an approximation
    if isinstance(spec, BottleneckSpec):
        if key['transformer'] == ('vector' if spec.layers[-1] == 'tl' else 'mhsa'):
            key['transformer'] = None
    elif key['activation'] == {'v1.0': 'sigmoid', 'v1.1': 'softmax'}.get(key['version']):
        key['activation'] = None
    return key


def is_run_of(row: Row, recipe: Recipe, results: Results) -> bool:
    """Whether a run trained the row's model on a recipe's data; of pre-training that may be any."""
    return (
        row.spec is not None
        and recipe.dataset in (None, results['dataset'])
        and recipe.split in (None, results['split'])
        and recipe.fps in (None, results['fps'])
        and recipe.clip == results['clip']
        and (row.trained or row.resolution) == results['resolution']
        and row.resolution == results['eval_resolution']
        and model_key(results['model']) == model_key({'spec': row.spec, **row.settings})
    )


def accuracies(row: Row, recipe: Recipe, metrics: Measured) -> Measured:
    """Those of a run's metrics that a row compares, by their column."""
    views = f'@{row.views}_logits' if row.views else ''
    names = {key: name + views for key, name in recipe.accuracies.items()}
    found = {key: metrics[name] for key, name in names.items() if name in metrics}
    if 'mean_5shot' in found and not _is_of_nine_sets(found['mean_5shot'], metrics):
        del found['mean_5shot']
    return found


def _is_of_nine_sets(mean: dict[str, Any], metrics: Measured) -> bool:
    """Whether a few-shot mean is over the paper's sets: these and, by its examples, no other."""
    sets = [metrics[name]['n'] for name in FEW_SHOT_NAMES if name in metrics]
    return len(sets) == len(FEW_SHOT_NAMES) and mean['n'] == sum(sets)


def count_row(row: Row, table: Table) -> dict[str, float]:
    """Our counts of a row, those of bottleneck models as `benchmarks.bottleneck_counts` has them.

    Of what has a `composition`, with the suffix `_text` of the paper's text.
    """
    assert row.spec is not None
    settings, parsed = tuple(row.settings.items()), parse_spec(row.spec)
    classes = table.recipe.classes
    if not isinstance(parsed, BottleneckSpec):
        cost = count_model(row.spec, table.shape(row), classes, settings)
        ours = {
            'params': cost.params,
            'params_m': cost.params / 1e6,
            'gflops': cost.gflops,
            'macs': cost.macs,
        }
        if row.views:
            views = math.prod(map(int, row.views.split('x')))
            ours['gflops_of_all_views'] = views * cost.gflops
        return ours
    layers = table.counted == 'layers'
    counted = count_layers if layers else functools.partial(count_network, classes=classes)
    ours = counted(row.spec, settings=settings)
    if 'tl' in parsed.layers and row.settings.get('tokenizer') != 'none':
        text = counted(row.spec, settings=(*settings, ('composition', 'text')))
        ours = ours | {f'{key}_text': text[key] for key in ('params_m', 'gflops')}
    return ours


def describe(row: Row, table: Table, runs: dict[Path, Results]) -> Entry:
    """A row of the JSON output, with the runs that measured it."""
    ours = count_row(row, table) if row.spec else {}
    configs = dict.fromkeys(recipe.config for recipe in table.recipes)
    compared = [key for key in ('gflops', 'params_m') if key in row.paper and key in ours]
    return {
        'row': row.name,
        'spec': row.spec,
        'settings': row.settings,
        'overrides': row.overrides,
        'resolution': row.resolution,
        'clip': table.recipe.clip if row.spec else None,
        'views': row.views,
        'config': ', '.join(configs) if row.spec else None,
        'paper': row.paper,
        'ours': ours,
        'deviation_percent': {key: deviation(ours[key], row.paper[key]) for key in compared},
        'digits': {key: digits(ours[key], row.paper[key]) for key in compared},
        'explanation': row.note,
        'measured': list_measured(row, table, runs),
    }


def list_measured(row: Row, table: Table, runs: dict[Path, Results]) -> list[Entry]:
    """The runs of a row, each with what it measured of a recipe's columns."""
    return [
        {'workdir': str(path), 'dataset': results['dataset'], **found}
        for path, results in runs.items()
        for recipe in table.recipes
        if is_run_of(row, recipe, results)
        and (found := accuracies(row, recipe, results['metrics']))
    ]


INTRODUCTION = f"""# The paper's tables

Output of `python -m benchmarks.paper_tables`. GFLOPs are counted as the paper's ViT tables count
them (`token_learner/counting.py`): half of XLA's FLOPs before optimisation, one image or clip, no
class token but where the row says so, and 1,000 classes or those of Kinetics. All TokenLearner rows
are v1.0 with sum pooling, which the two decimals of Table 4 decide. "digits" says whether our
figure, rounded to the printed digits, is the printed one; deviations of more than {MARKED:g} % are
bold. Views are clips of a video x crops of a clip; the paper prints their product. Accuracies are
the paper's, in percent; what is "measured here" is of the finished runs below `--workdirs`, with
the number of examples.

Tables 10 to 14 have another convention (`benchmarks/bottleneck_counts.py`): a multiply-add is 2,
with taps in the padding, and a logit 6. Of weighted sums by channel, as in vector attention,
pooling and unpooling, the sums are left out, which `composition=table12` needs in order to fit;
"strict" has them.
Networks are counted on 64 frames at 256 pixels, the size they are tested at, and modules on
8x8x64x432, without their 1x1 convolutions and norms; "`text`" is of `composition=text`. No row of
these says how many modules of the last block are replaced: three, as the counts of Table 11 need
([bottleneck.md](bottleneck.md)).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--table', choices=[*TABLES], help='one table or figure; all by default')
    parser.add_argument('--json', type=Path, help='write the rows to this file as well')
    parser.add_argument('--workdirs', type=Path, nargs='+', default=[], help='folders of runs')
    args = parser.parse_args()
    as_main_does()
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
        run = runs[Path(path)]
        what = f'{run["model"]["spec"]} on {run["dataset"]} at {run["resolution"]} pixels'
        print(f'{path} ({what}) is a run that is none of these rows, or lacks their figures.')
    if args.json:
        args.json.write_text(json.dumps(tables, indent=2) + '\n')


if __name__ == '__main__':
    main()
