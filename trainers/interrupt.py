"""Stopping in good order on SIGINT and SIGTERM."""

import os
import signal
from types import FrameType
from typing import Any

from jax.experimental import multihost_utils

from trainers.processes import is_multiprocess


class Interrupted(Exception):
    """The run was asked to stop, and saved its state.

    Attributes:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class StopSignals:
    """Within this context SIGINT and SIGTERM are noted; a second one acts as usual.

    Of several processes jax notes SIGTERM, from when they joined, and lets them agree on a step.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> 'StopSignals':
        noted = [signal.SIGINT] if is_multiprocess() else [signal.SIGINT, signal.SIGTERM]
        self._old = {s: signal.signal(s, self._note) for s in noted}
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._old.items():
            signal.signal(signum, handler)
        if is_multiprocess():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def at(self, step: int) -> int | None:
        """The signal on which to stop after this step; the same step on all processes.

        Call it after each step. It waits for nothing.
        """
        if not is_multiprocess():
            return self.received
        agreed = multihost_utils.reached_preemption_sync_point(step)
        return (self.received or signal.SIGTERM) if agreed else None

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        signal.signal(signum, self._old[signum])
        if is_multiprocess():
            os.kill(os.getpid(), signal.SIGTERM)
