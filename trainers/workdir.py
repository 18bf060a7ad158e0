"""The files of a workdir other than checkpoints."""

import importlib.metadata
import json
import logging
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from trainers.construct import UserError

log = logging.getLogger(__name__)

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'clu', 'numpy')


def open_workdir(workdir: Path) -> Path:
    """Makes a workdir and checks that it can be written.

    Raises:
        UserError: if it cannot.
    """
    probe = workdir / f'.writable-{os.getpid()}'
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f'--workdir={workdir} cannot be written ({error.strerror}); name a folder that can'
        ) from error
    return workdir


def write_json(path: Path, content: Any) -> None:
    """Writes JSON whole or not at all."""
    draft = path.with_suffix('.tmp')
    draft.write_text(json.dumps(content, indent=2, allow_nan=False) + '\n')
    draft.replace(path)


def log_changes(workdir: Path, config: ConfigDict) -> None:
    """Says which keys differ from those that an earlier part of the run left."""
    path, resolved = workdir / 'config.json', json.loads(config.to_json())
    if path.exists():
        old, new = (flatten_dict(c, sep='.') for c in (json.loads(path.read_text()), resolved))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                log.warning('config.%s was %s, is now %s', key, old.get(key), new.get(key))


def record_run(workdir: Path, config: ConfigDict) -> None:
    """Writes the resolved config, the git revision, package versions and the devices.

    Results of an earlier, shorter run are taken away.
    """
    (workdir / 'results.json').unlink(missing_ok=True)
    write_json(workdir / 'config.json', json.loads(config.to_json()))
    write_json(
        workdir / 'environment.json',
        {
            'revision': _revision(),
            'python': platform.python_version(),
            'packages': {name: importlib.metadata.version(name) for name in PACKAGES},
            'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
            'processes': jax.process_count(),
        },
    )


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
