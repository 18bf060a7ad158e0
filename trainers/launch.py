"""From a config and a mode to the work."""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from trainers.checks import check_data, check_model
from trainers.construct import UserError
from trainers.evaluate import evaluate
from trainers.evaluators import make_evaluators
from trainers.experiment import make_experiment
from trainers.export import export
from trainers.predict import predict, predict_files
from trainers.processes import is_multiprocess
from trainers.terminal import log_to_terminal
from trainers.workdir import open_workdir

_MODES = ('train', 'eval', 'predict', 'visualize', 'export')  # that have a workdir

# The modes that take a flag: with a config, and with --weights. All take those that are not here.
FLAG_MODES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'weights': ((), ('predict', 'visualize')),
    'config': ((*_MODES, 'plan'), ()),
    'workdir': (_MODES, ('visualize',)),
    'evaluator': (('eval',), ()),
    'layer': (('visualize',), ('visualize',)),
    'tokens': (('visualize',), ('visualize',)),
    'topology': (('plan',), ()),
    'json': (('plan',), ()),
    'compilation_cache': ((*_MODES, 'plan'), ()),
    'coordinator_address': (('train', 'eval'), ()),
    'num_processes': (('train', 'eval'), ()),
    'process_id': (('train', 'eval'), ()),
}


def check_flags(mode: str, flags: Mapping[str, Any], files: Sequence[str] = ()) -> None:
    """Refuses what would do nothing.

    Args:
        mode: of main.py.
        flags: values of those of `FLAG_MODES`, None where they are not given.
        files: behind the flags.

    Raises:
        UserError: if a flag is not of this mode, or there are files and they are not.
    """
    of_weights = flags['weights'] is not None
    for name, value in flags.items():
        modes = FLAG_MODES[name][of_weights]
        if value is not None and mode not in modes:
            beside = ' beside --weights' if of_weights and name != 'weights' else ''
            where = f'in --mode={mode}{beside}' if modes else beside.lstrip()
            hint = f', or use --mode={" or ".join(modes)}' if modes else ''
            raise UserError(f'--{name} does nothing {where}; leave it out{hint}')
    if files and not of_weights and mode != 'visualize':
        raise UserError(
            f'{files[0]!r} is not a flag; write --flag=value (files go with --weights, or with '
            '--mode=visualize)'
        )


def launch(
    config: ConfigDict,
    mode: str,
    workdir: str | None = None,
    evaluator: str | None = None,
    topology: str | None = None,
    json: str | None = None,
    compilation_cache: str | None = None,
    layer: str | None = None,
    tokens: int | None = None,
    files: Sequence[str] = (),
) -> None:
    """Does one mode of main.py; the arguments are its flags, and the files behind them.

    `check_flags` has refused those that the mode does not take.

    Raises:
        UserError: if the input cannot be used, or a plan does not fit.
        Interrupted: if training was stopped by a signal.
    """
    if compilation_cache is not None:  # all processes may share it
        jax.config.update('jax_compilation_cache_dir', compilation_cache)
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    if mode == 'plan':
        from trainers.plan import plan  # jax's backend starts with the topology

        if topology is None:
            raise UserError('--mode=plan needs --topology, such as v5e:16x16 or cpu:8')
        log_to_terminal()
        plan(config, topology, Path(json) if json else None)
        return
    if workdir is None:
        raise UserError(f'--mode={mode} needs --workdir')
    if '://' in workdir:
        raise UserError(f'--workdir={workdir} is no folder; mount the bucket, and name the folder')
    log_to_terminal()
    if is_multiprocess() and mode not in ('train', 'eval'):
        raise UserError(f'--mode={mode} is for one process; start one')
    if is_multiprocess() and mode != 'train':
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # jax only notes it, for `StopSignals`
    experiment = make_experiment(config)
    check_model(experiment)
    evaluators = make_evaluators(experiment, evaluator)
    folder = Path(workdir)
    if mode == 'train':
        from trainers.train import train  # TensorFlow, behind clu's writers, is slow to load

        check_data(experiment, evaluators)
        train(experiment, evaluators, open_workdir(folder))
    elif mode == 'eval':
        evaluate(experiment, evaluators, folder, evaluator)
    elif mode == 'predict':
        predict(experiment, evaluators, folder)
    elif mode == 'export':
        export(experiment, folder)
    else:
        from trainers.visualize import visualize  # matplotlib is slow to load

        paths = [Path(name) for name in files]
        visualize(experiment, evaluators, folder, paths, layer=layer, tokens=tokens)


def launch_export(
    weights: str,
    mode: str,
    files: Sequence[str],
    workdir: str | None = None,
    layer: str | None = None,
    tokens: int | None = None,
) -> None:
    """Does a mode of main.py with exported weights and files.

    With `predict` it prints the likeliest classes of images, with `visualize` it draws where the
    tokens look, into the workdir or else the current folder.

    Raises:
        UserError: if there are no files, or one cannot be read.
    """
    if not files:
        raise UserError('--weights needs files; name them behind the flags')
    paths = [Path(name) for name in files]
    if mode == 'visualize':
        from trainers.visualize import visualize_export  # matplotlib is slow to load

        log_to_terminal()
        folder = open_workdir(Path(workdir or '.'))
        visualize_export(Path(weights), paths, folder, layer=layer, tokens=tokens)
        return
    for path, found in predict_files(Path(weights), paths):
        print(path)
        for name, probability in found.items():
            print(f'  {probability:7.2%}  {name}')
