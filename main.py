"""Trains, evaluates, predicts with, looks at and exports one experiment.

    python main.py --config=configs/digits.py:model=mini/4-8at2 --workdir=DIR --mode=train
    python main.py --config=... --workdir=DIR --mode=visualize [FILE...]
    python main.py --mode=predict --weights=DIR/export/model.safetensors IMAGE...

A key of the config is overridden by --config.key=value. Exit status: 0 done; 1 input that
cannot be used, told in one line; 130 or 143 stopped by SIGINT or SIGTERM after a checkpoint,
and 75 (or 134, of jax) ended because another process did: the same command goes on from there.
"""

import os
import re
import sys
import traceback
from difflib import get_close_matches
from pathlib import Path

os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # TensorFlow, behind clu, then says nothing

from absl import app, flags, logging
from ml_collections import config_flags

MODES = ('train', 'eval', 'predict', 'visualize', 'export', 'plan')

config_flags.DEFINE_config_file('config', None, 'File of the config, with :ARGUMENT.')
flags.DEFINE_string('workdir', None, 'Folder of checkpoints, metrics, results and pictures.')
flags.DEFINE_enum('mode', 'train', MODES, 'What to do.')
flags.DEFINE_string('evaluator', None, 'With --mode=eval: one of config.evaluators, else all.')
flags.DEFINE_string('weights', None, 'Instead of a config: a model.safetensors of --mode=export.')
flags.DEFINE_string('layer', None, 'With --mode=visualize: whose maps; the first by default.')
flags.DEFINE_integer('tokens', None, 'With --mode=visualize: how many; all by default.')
flags.DEFINE_string('topology', None, 'With --mode=plan: the machine, such as v5e:16x16 or cpu:8.')
flags.DEFINE_string('json', None, 'With --mode=plan: a file for the plan as JSON.')
flags.DEFINE_string('compilation_cache', None, 'Folder of compiled programs, used again.')
flags.DEFINE_string('coordinator_address', None, 'HOST:PORT of process 0, of several processes.')
flags.DEFINE_integer('num_processes', None, 'How many processes train together.')
flags.DEFINE_integer('process_id', None, 'Number of this process among them, from 0.')
flags.DEFINE_bool('debug', False, 'Show the traceback of an error in the input.')

FLAGS = flags.FLAGS


def fail(message: str) -> int:
    """Reports the error that is handled in one line, with --debug below its traceback."""
    if any(re.fullmatch('--?debug(=(true|t|1))?', a, re.IGNORECASE) for a in sys.argv):
        traceback.print_exc()  # FLAGS may not be there: they are what could not be parsed
    print('error:', ' '.join(message.split()), file=sys.stderr)
    return 1


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags, reads the config file and applies the overrides."""
    try:
        rest = FLAGS(argv)
        if FLAGS.weights is None and FLAGS['config'].value is None:
            raise flags.Error('--config is missing; name a file, such as configs/digits.py')
        list(FLAGS.config or ())  # a file that cannot be read is told of only when it is used
    except SystemExit:  # --help; absl ends it with 1
        sys.exit(0)
    except Exception as error:  # a config file is a program: anything may go wrong in it
        sys.exit(fail(unknown_key(argv, error) or missing_file(argv, error) or last_line(error)))
    return rest


def unknown_key(argv: list[str], error: Exception) -> str | None:
    """What to say of an override whose key is not in the config; None of another error."""
    message = str(error.args[0]) if error.args else ''
    name = re.search(r'\w+', message)
    near = re.search(r'Did you mean "(\w+)"', message)
    for flag in (a.partition('=')[0] for a in argv if a.startswith('--config.')):
        if isinstance(error, KeyError | AttributeError) and name and name[0] in flag.split('.'):
            hint = (
                f'did you mean {near[1]}?'
                if near
                else 'configs/common.py and the config have them all'
            )
            return f'{flag} is not a known key; {hint}'
    return None


def missing_file(argv: list[str], error: Exception) -> str | None:
    """What to say of a config file that is not there; None of another error."""
    found = re.search("No such file or directory: '(.*)'", str(error))
    if not found or not any(a.partition('=')[2].startswith(found[1]) for a in argv):
        return None
    known = [str(path) for path in Path('configs').glob('[!_]*.py') if path.stem != 'common']
    near = get_close_matches(found[1], known, 1)
    hint = f'did you mean {near[0]}?' if near else 'name one, such as configs/digits.py'
    return f'there is no config file {found[1]}; {hint}'


def last_line(error: Exception) -> str:
    """What went wrong, of a message in which ml_collections may quote a whole traceback."""
    text = re.sub(r'invalid literal for int.*: (.*)', r'\1 is no whole number', str(error))
    text = re.sub(r'could not convert string to float: (.*)', r'\1 is no number', text)
    lines = text.strip().splitlines() or [type(error).__name__]
    hint = '' if isinstance(error, flags.Error) else '; --debug shows where'
    return re.sub(r'^\w*(Error|Exception): ', '', lines[-1]) + hint


def main(argv: list[str]) -> int:
    # Here, so that --help and flags that are wrong answer at once.
    from trainers.processes import LOST_PROCESS, leave, lost_process

    try:
        status = run(argv)
    except Exception as error:
        if lost := lost_process(error):
            fail(lost)
            status = LOST_PROCESS
        else:
            traceback.print_exc()
            status = 1
    if status in (1, LOST_PROCESS):
        leave(status)
    return status


def run(argv: list[str]) -> int:
    """Does what the flags say; the exit status."""
    from trainers.construct import UserError
    from trainers.interrupt import Interrupted
    from trainers.launch import FLAG_MODES, check_flags, launch, launch_export
    from trainers.memory import keep_freed_memory
    from trainers.processes import hush_libtpu, join_processes, leave

    logging.set_verbosity(logging.WARNING)
    keep_freed_memory()
    if FLAGS.mode != 'plan':
        hush_libtpu()
    try:
        check_flags(FLAGS.mode, {name: FLAGS[name].value for name in FLAG_MODES}, argv[1:])
        if FLAGS.weights is not None:
            names = ('weights', 'mode', 'workdir', 'layer', 'tokens')
            launch_export(files=argv[1:], **{name: FLAGS[name].value for name in names})
            return 0
        if FLAGS.mode != 'plan':
            join_processes(FLAGS.coordinator_address, FLAGS.num_processes, FLAGS.process_id)
        names = ('mode', 'workdir', 'evaluator', 'topology', 'json', 'compilation_cache')
        names += ('layer', 'tokens')
        launch(FLAGS.config, files=argv[1:], **{name: FLAGS[name].value for name in names})
    except (UserError, OSError) as error:
        return fail(str(error))
    except KeyboardInterrupt:  # before training, or a second time
        leave(130)
        return 130
    except Interrupted as stop:
        return 128 + stop.signum
    return 0


if __name__ == '__main__':
    app.run(main, flags_parser=parse_flags)
