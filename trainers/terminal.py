"""Log lines on the terminal."""

import logging
import sys

from tqdm import tqdm


class _Handler(logging.Handler):
    """Log lines above the progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record))
        sys.stdout.flush()  # whoever reads a pipe wants the line now


def log_to_terminal() -> None:
    """Shows this project's log lines on standard output."""
    handler = _Handler()
    handler.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
    logger = logging.getLogger('trainers')
    logger.setLevel(logging.INFO)
    logger.handlers = [handler]
    logger.propagate = False
