"""The train loop: from an experiment to checkpoints, metrics and results.json."""

import logging
from pathlib import Path
from typing import Any

from clu import periodic_actions
from ml_collections import ConfigDict
from tqdm import tqdm

from datasets.pipeline import train_batches
from trainers.checkpoints import Checkpoints
from trainers.construct import UserError, construct
from trainers.evaluators import Evaluators, Metrics
from trainers.experiment import Experiment
from trainers.interrupt import Interrupted, StopSignals
from trainers.logs import Window, make_writer
from trainers.results import make_results, read_results
from trainers.sharding import put_batch
from trainers.state import TrainState, create_state
from trainers.step import make_train_step
from trainers.workdir import record_run, write_json

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
    with construct(
        Checkpoints,
        experiment.checkpoint,
        'config.checkpoint',
        workdir=workdir,
        experiment=experiment,
    ) as checkpoints:
        state = checkpoints.restore() or create_state(experiment)
        start = int(state.step)
        if start > total:
            raise UserError(
                f'{workdir} is at step {start}, past total_steps={total}; '
                'use another --workdir, or more steps'
            )
        if start == total and (results := read_results(workdir)) is not None:
            log.info('finished before, at step %d: nothing to do', total)
            return results
        record_run(workdir, config)
        log.info('training %s from step %d to %d', experiment.model_settings['spec'], start, total)
        writer = make_writer(workdir, start)

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
            num_train_steps=total, writer=writer, every_steps=experiment.log_every_steps
        )
        batches = train_batches(
            experiment.data.dataset.split(experiment.data.split),
            experiment.train_geometry,
            batch_size=experiment.batch_size,
            seed=experiment.seed,
            start_step=start,
            reading=experiment.reading,
        )
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
                report(step)  # after the fetch, which waits for the device
                if step < total and step % (experiment.eval_every_steps or total) == 0:
                    evaluate(state, step)
                    window.pause()
                if checkpoints.due(step) or step == total or stop.received:
                    checkpoints.save(step, state)
                    window.pause()
                if stop.received:
                    raise Interrupted(stop.received)
        metrics = evaluate(state, total)
        split = next(iter(evaluators.values())).split
        results = make_results(experiment, split, metrics, window.examples_per_s)
        write_json(workdir / 'results.json', results)
        writer.close()
    return results


def format_scalars(scalars: dict[str, float]) -> str:
    """Names and values on one line."""
    return '  '.join(f'{k.removeprefix("train/")} {v:.5g}' for k, v in scalars.items())
