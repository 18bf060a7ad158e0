"""Log lines on the terminal."""

import logging
import re
import sys
import warnings
from typing import Any

import jax
from tqdm import tqdm

from trainers.processes import is_first

_DROPPED = 'orbax|_read_array|OCDBT|Event loop is closed'


class _Handler(logging.Handler):
    """Log lines above the progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record))
        sys.stdout.flush()  # whoever reads a pipe wants the line now


def log_to_terminal() -> None:
    """Shows this project's log lines on standard output.

    All processes do the same, so that the first one tells of it, and the others only of errors; but
    each reads examples of its own, and warns of those.
    """
    first = is_first()
    handler = _Handler()
    who = '' if first else f'process {jax.process_index()}: '
    handler.setFormatter(logging.Formatter(f'%(asctime)s {who}%(message)s', '%H:%M:%S'))
    levels = {'trainers': logging.INFO if first else logging.ERROR, 'datasets': logging.WARNING}
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers = [handler]
        logger.propagate = False
    ignore_orbax()


def ignore_orbax() -> None:
    """Leaves to `trainers.checkpoints` to tell what went wrong in a checkpoint.

    When one of its many transfers fails, Orbax logs it, and drops the others, each of which then
    complains on its own way out.
    """
    logging.getLogger('absl').addFilter(lambda record: 'orbax' not in record.pathname)
    logging.getLogger('asyncio').setLevel(logging.CRITICAL)
    warnings.filterwarnings('ignore', 'coroutine .* was never awaited', RuntimeWarning)
    show_unraisable, show = sys.unraisablehook, sys.excepthook

    def on_unraisable(error: Any) -> None:
        if not re.search(_DROPPED, f'{error.object} {error.exc_value}'):
            show_unraisable(error)

    def on_exception(kind: Any, error: Any, trace: Any) -> None:
        if not re.search(_DROPPED, str(error)):
            show(kind, error, trace)

    sys.unraisablehook, sys.excepthook = on_unraisable, on_exception


def progress_bar(start: int, total: int) -> tqdm:
    """A bar over the steps, on the first process, where there is a terminal."""
    return tqdm(total=total, initial=start, disable=None if is_first() else True)
