"""Finds the largest global batch whose train step fits a topology, by bisection over plans.

    python -m benchmarks.largest_batch --topology=v5e:16x16 --unit=256 --json=FILE -- \
        --config=configs/imagenet_finetune.py:model=L/16-16at12,res=512

What stands behind -- goes to main.py, whose exit status says whether a batch fits. The batch is a
multiple of the unit, to be one of the devices that share it.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.environment import describe, write_json

ROOT = Path(__file__).parents[1]


def find_largest(fits: Callable[[int], bool], first: int) -> int:
    """The largest number for which `fits` is true, 0 where there is none."""
    low, high, number = 0, None, first
    while high is None or high - low > 1:
        if fits(number):
            low = number
        else:
            high = number
        number = 2 * low if high is None else (low + high) // 2
    return low


def plan(flags: list[str], topology: str, batch_size: int) -> tuple[bool, float]:
    """Whether main.py's plan of a batch fits, and the seconds it took."""
    start = time.perf_counter()
    done = subprocess.run(
        [
            sys.executable,
            'main.py',
            '--mode=plan',
            f'--topology={topology}',
            *flags,
            f'--config.batch_size={batch_size}',
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode and 'does not fit' not in done.stderr:
        sys.exit(done.stderr)
    seconds = time.perf_counter() - start
    verdict = done.stdout.splitlines()[-1]
    print(f'batch {batch_size:>7}: exit {done.returncode}, {seconds:3.0f} s; {verdict}', flush=True)
    return done.returncode == 0, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--topology', required=True)
    parser.add_argument('--unit', type=int, required=True)
    parser.add_argument('--first', type=int, default=8, help='units that are tried first')
    parser.add_argument('--json', type=Path)
    parser.add_argument('flags', nargs='+')
    args = parser.parse_args()
    about = describe('libtpu')
    tried: dict[int, tuple[bool, float]] = {}

    def fits(units: int) -> bool:
        if units not in tried:
            tried[units] = plan(args.flags, args.topology, units * args.unit)
        return tried[units][0]

    largest = find_largest(fits, args.first)
    more = -(-largest * 5 // 4)
    print(
        f'{args.topology}: {largest * args.unit} is the largest batch; '
        f'{more * args.unit} is {"accepted" if fits(more) else "refused"}'
    )
    record = {
        'topology': args.topology,
        'flags': args.flags,
        'largest': largest * args.unit,
        'tried': [
            {'batch_size': n * args.unit, 'fits': fit, 'seconds': round(seconds, 1)}
            for n, (fit, seconds) in sorted(tried.items())
        ],
    }
    write_json(args.json, about | record)


if __name__ == '__main__':
    main()
