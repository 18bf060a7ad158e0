"""Profiles on demand, for TensorBoard and XProf."""

import logging
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import jax

log = logging.getLogger(__name__)

PROFILED_STEPS = 5


class Profiles:
    """Within this context SIGUSR1 has the next steps of this process profiled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._left = 0
        self._wanted = False
        self._old: Any = None

    def __enter__(self) -> 'Profiles':
        self._old = signal.signal(signal.SIGUSR1, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGUSR1, self._old)
        if self._left:
            self._stop()

    def step(self, done: Any) -> None:
        """Call it after each step, with its results, which are waited for in a profile's last."""
        if self._left == 1:
            jax.block_until_ready(done)
            self._stop()
        elif self._left:
            self._left -= 1
        elif self._wanted:
            self._wanted, self._left = False, PROFILED_STEPS
            jax.block_until_ready(done)
            jax.profiler.start_trace(str(self._folder))

    def _stop(self) -> None:
        self._left = 0
        jax.profiler.stop_trace()
        log.info('profile of %d steps: %s', PROFILED_STEPS, self._folder / 'plugins' / 'profile')

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._wanted = True
