"""The memory of a process and its workers while they read on and on."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from trainers.experiment import Experiment

EVERY = 250  # clips from one look to the next
SETTLED = 1000  # clips after which nothing is to grow


def processes(number: int | str) -> Iterator[str]:
    """A process and all that it has started, by number."""
    yield str(number)
    for children in Path(f'/proc/{number}/task').glob('*/children'):
        for child in children.read_text().split():
            yield from processes(child)


def resident() -> int:
    """Bytes in memory of this process and its children, added up."""
    lines = (
        line
        for number in processes('self')
        for line in Path(f'/proc/{number}/status').read_text().splitlines()
        if line.startswith('VmRSS:')
    )
    return sum(1024 * int(line.split()[1]) for line in lines)


def read_on(experiment: Experiment, clips: int) -> dict[str, Any]:
    """Reads so many clips; the sizes on the way, and by what share they grew."""
    if clips <= SETTLED:
        raise ValueError(f'--clips={clips} are too few; read more than {SETTLED}')
    sizes, seen = {}, 0
    with closing(experiment.train_batches()) as batches:
        while seen < clips:
            seen += len(next(batches)['mask'])
            if seen // EVERY > len(sizes):
                sizes[seen] = resident()
                print(f'{seen} clips, {sizes[seen] / 2**20:.0f} MiB', flush=True)
    after = {at: size for at, size in sizes.items() if at >= SETTLED}
    growth = max(after.values()) / next(iter(after.values())) - 1
    print(f'at most {growth:.1%} more than after {next(iter(after))} clips')
    return {'workers': experiment.reading.workers, 'resident_bytes': sizes, 'growth': growth}
