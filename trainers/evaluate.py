"""Evaluation on its own, of the newest checkpoint of a workdir."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.checkpoints import restore_trained
from trainers.evaluators import Evaluators
from trainers.experiment import Experiment
from trainers.metric_names import belongs
from trainers.metrics import Evaluator
from trainers.results import conditions
from trainers.workdir import read_json, write_json

log = logging.getLogger(__name__)


def evaluate(
    experiment: Experiment, evaluators: Evaluators, workdir: Path, name: str | None = None
) -> dict[str, Any]:
    """Runs one evaluator, or all of them, and writes eval.json.

    What other evaluators measured at the same step stays in it, if it was at the same resolution,
    frame rate and clip; else it is begun anew.

    Returns:
        What eval.json holds: the step, the conditions (see `trainers.results`), and for each metric
        its value and the number of examples.

    Raises:
        UserError: if there is no checkpoint.
        OSError: if data are missing, or more examples are unreadable than `config.reading` allows.
        RuntimeError: if an evaluation did not see every example exactly once.
    """
    chosen = [evaluators[name]] if name else evaluators.due(end=True)
    for evaluator in chosen:
        evaluator.check_data()
    state = restore_trained(workdir, experiment)
    step = int(state.step)
    metrics: dict[str, Any] = {}
    for evaluator in chosen:
        metrics |= {key: metric._asdict() for key, metric in evaluator(state, workdir).items()}
    for key, metric in metrics.items():
        log.info('step %d  %s %.5g  (n = %d)', step, key, metric['value'], metric['n'])
    path, about = workdir / 'eval.json', {'step': step, **conditions(experiment)}
    result = {**about, 'metrics': _of_others(path, about, chosen) | metrics}
    write_json(path, result)
    return result


def _of_others(
    path: Path, about: Mapping[str, Any], evaluators: Sequence[Evaluator]
) -> dict[str, Any]:
    """The metrics of a file that says the same about them, but those of the evaluators."""
    try:
        old = read_json(path)
        if old is None or {key: old[key] for key in about} != about:
            return {}
        return {
            name: metric
            for name, metric in old['metrics'].items()
            if not any(belongs(name, e.prefix, e.protocols) for e in evaluators)
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        log.warning('eval.json is begun anew: %s: %s', type(error).__name__, error)
        return {}
