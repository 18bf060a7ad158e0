"""results.json: what a finished run measured, and on how many examples."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from token_learner.build import build_countable
from token_learner.counting import Cost, count
from trainers.experiment import Experiment
from trainers.metrics import Metrics
from trainers.workdir import read_json

Results = dict[str, Any]


def read_results(workdir: Path) -> Results | None:
    """The results of a finished run, or None.

    Raises:
        UserError: if results.json is damaged.
    """
    results: Results | None = read_json(workdir / 'results.json')
    return results


def make_results(
    experiment: Experiment,
    split: str,
    metrics: Metrics,
    skipped_steps: int,
    examples_per_s: float | None,
) -> Results:
    """Puts the results of a run together.

    Args:
        experiment: that was run.
        split: of the first evaluator.
        metrics: at the end.
        skipped_steps: without an update, as the loss or gradient was not finite.
        examples_per_s: of training, over all processes.
    """
    cost = count_example(experiment)
    return {
        'spec': experiment.model_settings['spec'],
        'model': dict(experiment.model_settings),
        'dataset': experiment.data.dataset.name,
        'split': split,
        'train_split': experiment.data.split,
        'resolution': experiment.data.resolution,
        **conditions(experiment),
        'seed': experiment.seed,
        'batch_size': experiment.batch_size,
        'steps': experiment.total_steps,
        'skipped_steps': skipped_steps,
        'metrics': {name: metric._asdict() for name, metric in metrics.items()},
        'params': cost.params,
        'gflops': cost.gflops,
        'examples_per_s': examples_per_s,
    }


def conditions(experiment: Experiment) -> dict[str, Any]:
    """What the names of metrics do not say of how they are measured."""
    return {
        'eval_resolution': experiment.data.eval_resolution,
        'clip': None if experiment.clip is None else asdict(experiment.clip),
        'fps': experiment.data.dataset.fps,
    }


def count_example(experiment: Experiment) -> Cost:
    """Parameters and operations for one image or clip, see `token_learner.counting`."""
    model = build_countable(experiment.model_settings, len(experiment.data.dataset.label_names))
    images = jax.ShapeDtypeStruct((1, *experiment.input_shape), jnp.float32)
    return count(model, images)['']
