"""What can be said of our dependencies without a network; `make audit` asks an advisory database.

    python -m tests.supply_chain

Both locks pin every requirement by == and by hashes and take none from elsewhere than the index,
hold all that setup.py and pyproject.toml ask for, and have no version in which something is known
to be wrong that would matter here; the environment this runs in is what requirements.lock says.
"""

import re
import runpy
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = {'requirements.lock': ('train', 'test', 'tpu'), 'requirements-beam.lock': ('beam',)}
HASH = re.compile(r'--hash=sha256:[0-9a-f]{64}')

# First version without a flaw, and its name: of what reads files or answers from outside.
FLOORS = {
    'certifi': ('2024.7.4', 'CVE-2024-39689'),
    'cryptography': ('42.0.4', 'CVE-2024-26130'),
    'fonttools': ('4.43.0', 'CVE-2023-45139'),
    'idna': ('3.7', 'CVE-2024-3651'),
    'jinja2': ('3.1.6', 'CVE-2025-27516'),
    'keras': ('3.9.0', 'CVE-2025-1550'),
    'numpy': ('1.16.3', 'CVE-2019-6446'),
    'opencv-python-headless': ('4.8.1.78', 'CVE-2023-4863'),
    'pillow': ('11.3.0', 'CVE-2025-48379'),
    'protobuf': ('6.31.1', 'CVE-2025-4565'),
    'pyarrow': ('14.0.1', 'CVE-2023-47248'),
    'pymongo': ('4.6.3', 'CVE-2024-5629'),
    'pyyaml': ('5.4', 'CVE-2020-14343'),
    'requests': ('2.32.4', 'CVE-2024-47081'),
    'setuptools': ('78.1.1', 'CVE-2025-47273'),
    'tensorflow': ('2.12.0', 'CVE-2023-25668'),
    'tensorflow-cpu': ('2.12.0', 'CVE-2023-25668'),
    'tornado': ('6.5', 'CVE-2025-47287'),
    'tqdm': ('4.66.3', 'CVE-2024-34062'),
    'urllib3': ('2.5.0', 'CVE-2025-50181'),
    'werkzeug': ('3.0.6', 'CVE-2024-49767'),
    'wheel': ('0.38.1', 'CVE-2022-40898'),
    'zipp': ('3.19.1', 'CVE-2024-5569'),
}


class Pinned(NamedTuple):
    """A requirement of a lock."""

    name: str
    version: Version
    requirement: Requirement


def read_lock(text: str) -> tuple[list[Pinned], list[str]]:
    """The requirements of a lock, and what is wrong with it."""
    pinned, problems = [], []
    lines = [line for line in text.splitlines() if not line.lstrip().startswith('#')]
    for line in filter(str.strip, '\n'.join(lines).replace('\\\n', ' ').splitlines()):
        asked, *hashes = line.split('--hash')
        asked = asked.strip()
        try:
            requirement = Requirement(asked)
        except InvalidRequirement:
            problems.append(f'{asked} is no requirement of the index')
            continue
        exact = re.fullmatch('==([^*,]+)', str(requirement.specifier))
        if requirement.url:
            problems.append(f'{asked} does not come from the index')
        elif not exact:
            problems.append(f'{asked} is not pinned by ==')
        else:
            name = canonicalize_name(requirement.name)
            pinned.append(Pinned(name, Version(exact[1]), requirement))
        if not hashes or not all(HASH.fullmatch(f'--hash{given.strip()}') for given in hashes):
            problems.append(f'{asked} is not pinned by sha256')
    return pinned, problems


def below_floors(pinned: Sequence[Pinned]) -> Iterator[str]:
    """Versions that are known to be unsafe."""
    for name, version, _ in pinned:
        floor, flaw = FLOORS.get(name, ('0', ''))
        if version < Version(floor):
            yield f'{name} {version} has {flaw}; take {floor} or later'


def missing(pinned: Sequence[Pinned], asked: Sequence[str]) -> Iterator[str]:
    """What is asked for that a lock has not, or in another version."""
    for requirement in map(Requirement, asked):
        found = [p for p in pinned if p.name == canonicalize_name(requirement.name)]
        if not found:
            yield f'{requirement} is asked for and missing'
        for _, version, _ in found:
            if version not in requirement.specifier:
                yield f'{requirement} is asked for, not {version}'


def different(pinned: Sequence[Pinned]) -> Iterator[str]:
    """What the environment has in another version, or not at all."""
    for name, version, requirement in pinned:
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield f'{name} {version} is not installed'
            continue
        if Version(installed) != version:
            yield f'{name} {version} is installed as {installed}'


def declared(extras: Sequence[str]) -> list[str]:
    """What setup.py asks for; for Beam, only that."""
    given: dict = {}
    with mock.patch('setuptools.setup', given.update):
        runpy.run_path(str(ROOT / 'setup.py'))
    own = [] if extras == ('beam',) else given['install_requires']
    return [*own, *(name for extra in extras for name in given['extras_require'][extra])]


def check(folder: Path = ROOT) -> list[str]:
    """All that is wrong, a line each."""
    found = []
    for file, extras in LOCKS.items():
        pinned, problems = read_lock((folder / file).read_text())
        problems += [*below_floors(pinned), *missing(pinned, declared(extras))]
        if 'beam' not in extras:  # it has an environment of its own
            problems += different(pinned)
        found += [f'{file}: {problem}' for problem in problems]
    return found


if __name__ == '__main__':
    wrong = check()
    print(*wrong, sep='\n', file=sys.stderr)
    sys.exit(bool(wrong))
