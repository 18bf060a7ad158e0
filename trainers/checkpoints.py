"""Checkpoints of the training state, through Orbax."""

import hashlib
import logging
import re
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp

from token_learner.build import RUNTIME_SETTINGS
from token_learner.checks import check_positive
from trainers.construct import UserError, construct
from trainers.experiment import Experiment
from trainers.interrupt import Interrupted
from trainers.processes import (
    all_true,
    from_first,
    is_first,
    is_multiprocess,
    lost_process,
    wait_for_all,
)
from trainers.state import TrainState, abstract_state

log = logging.getLogger(__name__)

_SAVE_TIMEOUT_S = 300


def identity(experiment: Experiment, state: TrainState) -> dict[str, Any]:
    """What a checkpoint's state belongs to; saved with it and compared when it is restored.

    Args:
        experiment: that is trained.
        state: of it, or its shapes.
    """
    return {
        **{
            f'model.{k}': v
            for k, v in experiment.model_settings.items()
            if k not in RUNTIME_SETTINGS
        },
        'optimizer.name': experiment.optimizer_name,
        'ema': experiment.ema > 0,
        'dataset.resolution': experiment.data.resolution,
        'dataset.mean': list(experiment.data.mean),
        'dataset.std': list(experiment.data.std),
        'dataset.channels': experiment.data.dataset.channels,
        'dataset.labels': labels_digest(experiment.data.dataset.label_names),
        **({} if experiment.clip is None else {'clip.frames': experiment.clip.frames}),
        'state': _digest(_shapes(state)),
    }


def labels_digest(names: Sequence[str]) -> str:
    """A digest of the names of the classes, in their order."""
    return _digest('\n'.join(names))


class Checkpoints:
    """The checkpoints of one workdir, for training. Saving is asynchronous.

    A step's folder holds `state` (parameters, optimiser state, mutable collections, step, RNG),
    `identity` and `config`. A save that cannot be done is told of and tried again at the next
    step that is due: the run, and with it the work, goes on.
    """

    def __init__(
        self,
        workdir: Path,
        experiment: Experiment,
        *,
        every_steps: int,
        keep: int,
        keep_every_steps: int | None,
        read_only: bool = False,
    ) -> None:
        check_positive('every_steps', every_steps)
        check_positive('keep', keep)
        if keep_every_steps is not None:
            check_positive('keep_every_steps', keep_every_steps)
        self._experiment, self._read_only = experiment, read_only
        self._target = abstract_state(experiment)
        self._identity = identity(experiment, self._target)
        self._every, self._keep, self._keep_every = every_steps, keep, keep_every_steps
        self._folder = workdir / 'checkpoints'
        self._unfinished = _unfinished_steps(self._folder)
        self._saving: int | None = None  # the last one that was asked for
        self._failed: int | None = None  # the same, if it is known to have failed
        self._manager = ocp.CheckpointManager(
            self._folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                keep_period=keep_every_steps,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                # After which a process gives up on one that failed to write its part.
                async_options=ocp.AsyncOptions(timeout_secs=_SAVE_TIMEOUT_S),
            ),
        )

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if is_multiprocess() and kind not in (None, Interrupted):
            return  # the others may never come to where this process would wait for them
        self._wait()
        self._manager.close()

    def due(self, step: int) -> bool:
        """Whether a step is one to save after."""
        return step % self._every == 0

    def latest(self) -> int | None:
        """The newest step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState) -> None:
        """Starts to save; returns as soon as the state may be donated."""
        if step == self.latest():
            return
        self._wait()
        self._saving, self._failed = step, None
        try:
            if not all_true(self._free() > _bytes(state)):
                self._fail(f'{_gb(_bytes(state))} are needed, {_gb(self._free())} are left')
                return
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    identity=ocp.args.JsonSave(self._identity),
                    config=ocp.args.JsonSave(dict(self._experiment.config)),
                ),
                force=True,
            )
        except Exception as error:
            self._fail(error)

    def finish(self) -> None:
        """Waits for the last save and checks that it is there.

        Raises:
            UserError: if it is not.
        """
        self._wait()
        if self._saving is None:
            return  # nothing was saved since the start
        if self._failed is None:
            try:
                self._check(self._saving)
            except Exception as error:
                self._fail(error)
        if self._failed is not None:
            raise UserError(
                f'the state of step {self._failed} is not on the disk, the newest that is has step '
                f'{self.latest()}; mend {self._folder} and run the command again'
            )

    def restore(self) -> TrainState | None:
        """The newest state that is whole, on the experiment's mesh, or None where there is none.

        Damaged ones are told of. They are moved out of the way, unless this only reads.

        Raises:
            UserError: if the state belongs to another model, or none is whole. Keys that the
                checkpoint does not know are newer than it.
        """
        steps: list[Any] = from_first(sorted(self._manager.all_steps(), reverse=True))
        damaged: list[int] = []
        for step, older in pairwise([*steps, None]):
            state, problem = self._try(step)
            if all_true(state is not None):
                for later in [s for s in self._unfinished if s > step]:
                    log.warning(
                        'the checkpoint of step %d was not written to its end; going on from '
                        'step %d',
                        later,
                        step,
                    )
                self._set_aside(damaged)
                return state
            damaged.append(step)
            log.warning(
                'the checkpoint of step %d is damaged (%s); %s',
                step,
                problem or 'on another process',
                'there is no older one' if older is None else f'trying that of step {older}',
            )
        if damaged:
            raise UserError(
                f'every checkpoint in {self._folder} is damaged (steps '
                f'{", ".join(map(str, reversed(damaged)))}); bring back a copy, or move the folder '
                'away to start anew'
            )
        return None

    def check_room(self, state: TrainState, total_steps: int) -> None:
        """Raises UserError if the disk will not hold the checkpoints of the whole run."""
        kept = self._keep + 1  # the oldest goes when the newest is there
        if self._keep_every:
            kept += total_steps // self._keep_every
        new = max(1, kept - len(self._manager.all_steps()))
        if not all_true(self._free() > new * _bytes(state)):
            raise UserError(
                f'the checkpoints take up to {_gb(new * _bytes(state))} more, and {self._folder} '
                f'has {_gb(self._free())} left; free some, or keep fewer (config.checkpoint)'
            )

    def _try(self, step: int) -> tuple[TrainState | None, str | None]:
        """A state, or what is wrong with it; no process waits here for another."""
        folder = self._manager.directory / str(step)
        target = ocp.args.StandardRestore(self._target)
        try:
            saved = ocp.JsonCheckpointHandler().restore(folder / 'identity')
            self._check_identity(saved)
            return ocp.StandardCheckpointHandler().restore(folder / 'state', args=target), None
        except (UserError, PermissionError, MemoryError):
            raise
        except Exception as error:  # whatever Orbax and TensorStore make of a damaged file
            return None, _line(error)

    def _check_identity(self, saved: dict[str, Any]) -> None:
        for key, ours in self._identity.items():
            if key in saved and saved[key] != ours and key == 'dataset.labels':
                raise UserError(
                    f'{self._folder.parent} holds a checkpoint of other classes (their names have '
                    f"the digest {saved[key]}, the dataset's {ours}); use the dataset and "
                    'vocabulary that it was made with, or another --workdir'
                )
            if key in saved and saved[key] != ours:
                raise UserError(
                    f'{self._folder.parent} holds a checkpoint with {key}={saved[key]!r}, the '
                    f'config has {ours!r}; use another --workdir, or the config it was made with'
                )

    def _check(self, step: int | None) -> None:
        """Raises an error unless a step is whole, as far as shows without reading its arrays."""
        folder = self._manager.directory / str(step)
        ocp.JsonCheckpointHandler().restore(folder / 'identity')
        found = ocp.StandardCheckpointHandler().metadata(folder / 'state')
        if len(jax.tree.leaves(found)) != len(jax.tree.leaves(self._target)):
            raise ValueError('arrays are missing')

    def _set_aside(self, damaged: list[int]) -> None:
        if self._read_only or not damaged:
            return
        for step in damaged if is_first() else []:
            folder = self._manager.directory / str(step)
            aside = self._manager.directory / f'damaged_{step}'
            if aside.exists():
                aside.rmtree()
            folder.rename(aside)
            log.warning('%s is now %s', folder, aside)
        wait_for_all('damaged checkpoints')
        self._manager.reload()

    def _wait(self) -> None:
        try:
            self._manager.check_for_errors()
            self._manager.wait_until_finished()
        except Exception as error:
            self._fail(error)

    def _fail(self, problem: object) -> None:
        """Of one process the work goes on; several cannot, as the others wait for this save."""
        self._failed = self._saving
        message = f'the checkpoint of step {self._saving} could not be saved ({_line(problem)})'
        if is_multiprocess() and isinstance(problem, Exception):
            if lost_process(problem):
                raise problem
            raise UserError(f'{message}; mend {self._folder} and run the command again')
        log.error('%s; the next that is due will be tried', message)
        for path in self._folder.glob(f'{self._saving}.orbax-checkpoint-tmp*'):
            shutil.rmtree(path, ignore_errors=True)  # the next one needs the room
        self._manager.reload()

    def _free(self) -> int:
        """Bytes left where the checkpoints lie."""
        return shutil.disk_usage(self._folder).free


def open_checkpoints(
    workdir: Path, experiment: Experiment, *, read_only: bool = False
) -> Checkpoints:
    """The checkpoints of a workdir, kept as `config.checkpoint` says."""
    return construct(
        Checkpoints,
        experiment.checkpoint,
        'config.checkpoint',
        workdir=workdir,
        experiment=experiment,
        read_only=read_only,
    )


def restore_trained(workdir: Path, experiment: Experiment) -> TrainState:
    """The newest state of a workdir, for evaluation, prediction or pictures.

    Raises:
        UserError: if there is none, or it belongs to another model.
    """
    if (workdir / 'checkpoints').is_dir():
        with open_checkpoints(workdir, experiment, read_only=True) as checkpoints:
            if (state := checkpoints.restore()) is not None:
                return state
    raise UserError(f'{workdir} holds no checkpoint; train first, with --mode=train')


def _unfinished_steps(folder: Path) -> list[int]:
    """Steps whose save was cut off, and left the folder that Orbax renames at its end."""
    if not folder.is_dir():
        return []
    matches = (re.match(r'(\d+)\.orbax-checkpoint-tmp', path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def _shapes(tree: Any) -> str:
    """Path, shape and type of each array, a line each."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return '\n'.join(f'{jax.tree_util.keystr(p)} {x.shape} {x.dtype}' for p, x in leaves)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _bytes(state: TrainState) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(state))


def _gb(size: float) -> str:
    return f'{size / 1e9:.3f} GB'


def _line(problem: Any) -> str:
    """The first line of what an error came from."""
    while getattr(problem, '__cause__', None):
        problem = problem.__cause__
    return (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]
