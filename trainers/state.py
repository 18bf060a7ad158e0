"""The training state and its creation on the mesh."""

from functools import partial
from typing import Any

import flax
import jax
import jax.numpy as jnp

from trainers.experiment import Experiment
from trainers.sharding import infer_shardings


@flax.struct.dataclass
class TrainState:
    """All that changes from step to step.

    Attributes:
        step: [] int32, batches seen.
        skipped: [] int32, of them without an update, the loss or gradient not being finite.
        params: float32.
        ema: exponential moving average of params, see config.ema; None without one.
        mutable: other collections of the model; BatchNorm's running statistics, which are those
            that `params` had in training, with `ema` as well. Often empty.
        opt_state: of the optimizer.
        rng: key data from which step k's randomness is folded.
    """

    step: jax.Array
    skipped: jax.Array
    params: Any
    ema: Any
    mutable: Any
    opt_state: Any
    rng: jax.Array

    @property
    def variables(self) -> dict[str, Any]:
        """What the model is evaluated with: averaged parameters, where there are."""
        return {'params': self.params if self.ema is None else self.ema, **self.mutable}


def _begin(experiment: Experiment, variables: Any, key: jax.Array) -> TrainState:
    variables = dict(variables)
    variables.pop('intermediates', None)  # sown, not state
    params = variables.pop('params')
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        params=params,
        ema=params if experiment.ema else None,
        mutable=variables,
        opt_state=experiment.optimizer.init(params),
        rng=jax.random.key_data(key),
    )


def abstract_state(experiment: Experiment) -> TrainState:
    """Shapes, types and shardings of the state, without computing it."""
    key = jax.random.key(experiment.seed)
    shapes = jax.eval_shape(partial(_begin, experiment), experiment.abstract_variables, key)
    shardings = infer_shardings(shapes, experiment.mesh, experiment.sharding)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )


def create_state(experiment: Experiment) -> TrainState:
    """The state before the first step, each device computing its own part."""
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(experiment))

    def create() -> TrainState:
        init_key, train_key = jax.random.split(jax.random.key(experiment.seed))
        return _begin(experiment, experiment.init_variables(init_key), train_key)

    return jax.jit(create, out_shardings=shardings)()
