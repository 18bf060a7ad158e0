"""Clips or images a second and core: our input pipeline against tf.data, on the same JPEG files.

    python -m benchmarks.input --config configs/imagenet_finetune.py:res=224 [more configs]
        [--examples 256] [--batch 64] [--rounds 20] [--cores 1] [--threads 2] [--json FILE]
    python -m benchmarks.input --config configs/kinetics400.py --memory [--clips 10000]
        [--workers 2]

The images are parts of two photographs that come with scikit-learn, 500x375 JPEGs of quality 90
with 4:2:0 chroma. Ours reads them from ArrayRecord files as TFDS prepares them and makes the
config's batches to train on: uint8, of its size, by its inception crop; flips and scaling run on
the device. tf.data reads a TFRecord file, decodes only the part that is shown, resizes it
bilinearly, flips it and scales it to float32. `tf.data, uint8` stops after the resize, where ours
does; `averaged` averages where it shrinks, as ours does too, instead of leaving out pixels.

The videos are windows that move over these photographs, 250 frames of 340x256 each, JPEGs of
quality 85. Ours reads them from a prepared set and makes uint8 clips by the config's geometry;
flips, colours and scaling run on the device. tf.data reads whole videos from a TFRecord file,
decodes the frames of a clip in `tf.map_fn`, resizes and crops them and does the rest in float32.
`tf.data, decode and crop` decodes a square of each frame and does nothing else. Then come the
views of videos that are evaluated.

The process stays on a few cores. In each round every pipeline, and every stage of ours alone,
takes its turn with one pass over the examples. It begins with full buffers and ends when they are
full again and all threads rest, so that it pays for as many images as it gives. The rate is that
of the processor time of all threads, which other programs on the machine disturb less; the rate by
the clock is given too.

With --memory, clips to train on are read with the config's worker processes, and the resident
size of this process and its children is added up as they are.
"""

import argparse
import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import jax
from absl import flags
from ml_collections import ConfigDict

from benchmarks import films, images, videos
from benchmarks.environment import as_main_does, describe, write_json
from benchmarks.interleaved import KINDS, Task, measure, pin, ratio
from benchmarks.resident import read_on
from token_learner.checks import check_positive
from trainers.experiment import Experiment, make_experiment

PACKAGES = ('opencv-python-headless', 'simplejpeg')


def open_experiment(config: ConfigDict, folder: Path, args: argparse.Namespace) -> Experiment:
    """The config's experiment with the files of this folder, on one device."""
    config.dataset.data_dir, config.dataset.split = str(folder), 'train'
    config.batch_size = args.batch
    workers = config.reading.workers if args.memory else 0
    workers = workers if args.workers is None else args.workers
    config.reading.update(workers=workers, threads=args.threads, prefetch=args.threads)
    return make_experiment(config, jax.devices()[:1])


def compare(task: Task, rounds: int, cores: int) -> dict[str, Any]:
    """Measures one task."""
    blocks = measure({**task.runs, **task.stages}, rounds, task.calls)
    seconds = {
        kind: {name: [round(block[i], 4) for block in taken] for name, taken in blocks.items()}
        for i, kind in enumerate(KINDS)
    }
    count, used = rounds * task.count, seconds['processor']
    result = {
        'task': task.title,
        'unit': task.unit,
        'count': task.count,  # of units in a round
        's': used,  # of the processor, a list over the rounds
        f'{task.unit}_per_core_s': {name: count / sum(taken) for name, taken in used.items()},
        f'{task.unit}_per_core_s_by_clock': {
            name: count / sum(taken) / cores for name, taken in seconds['clock'].items()
        },
        'ours_as_fast_as': {
            name: {kind: ratio(of['ours'], of[name]) for kind, of in seconds.items()}
            for name in task.runs
            if name != 'ours'
        },
    }
    if 'header, decode' in used:
        result['decode_share'] = sum(used['header, decode']) / sum(used['ours'])
    return result


def show(unit: str, result: dict[str, Any]) -> None:
    """Prints one task's figures."""
    print(result['task'])
    for name, rate in result[f'{unit}_per_core_s'].items():
        by_clock = result[f'{unit}_per_core_s_by_clock'][name]
        print(
            f'  {name:24}{rate:7.1f} {unit} per core and s, {1000 / rate:.3f} ms each; '
            f'by the clock {by_clock:.1f}'
        )
    for name, of in result['ours_as_fast_as'].items():
        texts = [
            f'{found["ratio"]:.2f} ({" to ".join(f"{x:.2f}" for x in found["interval_95"])})'
            for found in of.values()
        ]
        print(f'  ours is {texts[1]} times as fast as {name}; by the clock {texts[0]}')
    if 'decode_share' in result:
        print(f'  decoding whole frames is {result["decode_share"]:.0%} of our time')
    sys.stdout.flush()


def load_config(text: str) -> ConfigDict:
    """The config of FILE:ARGUMENT."""
    file, _, arg = text.partition(':')
    made = runpy.run_path(file)
    if 'get_config' not in made:
        raise ValueError(f'{file} has no get_config; name a config')
    return made['get_config'](arg or None)


def measure_config(config: ConfigDict, args: argparse.Namespace) -> dict[str, Any]:
    """Writes the files for a config and measures with them."""
    kind = videos if config.clip else images
    args.examples = kind.EXAMPLES if args.examples is None else args.examples
    args.batch = kind.BATCH if args.batch is None else args.batch
    check_positive('--examples', args.examples)
    check_positive('--batch', args.batch)
    if args.examples % args.batch:
        raise ValueError(f'--examples={args.examples} is no multiple of --batch={args.batch}')
    with tempfile.TemporaryDirectory() as name:
        path = (films if config.clip else images).write_files(Path(name), args.examples)
        experiment = open_experiment(config, Path(name), args)
        about = {
            'resolution': experiment.data.resolution,
            'bytes_per_example': path.stat().st_size / args.examples,
        }
        if args.memory:
            return {**about, 'memory': read_on(experiment, args.clips)}
        tasks = []
        for task in kind.tasks(experiment, path, args):
            tasks.append(compare(task, args.rounds, args.cores))
            show(task.unit, tasks[-1])
    return {**about, 'tasks': tasks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config', nargs='+', required=True, metavar='FILE:ARGUMENT')
    parser.add_argument('--examples', type=int, help='a multiple of the batch')
    parser.add_argument('--batch', type=int)
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--cores', type=int, default=1)
    parser.add_argument('--threads', type=int, default=2, help='of ours')
    parser.add_argument('--memory', action='store_true', help='resident size instead of speed')
    parser.add_argument('--clips', type=int, default=10_000, help='with --memory')
    parser.add_argument(
        '--workers', type=int, help="of ours; by default none, and the config's with --memory"
    )
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    flags.FLAGS(sys.argv[:1])  # which Grain's workers look at
    as_main_does()
    about = describe(*PACKAGES)  # before this process is kept on fewer cores
    try:
        pin(args.cores)
        configs = [load_config(text) for text in args.config]
        import tensorflow as tf  # whose threads are as many as the cores left by now

        results = [measure_config(config, argparse.Namespace(**vars(args))) for config in configs]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    about['tensorflow'] = tf.__version__
    write_json(args.json, {**about, 'results': results})


if __name__ == '__main__':
    main()
