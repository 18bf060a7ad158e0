"""On what something was measured, which the JSON file of each program says."""

import datetime
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from datasets.prepare.isolate import count_cpus
from trainers.memory import keep_freed_memory
from trainers.processes import hush_libtpu
from trainers.workdir import versions


def describe(*packages: str) -> dict[str, Any]:
    """Date, program, machine, how busy it was before, revision, and versions of packages.

    Of jax's devices there is nothing, as asking for them takes them away from other processes.

    Args:
        *packages: beside those that each run records.
    """
    about = versions()
    about['packages'] |= {name: _version(name) for name in packages}
    program, *arguments = sys.argv
    return {
        'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
        'program': f'benchmarks.{Path(program).stem} {shlex.join(arguments)}'.strip(),
        'machine': f'{count_cpus()} cores, {_processor()}',
        'load_average': os.getloadavg()[0],  # threads that ran or waited in the minute before
        **about,
    }


def as_main_does() -> None:
    """What main.py does to a process before jax is used."""
    hush_libtpu()
    keep_freed_memory()


def _version(package: str) -> str | None:
    """Of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The model that Linux names, elsewhere the architecture."""
    cpus = Path('/proc/cpuinfo')
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    names = [line.partition(': ')[2] for line in lines if line.startswith('model name')]
    return names[0] if names else platform.machine()


def write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Writes a program's JSON file and the folders it is in; without a path, nothing."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + '\n')


class Others:
    """How many cores other programs, and other machines on the same hardware, have."""

    def __init__(self) -> None:
        """Begins to count."""
        self._start, self._used = time.perf_counter(), _used_by_others()

    def cores(self) -> float:
        """On average since the beginning."""
        used = _used_by_others() - self._used
        return max(0.0, used / (time.perf_counter() - self._start))


def _used_by_others() -> float:
    """Seconds of all cores that went neither to this process and its children nor to rest."""
    text = Path('/proc/stat').read_text().partition('\n')[0]
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, text.split()[1:])
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf('SC_CLK_TCK')
    return busy - sum(os.times()[:4])
