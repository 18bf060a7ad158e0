"""The train loop: from an experiment to checkpoints, metrics and results.json."""

import logging
import signal
from contextlib import ExitStack, closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
from clu import periodic_actions

from trainers.checkpoints import Checkpoints, open_checkpoints
from trainers.construct import UserError
from trainers.evaluators import Evaluators
from trainers.experiment import Experiment
from trainers.initialize import begin
from trainers.interrupt import Interrupted, StopSignals
from trainers.logs import Window, make_writer, was_logged
from trainers.metric_names import belongs
from trainers.metrics import Metrics, count_names
from trainers.prefetch import Prefetch
from trainers.processes import all_true, from_first, is_first
from trainers.profile import Profiles
from trainers.results import make_results, read_results
from trainers.state import TrainState
from trainers.step import make_train_step
from trainers.terminal import progress_bar
from trainers.workdir import log_changes, record_run, write_json

log = logging.getLogger(__name__)


def train(experiment: Experiment, evaluators: Evaluators, workdir: Path) -> dict[str, Any]:
    """Trains to the end, from the newest checkpoint if there is one.

    Args:
        experiment: what to train.
        evaluators: run now and then, and at the end.
        workdir: of checkpoints, metrics and results; may hold an earlier part of the run.

    Returns:
        The results, as in results.json.

    Raises:
        Interrupted: on SIGINT or SIGTERM, after a checkpoint.
        UserError: if the workdir's checkpoint does not fit the experiment or none is whole, the
            weights of `config.init_from` do not fit, the disk has too little room, the loss is not
            finite, or the last state cannot be saved.
        OSError: if more examples are unreadable than `config.reading` allows.
        RuntimeError: if an evaluation did not see every example exactly once.
    """
    total = experiment.total_steps
    with ExitStack() as stack:
        checkpoints = stack.enter_context(open_checkpoints(workdir, experiment))
        state = checkpoints.restore() or begin(experiment, workdir)
        start = int(state.step)
        if start > total:
            raise UserError(
                f'{workdir} is at step {start}, past total_steps={total}; '
                'use another --workdir, or more steps'
            )
        log_changes(workdir, experiment.config)
        results = read_results(workdir) if start == total else None
        if all_true(results is not None and results['steps'] == total) and results:
            log.info(
                'finished before, at step %d: nothing to do; use another --workdir for another run',
                total,
            )
            return results
        checkpoints.check_room(state, total)
        record_run(workdir, experiment.config)
        log.info('training %s from step %d to %d', experiment.model_settings['spec'], start, total)
        writer = stack.enter_context(closing(make_writer(workdir, start)))

        def evaluate(state: TrainState, step: int, *, end: bool = False) -> Metrics:
            metrics: Metrics = {}
            for evaluator in evaluators.due(end=end):
                metrics |= evaluator(state, workdir)
            scalars = {name: metric.value for name, metric in metrics.items()}
            scalars |= count_names(metrics)
            writer.write_scalars(step, scalars)
            writer.flush()
            log.info('step %d  %s', step, format_scalars(scalars))
            return metrics

        eval_every = experiment.eval_every_steps or total

        def evaluates(step: int) -> bool:
            return 0 < step < total and step % eval_every == 0

        if evaluates(start) and not was_evaluated(workdir, start, evaluators):
            evaluate(state, start)
        window = Window(experiment.batch_size)
        report = periodic_actions.ReportProgress(
            num_train_steps=total,
            writer=writer,
            every_steps=experiment.log_every_steps,
            every_secs=None,
        )
        read = stack.enter_context(closing(experiment.train_batches(start)))
        batches = Prefetch(islice(read, total - start), experiment.mesh)
        batch = batches.next()
        train_step = make_train_step(experiment)
        # Compiled here, not at the first log.
        learning_rate = jax.jit(experiment.schedule).lower(0).compile()
        profiles = stack.enter_context(Profiles(workdir / 'tensorboard'))
        bar = stack.enter_context(progress_bar(start, total))
        with StopSignals() as signals:
            for step in range(start + 1, total + 1):
                state, sums = train_step(state, batch)
                batch = batches.next(sums)
                window.add(step, sums, batches.waited_s)
                bar.update()
                profiles.step(sums)
                stop = signals.at(step)
                logs = step % experiment.log_every_steps == 0 or step == total
                saves = checkpoints.due(step) or step == total or stop
                if logs or saves:
                    check_finite(window.skipped(), experiment, checkpoints, workdir)
                if logs:
                    scalars = window.fetch()
                    updates = step - int(state.skipped)
                    scalars['train/learning_rate'] = float(learning_rate(updates - 1))
                    writer.write_scalars(step, scalars)
                    log.info('step %d  %s', step, format_scalars(scalars))
                report(step)  # after the fetch, which waits for the device
                if stop:
                    log.info('%s: saving, then stopping', signal.Signals(stop).name)
                if saves:
                    writer.flush()
                    checkpoints.save(step, state)
                    window.pause()
                if stop:
                    checkpoints.finish()
                    raise Interrupted(stop)
                if evaluates(step):  # after the save: an evaluation may take long
                    evaluate(state, step)
                    window.pause()
            metrics = evaluate(state, total, end=True)
            checkpoints.finish()
        split, skipped = evaluators.first.split, int(state.skipped)
        results = make_results(experiment, split, metrics, skipped, window.examples_per_s)
        write_json(workdir / 'results.json', results)
    return results


def was_evaluated(workdir: Path, step: int, evaluators: Evaluators) -> bool:
    """Whether an earlier part of the run evaluated this step; all processes must ask.

    It did not where it was to stop there, or was ended before the evaluation was done.
    """
    first = evaluators.first
    of_first = partial(belongs, prefix=first.prefix, protocols=first.protocols)
    (logged,) = from_first([was_logged(workdir, step, of_first)])
    return bool(logged)


def check_finite(
    skipped: list[int], experiment: Experiment, checkpoints: Checkpoints, workdir: Path
) -> None:
    """Stops a run, or says so, where updates were left out: their loss or gradient is not finite.

    Raises:
        UserError: with `config.nonfinite='stop'`. The ids of the first such batch are written to
            nonfinite.json.
    """
    if not skipped:
        return
    if experiment.nonfinite == 'skip':
        log.warning('no update at steps %s: the loss or gradient was not finite', skipped)
        return
    message = (
        f'the loss or gradient is not finite at step {skipped[0]}, the newest checkpoint is of '
        f'step {checkpoints.latest()}; '
    )
    if is_first():
        path = workdir / 'nonfinite.json'
        try:
            ids = experiment.train_ids(skipped[0])
            write_json(path, {'step': skipped[0], 'ids': ids})
            message += f'the examples ({ids[0]} and {len(ids) - 1} more) are in {path}; '
        except OSError as error:
            message += f'its examples cannot be told ({error}); '
    message += 'lower the learning rate, clip more, or set --config.nonfinite=skip'
    try:
        checkpoints.finish()
    except UserError as error:
        message += f'; besides, {error}'
    raise UserError(message)


def format_scalars(scalars: dict[str, float]) -> str:
    """Names and values on one line."""
    shown = {k.removeprefix('train/'): v for k, v in scalars.items() if '_seed' not in k}
    return '  '.join(f'{name} {value:.5g}' for name, value in shown.items())
