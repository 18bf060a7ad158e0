"""Finds the largest global batch whose train step fits a topology, by bisection over plans.

    python -m benchmarks.largest_batch --topology=v5e:16x16 --unit=256 --json=FILE -- \
        --config=configs/imagenet_finetune.py:model=L/16-16at12,res=512

What stands behind -- goes to main.py, whose plan says whether a batch fits. The batch is a
multiple of the unit, to be one of the devices that share it.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.environment import describe, write_json
from benchmarks.kinetics_plans import run_plan


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


def try_batch(flags: list[str], topology: str, batch_size: int) -> tuple[bool, float]:
    """Whether main.py's plan of a batch fits, and the seconds it took."""
    start = time.perf_counter()
    plan = run_plan((*flags, f'--config.batch_size={batch_size}'), topology)
    seconds = time.perf_counter() - start
    print(f'batch {batch_size:>7}: {seconds:3.0f} s; {plan["verdict"]}', flush=True)
    return plan['fits'], seconds


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
            tried[units] = try_batch(args.flags, args.topology, units * args.unit)
        return tried[units][0]

    largest = find_largest(fits, args.first)
    if largest:
        more = -(-largest * 5 // 4)
        verdict = 'accepted' if fits(more) else 'refused'
        print(
            f'{args.topology}: {largest * args.unit} is the largest batch; '
            f'{more * args.unit} is {verdict}'
        )
    else:
        print(f'{args.topology}: not even a batch of {args.unit} fits')
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
