"""The files of a workdir other than checkpoints."""

import importlib.metadata
import json
import logging
import math
import platform
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import jax
from flax.traverse_util import flatten_dict

from trainers.construct import UserError
from trainers.processes import all_true, from_first, is_first

log = logging.getLogger(__name__)

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'clu', 'numpy')


def open_workdir(workdir: Path) -> Path:
    """Makes a workdir and checks that it can be written, and is the same for all processes.

    Raises:
        UserError: if it cannot, or is not.
    """
    (token,) = from_first([secrets.randbits(30)])
    mine = workdir / f'.process-{token}-{jax.process_index()}'
    problem: OSError | None = None
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        mine.write_text('')
    except OSError as error:
        problem = error
    everywhere = all_true(problem is None)
    seen = [(workdir / f'.process-{token}-{i}').exists() for i in range(jax.process_count())]
    shared = all_true(all(seen))
    if problem is None:
        mine.unlink()
    if not everywhere:
        reason = problem.strerror if problem else 'on another process'
        raise UserError(
            f'--workdir={workdir} cannot be written ({reason}); name a folder that can'
        ) from problem
    if not shared:
        raise UserError(
            f'--workdir={workdir} is not the same folder on every process; name one on a file '
            'system that all of them share'
        )
    return workdir


def write_json(path: Path, content: Any) -> None:
    """Writes JSON whole or not at all; the first process does.

    What is no finite number, for which JSON has no name, becomes null.
    """
    if not is_first():
        return
    with writing(path) as file:
        file.write(json.dumps(finite(content), indent=2, allow_nan=False) + '\n')


@contextmanager
def writing(path: Path, mode: str = 'w') -> Iterator[IO[Any]]:
    """A file that is there whole at the end, or not at all; lines end as they are written."""
    draft = path.with_name(f'.{path.name}.tmp')
    try:
        text: Any = {} if 'b' in mode else {'newline': '', 'encoding': 'utf-8'}
        with draft.open(mode, **text) as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none.

    Raises:
        UserError: if it is damaged.
    """
    return _parse(path, path.read_bytes()) if path.exists() else None


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, each with its `step`; not one that is still being written.

    Raises:
        UserError: if one is damaged.
    """
    path = workdir / 'metrics.jsonl'
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [_parse(path, line) for line in lines if line.endswith(b'}\n')]


def _parse(path: Path, text: bytes) -> Any:
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError('no object')
        return content
    except ValueError as error:
        raise UserError(f'{path} is damaged ({error}); mend or remove it') from error


def finite(content: Any) -> Any:
    """Numbers that are not finite as None, in nested dicts and lists."""
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def log_changes(workdir: Path, config: Mapping[str, Any]) -> None:
    """Says which keys differ from those that an earlier part of the run left."""
    path = workdir / 'config.json'
    if is_first() and path.exists():
        old, new = (flatten_dict(c, sep='.') for c in (read_json(path), dict(config)))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                log.warning('config.%s was %s, is now %s', key, old.get(key), new.get(key))


def record_run(workdir: Path, config: Mapping[str, Any]) -> None:
    """Writes the resolved config, the git revision, package versions and the devices.

    Results of an earlier, shorter run are taken away, and what one left that was stopped by a loss
    that is not finite.
    """
    if is_first():
        for name in ('results.json', 'eval.json', 'nonfinite.json'):
            (workdir / name).unlink(missing_ok=True)
    write_json(workdir / 'config.json', config)
    write_json(
        workdir / 'environment.json',
        {
            **versions(),
            'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
            'processes': jax.process_count(),
        },
    )


def versions() -> dict[str, Any]:
    """The git revision and the versions of Python and of packages."""
    return {
        'revision': _revision(),
        'python': platform.python_version(),
        'packages': {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _revision() -> str | None:
    """The checkout's commit, with '-dirty' where files differ; None outside git."""
    try:
        return subprocess.run(
            ['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
