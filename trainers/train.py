"""The train loop: from an experiment to checkpoints, metrics and results.json."""

import logging
import math
import signal
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from clu import periodic_actions
from ml_collections import ConfigDict
from tqdm import tqdm

from trainers.checkpoints import Checkpoints, open_checkpoints
from trainers.construct import UserError
from trainers.evaluators import Evaluators, Metrics
from trainers.experiment import Experiment
from trainers.interrupt import Interrupted, StopSignals
from trainers.logs import Window, make_writer
from trainers.results import make_results, read_results
from trainers.sharding import put_batch
from trainers.state import TrainState, create_state
from trainers.step import make_train_step
from trainers.workdir import log_changes, record_run, write_json

log = logging.getLogger(__name__)


def train(
    experiment: Experiment, evaluators: Evaluators, workdir: Path, config: ConfigDict
) -> dict[str, Any]:
    """Trains to the end, from the newest checkpoint if there is one.

    Args:
        experiment: what to train.
        evaluators: run now and then, and at the end.
        workdir: of checkpoints, metrics and results; may hold an earlier part of the run.
        config: that the experiment was made from, for the record.

    Returns:
        The results, as in results.json.

    Raises:
        Interrupted: on SIGINT or SIGTERM, after a checkpoint.
        UserError: if the workdir's checkpoint does not fit the experiment.
    """
    total = experiment.total_steps
    with ExitStack() as stack:
        checkpoints = stack.enter_context(open_checkpoints(workdir, experiment))
        state = checkpoints.restore() or create_state(experiment)
        start = int(state.step)
        if start > total:
            raise UserError(
                f'{workdir} is at step {start}, past total_steps={total}; '
                'use another --workdir, or more steps'
            )
        log_changes(workdir, config)
        results = read_results(workdir)
        if start == total and results is not None and results['steps'] == total:
            log.info('finished before, at step %d: nothing to do', total)
            return results
        record_run(workdir, config)
        log.info('training %s from step %d to %d', experiment.model_settings['spec'], start, total)
        writer = stack.enter_context(closing(make_writer(workdir, start)))

        def evaluate(state: TrainState, step: int) -> Metrics:
            metrics: Metrics = {}
            for evaluator in evaluators.values():
                metrics |= evaluator(state)
            scalars = {name: metric.value for name, metric in metrics.items()}
            counts = {f'{name.rpartition("/")[0]}/n': metric.n for name, metric in metrics.items()}
            writer.write_scalars(step, scalars | counts)
            log.info('step %d  %s', step, format_scalars(scalars | counts))
            return metrics

        window = Window(experiment.batch_size)
        report = periodic_actions.ReportProgress(
            num_train_steps=total,
            writer=writer,
            every_steps=experiment.log_every_steps,
            every_secs=None,
        )
        batches = stack.enter_context(closing(experiment.train_batches(start)))
        train_step = make_train_step(experiment)
        with StopSignals() as stop, tqdm(total=total, initial=start, disable=None) as bar:
            for step in range(start + 1, total + 1):
                state, sums = train_step(state, put_batch(next(batches), experiment.mesh))
                window.add(sums)
                bar.update()
                if step % experiment.log_every_steps == 0 or step == total:
                    scalars = window.fetch()
                    scalars['train/learning_rate'] = float(experiment.schedule(step - 1))
                    writer.write_scalars(step, scalars)
                    log.info('step %d  %s', step, format_scalars(scalars))
                    check_finite(scalars['train/loss'], step, checkpoints)
                report(step)  # after the fetch, which waits for the device
                if step < total and step % (experiment.eval_every_steps or total) == 0:
                    evaluate(state, step)
                    window.pause()
                if stop.received:
                    log.info('%s: saving, then stopping', signal.Signals(stop.received).name)
                if checkpoints.due(step) or step == total or stop.received:
                    writer.flush()  # what a checkpoint stands for is on disk before it
                    checkpoints.save(step, state)
                    window.pause()
                if stop.received:
                    raise Interrupted(stop.received)
        metrics = evaluate(state, total)
        split = next(iter(evaluators.values())).split
        results = make_results(experiment, split, metrics, window.examples_per_s)
        write_json(workdir / 'results.json', results)
    return results


def check_finite(loss: float, step: int, checkpoints: Checkpoints) -> None:
    """Raises UserError where a run has diverged."""
    if not math.isfinite(loss):
        raise UserError(
            f'the loss is {loss} at step {step}, the newest checkpoint is of step '
            f'{checkpoints.latest()}; lower the learning rate or clip more'
        )


def format_scalars(scalars: dict[str, float]) -> str:
    """Names and values on one line."""
    return '  '.join(f'{k.removeprefix("train/")} {v:.5g}' for k, v in scalars.items())
