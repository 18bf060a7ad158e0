"""Checkpoints of the training state, through Orbax."""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Any

import orbax.checkpoint as ocp

from token_learner.build import RUNTIME_SETTINGS
from token_learner.checks import check_positive
from trainers.construct import UserError, construct
from trainers.experiment import Experiment
from trainers.state import TrainState, abstract_state


def identity(experiment: Experiment) -> dict[str, Any]:
    """What a checkpoint's state belongs to; saved with it and compared when it is restored."""
    labels = '\n'.join(experiment.data.dataset.label_names)
    return {
        **{
            f'model.{k}': v
            for k, v in experiment.model_settings.items()
            if k not in RUNTIME_SETTINGS
        },
        'optimizer.name': experiment.optimizer_name,
        'dataset.resolution': experiment.data.resolution,
        'dataset.mean': experiment.data.mean,
        'dataset.std': experiment.data.std,
        'dataset.channels': experiment.data.dataset.channels,
        'dataset.labels': hashlib.sha256(labels.encode()).hexdigest()[:16],
    }


class Checkpoints:
    """The checkpoints of one workdir. Saving is asynchronous; leaving the context waits."""

    def __init__(self, workdir: Path, experiment: Experiment, *, every_steps: int, keep: int):
        check_positive('every_steps', every_steps)
        check_positive('keep', keep)
        self._experiment = experiment
        self._every = every_steps
        self._folder = workdir / 'checkpoints'
        self._manager = ocp.CheckpointManager(
            self._folder.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
        )

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._manager.wait_until_finished()
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
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                identity=ocp.args.JsonSave(identity(self._experiment)),
            ),
            force=True,
        )

    def restore(self) -> TrainState | None:
        """The newest state, on the experiment's mesh, or None where there is none.

        Raises:
            UserError: if it belongs to another model. Keys that the checkpoint does not
                know are newer than it.
        """
        step = self.latest()
        if step is None:
            return None
        saved = self._manager.restore(
            step, args=ocp.args.Composite(identity=ocp.args.JsonRestore())
        )['identity']
        for key, ours in identity(self._experiment).items():
            if key in saved and saved[key] != ours:
                raise UserError(
                    f'{self._folder.parent} holds a checkpoint with {key}={saved[key]!r}, the '
                    f'config has {ours!r}; use another --workdir, or the config it was made with'
                )
        target = abstract_state(self._experiment)
        return self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))
        )['state']


def open_checkpoints(workdir: Path, experiment: Experiment) -> Checkpoints:
    """The checkpoints of a workdir, kept as `config.checkpoint` says."""
    return construct(
        Checkpoints,
        experiment.checkpoint,
        'config.checkpoint',
        workdir=workdir,
        experiment=experiment,
    )


def restore_trained(workdir: Path, experiment: Experiment) -> TrainState:
    """The newest state of a workdir, for evaluation, prediction or pictures.

    Raises:
        UserError: if there is none, or it belongs to another model.
    """
    if (workdir / 'checkpoints').is_dir():
        with open_checkpoints(workdir, experiment) as checkpoints:
            if (state := checkpoints.restore()) is not None:
                return state
    raise UserError(f'{workdir} holds no checkpoint; train first, with --mode=train')
