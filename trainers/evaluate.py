"""Evaluation on its own, of the newest checkpoint of a workdir."""

import logging
from pathlib import Path
from typing import Any

from trainers.checkpoints import restore_trained
from trainers.evaluators import Evaluators
from trainers.experiment import Experiment
from trainers.workdir import write_json

log = logging.getLogger(__name__)


def evaluate(
    experiment: Experiment, evaluators: Evaluators, workdir: Path, name: str | None = None
) -> dict[str, Any]:
    """Runs one evaluator, or all of them, and writes eval.json.

    Returns:
        The step, and for each metric its value and the number of examples.

    Raises:
        UserError: if there is no checkpoint.
    """
    chosen = [evaluators[name]] if name else evaluators.due(end=True)
    for evaluator in chosen:
        evaluator.check_data()
    state = restore_trained(workdir, experiment)
    metrics: dict[str, Any] = {}
    for evaluator in chosen:
        metrics |= {key: metric._asdict() for key, metric in evaluator(state).items()}
    for key, metric in metrics.items():
        log.info('step %d  %s %.5g  (n = %d)', state.step, key, metric['value'], metric['n'])
    result = {'step': int(state.step), 'metrics': metrics}
    write_json(workdir / 'eval.json', result)
    return result
