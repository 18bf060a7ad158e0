"""Measures what decides how fast one works and trains here: one table, one file.

    python -m benchmarks.bench [--only NAME...] [--json FILE] [--small]

images, videos: train steps of a plain model and of TokenLearner's. input: the input pipeline, and
tf.data's way on the same files. attention: the forms of vector attention. loop: what the train
loop adds to its step. imports: what a fresh process waits for before it does anything. compile:
trace, lowering and compilation of a train step, with and without scan over equal layers.

What is compared takes turns in one process (an import in a process each time). A time is the median
over the rounds, and its spread the fastest and the slowest; a ratio has the 95 % interval by
resampling rounds. The table goes to stdout, what the parts say meanwhile to stderr. The file also
says how many cores other programs had while each part was measured. --small takes seconds: it shows
that everything runs, and its figures say nothing.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags

from benchmarks import input as reading
from benchmarks import interleaved, loop, step, vector_attention
from benchmarks.environment import Others, as_main_does, describe, write_json

ROOT = Path(__file__).parents[1]
STAGES = ('trace', 'lowering', 'compilation')


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        images: specs, the first of which is what the others are compared with.
        videos: likewise.
        compiled: the spec that is compiled.
        pixels: side of images and clips.
        frames: of a clip.
        batch: images of a step; of clips it is one.
        configs: whose input is measured.
        examples: of each, in one batch; None for as many as `benchmarks.input` takes.
        tokens: of vector attention.
        channels: likewise.
        steps: of a run of the loop.
        modules: that are imported.
        rounds: of everything, but the loop has `runs` and a compilation `compilations`.
        runs: of the loop.
        compilations: of each spec.
    """

    images: tuple[str, ...] = ('S/16', 'S/16-8at6')
    videos: tuple[str, ...] = ('ViViT-S/16x2', 'ViViT-S/16x2-8at6')
    compiled: str = 'S/16'
    pixels: int = 224
    frames: int = 8
    batch: int = 8
    configs: tuple[str, ...] = ('configs/imagenet_finetune.py:res=224', 'configs/kinetics400.py')
    examples: int | None = None
    tokens: int = 512
    channels: int = 64
    steps: int = loop.STEPS
    modules: tuple[str, ...] = ('token_learner', 'trainers.launch', 'trainers.train')
    rounds: int = 5
    runs: int = 2
    compilations: int = 2


SMALL = Size(
    images=('mini/8', 'mini/8-2at2'),
    videos=('ViViT-mini/8x2', 'ViViT-mini/8x2-2at2'),
    compiled='mini/8',
    pixels=16,
    frames=2,
    batch=2,
    configs=('configs/imagenet_finetune.py:runlocal',),
    examples=2,
    tokens=16,
    channels=2,
    steps=10,
    modules=('token_learner.spec',),
    rounds=2,
    runs=1,
    compilations=2,
)


class Figure(NamedTuple):
    """What was measured.

    Attributes:
        name: what it is of.
        value: in the unit: a median, or a ratio.
        unit: of value and spread.
        spread: low and high.
        spread_is: what they are.
        rounds: that it was taken from.
    """

    name: str
    value: float
    unit: str
    spread: tuple[float, float]
    spread_is: str
    rounds: int


def median(name: str, values: list[float], unit: str) -> Figure:
    """Of the rounds."""
    spread = min(values), max(values)
    return Figure(name, statistics.median(values), unit, spread, 'extremes', len(values))


def ratio(name: str, ours: list[float], others: list[float]) -> Figure:
    """How many times as fast ours is."""
    found = interleaved.ratio(ours, others)
    low, high = found['interval_95']
    unit = 'times as fast'
    return Figure(name, found['ratio'], unit, (low, high), '95 % interval', len(ours))


def against_first(seconds: dict[str, list[float]]) -> Iterator[Figure]:
    """The times, and how many times as fast as the first one the others are."""
    for name, taken in seconds.items():
        yield median(name, [1000 * x for x in taken], 'ms')
    first, *others = seconds
    for name in others:
        yield ratio(f'{name}, against {first}', seconds[name], seconds[first])


def measure_images(size: Size) -> Iterator[Figure]:
    """Train steps on images."""
    return _steps(size.images, (size.batch, size.pixels, size.pixels, 3), size.rounds)


def measure_videos(size: Size) -> Iterator[Figure]:
    """Train steps on one clip."""
    return _steps(size.videos, (1, size.frames, size.pixels, size.pixels, 3), size.rounds)


def _steps(specs: tuple[str, ...], shape: tuple[int, ...], rounds: int) -> Iterator[Figure]:
    inputs = jax.random.normal(jax.random.key(1), shape)
    models = [step.parse_model(spec, 'float32', shape)[1] for spec in specs]
    seconds = step.measure([step.make_step(m, inputs, 'train').run for m in models], rounds)
    yield from against_first(dict(zip(specs, seconds, strict=True)))


def measure_input(size: Size) -> Iterator[Figure]:
    """Batches of each config, by the time of the processor."""
    for text in size.configs:
        args = Namespace(examples=size.examples, batch=size.examples, rounds=size.rounds)
        vars(args).update(cores=1, threads=2, memory=False, workers=None)
        config = reading.load_config(str(ROOT / text))
        for task in reading.measure_config(config, args)['tasks']:
            name, unit, seconds = f'{config.dataset.name}, {task["task"]}', task['unit'], task['s']
            rates = [task['count'] / taken for taken in seconds['ours']]
            yield median(name, rates, f'{unit} per core and s')
            for other in task['ours_as_fast_as']:
                yield ratio(f'{name}, against {other}', seconds['ours'], seconds[other])


def measure_attention(size: Size) -> Iterator[Figure]:
    """Forward and backward of vector attention."""
    names = ['plain', 'blockwise'] + ['pallas'] * (jax.default_backend() in ('gpu', 'tpu'))
    inputs = vector_attention.make_inputs(1, size.tokens, size.channels)
    forms = {name: vector_attention.compile_form(name, inputs) for name in names}
    return against_first(vector_attention.times(forms, size.rounds))


def measure_loop(size: Size) -> Iterator[Figure]:
    """What the train loop adds to the steps of the digits."""
    blocks = []
    for _ in range(size.runs):
        with tempfile.TemporaryDirectory() as folder:
            blocks += loop.measure(Path(folder), size.steps).blocks
    added, (low, high) = loop.overhead(blocks)
    name = f'added to {loop.BLOCK} steps'
    yield Figure(name, 100 * added, '%', (100 * low, 100 * high), '95 % interval', len(blocks))


def measure_imports(size: Size) -> Iterator[Figure]:
    """Imports in fresh processes, with the files in the page cache."""
    seconds: dict[str, list[float]] = {f'import {module}': [] for module in size.modules}
    for number in range(size.rounds + 1):  # the first reads the files
        for statement, taken in seconds.items():
            code = f'import time; start = time.time(); {statement}; print(time.time() - start)'
            command = [sys.executable, '-c', code]
            out = subprocess.check_output(command, cwd=ROOT, stderr=subprocess.DEVNULL, text=True)
            if number:
                taken.append(float(out))
    for statement, taken in seconds.items():
        yield median(statement, taken, 's')


def measure_compile(size: Size) -> Iterator[Figure]:
    """From a train step in Python to a program, with and without scan over equal layers."""
    shape = size.batch, size.pixels, size.pixels, 3
    inputs = jax.random.normal(jax.random.key(1), shape)
    specs = [size.compiled, f'{size.compiled}:scan=true']
    models = {spec: step.parse_model(spec, 'float32', shape)[1] for spec in specs}
    steps = {spec: step.make_train(model, inputs) for spec, model in models.items()}
    stages: dict[tuple[str, str], list[float]] = {}
    for _ in range(size.compilations):
        for spec, (train, state) in steps.items():
            for stage, seconds in stage_times(train, state, inputs).items():
                stages.setdefault((spec, stage), []).append(seconds)
    for (spec, stage), seconds in stages.items():
        yield median(f'{stage} of {spec}', seconds, 's')
    whole = [[sum(x) for x in zip(*(stages[s, k] for k in STAGES), strict=True)] for s in specs]
    yield ratio(f'all three of {specs[1]}, against {specs[0]}', whole[1], whole[0])


def stage_times(train: Any, *args: Any) -> dict[str, float]:
    """Seconds of the stages of a jitted function's compilation, of which nothing is kept."""
    jax.clear_caches()
    times = [time.perf_counter()]
    traced = train.trace(*args)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    lowered.compile()
    times.append(time.perf_counter())
    return {stage: b - a for stage, (a, b) in zip(STAGES, pairwise(times), strict=True)}


PARTS: dict[str, Callable[[Size], Iterator[Figure]]] = {
    'images': measure_images,
    'compile': measure_compile,
    'imports': measure_imports,
    'attention': measure_attention,
    'input': measure_input,
    'loop': measure_loop,
    'videos': measure_videos,
}


def measure(part: str, size: Size) -> dict[str, Any]:
    """A part's figures, its seconds, and how many cores others had meanwhile."""
    others, start = Others(), time.perf_counter()
    figures = [figure._asdict() for figure in PARTS[part](size)]
    seconds = round(time.perf_counter() - start, 1)
    print(f'{part}: {seconds} s', flush=True)
    return {'seconds': seconds, 'others_cores': others.cores(), 'figures': figures}


def table(about: Mapping[str, Any]) -> Iterator[str]:
    """Lines of Markdown."""
    parts = about['parts']
    had = [part['others_cores'] for part in parts.values()]
    yield (
        f'{about["date"]}, {about["device"]}, {about["machine"]}, jax {about["packages"]["jax"]}, '
        f'revision {about["revision"]}. Other programs had {min(had):.1f} to {max(had):.1f} cores.'
    )
    yield ''
    yield '| part | of | measured | unit | spread | rounds |'
    yield '|---|---|---|---|---|---|'
    for name, part in parts.items():
        for figure in (Figure(**values) for values in part['figures']):
            low, high = figure.spread
            spread = f'{low:.4g} to {high:.4g} ({figure.spread_is})'
            cells = name, figure.name, f'{figure.value:.4g}', figure.unit, spread, figure.rounds
            yield f'| {" | ".join(map(str, cells))} |'


def main(argv: list[str] | None = None) -> None:
    as_main_does()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--json', type=Path, default=Path('runs/bench.json'))
    parser.add_argument('--small', action='store_true', help='everything runs, in seconds')
    args = parser.parse_args(argv)
    flags.FLAGS(sys.argv[:1])  # which Grain's workers look at
    about = describe('opencv-python-headless', 'simplejpeg')
    about |= {'device': jax.devices()[0].device_kind, 'small': args.small}
    about['parts'] = {}
    for part in args.only:
        with contextlib.redirect_stdout(sys.stderr):
            about['parts'][part] = measure(part, SMALL if args.small else Size())
        write_json(args.json, about)
    print(*table(about), sep='\n')


if __name__ == '__main__':
    main()
