"""Log lines on the terminal."""

import logging
import sys

import jax
from tqdm import tqdm

from trainers.processes import is_first


class _Handler(logging.Handler):
    """Log lines above the progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record))
        sys.stdout.flush()  # whoever reads a pipe wants the line now


def log_to_terminal() -> None:
    """Shows this project's log lines on standard output; of other processes than the first, errors.

    All processes do the same, so that one need tell of it.
    """
    first = is_first()
    handler = _Handler()
    who = '' if first else f'process {jax.process_index()}: '
    handler.setFormatter(logging.Formatter(f'%(asctime)s {who}%(message)s', '%H:%M:%S'))
    logger = logging.getLogger('trainers')
    logger.setLevel(logging.INFO if first else logging.ERROR)
    logger.handlers = [handler]
    logger.propagate = False


def progress_bar(start: int, total: int) -> tqdm:
    """A bar over the steps, on the first process, where there is a terminal."""
    return tqdm(total=total, initial=start, disable=None if is_first() else True)
