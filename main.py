"""Trains, evaluates, predicts with and looks at one experiment.

    python main.py --config=configs/digits.py:model=mini/4-8at2 --workdir=DIR --mode=train

A key of the config is overridden by --config.key=value. Exit status: 0 done; 1 input that
cannot be used, told in one line; 130 or 143 stopped by SIGINT or SIGTERM after a checkpoint,
the same command goes on from there.
"""

import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # clu's writers load TensorFlow, which chats

from absl import app, flags, logging
from ml_collections import config_flags

MODES = ('train', 'eval', 'predict', 'visualize')

config_flags.DEFINE_config_file('config', None, 'File of the config, with :ARGUMENT.')
flags.DEFINE_string('workdir', None, 'Folder of checkpoints, metrics, results and pictures.')
flags.DEFINE_enum('mode', 'train', MODES, 'What to do.')
flags.DEFINE_string('evaluator', None, 'With --mode=eval: one of config.evaluators, else all.')
flags.DEFINE_bool('debug', False, 'Show the traceback of an error in the input.')
flags.mark_flags_as_required(['config', 'workdir'])

FLAGS = flags.FLAGS


def fail(error: Exception) -> int:
    """Reports wrong input in one line."""
    if '--debug' in sys.argv:
        raise error
    message = ' '.join(str(error).strip('"').split())
    print(f'error: {message}', file=sys.stderr)
    return 1


def parse_flags(argv: list[str]) -> list[str]:
    try:
        return FLAGS(argv)
    # Reading a config file runs it, and overrides are checked by ml_collections: any of these.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        sys.exit(fail(error))


def main(argv: list[str]) -> int:
    # Here, so that --help and flags that are wrong answer at once.
    from trainers.construct import UserError
    from trainers.launch import Interrupted, launch

    logging.set_verbosity(logging.WARNING)
    try:
        if argv[1:]:
            raise UserError(f'{argv[1]!r} is not a flag; write --flag=value')
        launch(FLAGS.config, FLAGS.workdir, FLAGS.mode, FLAGS.evaluator)
    except UserError as error:
        return fail(error)
    except Interrupted as stop:
        return 128 + stop.signum
    return 0


if __name__ == '__main__':
    app.run(main, flags_parser=parse_flags)
