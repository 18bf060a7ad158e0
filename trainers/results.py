"""results.json: what a finished run measured, and on how many examples."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trainers.evaluators import Metrics
from trainers.experiment import Experiment

Results = dict[str, Any]


def read_results(workdir: Path) -> Results | None:
    """The results of a finished run, or None."""
    path = workdir / 'results.json'
    return json.loads(path.read_text()) if path.exists() else None


def make_results(
    experiment: Experiment, split: str, metrics: Metrics, examples_per_s: float | None
) -> Results:
    """Puts the results of a run together; `split` is that of the first evaluator."""
    params = experiment.abstract_variables()['params']
    return {
        'spec': experiment.model_settings['spec'],
        'model': dict(experiment.model_settings),
        'dataset': experiment.data.dataset.name,
        'split': split,
        'train_split': experiment.data.split,
        'resolution': experiment.data.resolution,
        'seed': experiment.seed,
        'batch_size': experiment.batch_size,
        'steps': experiment.total_steps,
        'metrics': {name: metric._asdict() for name, metric in metrics.items()},
        'params': sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params)),
        'gflops': count_gflops(experiment),
        'examples_per_s': examples_per_s,
    }


def count_gflops(experiment: Experiment) -> float:
    """GFLOPs of one image through the model, as the paper's ViT tables count them.

    Half of XLA's count for the program before optimisation: a multiply-add is 1, another
    elementwise operation 1/2, batch 1.
    """
    variables = experiment.abstract_variables()
    images = jax.ShapeDtypeStruct((1, *experiment.data.image_shape), jnp.float32)
    lowered = jax.jit(experiment.model.clone(scan=False).apply).lower(variables, images)
    analysis: Any = lowered.cost_analysis()
    return analysis['flops'] / 2e9
