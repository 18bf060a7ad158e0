"""The train step: one jitted function over the mesh."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from trainers.experiment import Experiment
from trainers.loss import Batch
from trainers.sharding import batch_sharding, replicated
from trainers.state import TrainState, abstract_state

# Sums over examples and the number of examples, so that metrics of many steps merge.
Sums = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Sums]]


def train_step(experiment: Experiment, state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
    """One update: gradient of the mean loss over the unmasked examples of the global batch."""
    mask = batch['mask']
    images = experiment.data.preprocess(batch['image'])
    dropout = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)

    def mean_loss(params: Any) -> tuple[jax.Array, Any]:
        logits, mutable = experiment.apply(
            {'params': params, **state.mutable},
            images,
            train=True,
            rngs={'dropout': dropout},
            mutable=list(state.mutable),
        )
        losses = experiment.loss(logits, batch)
        return jnp.sum(losses * mask) / jnp.sum(mask), (mutable, losses)

    (_, (mutable, losses)), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    updates, opt_state = experiment.optimizer.update(grads, state.opt_state, state.params)
    n = jnp.sum(mask)
    sums = {
        'n': n,
        'loss': jnp.sum(losses * mask),
        'gradient_norm': n * optax.tree.norm(grads),
    }
    new_state = dataclasses.replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        mutable=mutable,
        opt_state=opt_state,
    )
    return new_state, sums


def make_train_step(experiment: Experiment) -> TrainStep:
    """The step, compiled for the mesh; the old state's memory is given to the new one."""
    state = jax.tree.map(lambda x: x.sharding, abstract_state(experiment))
    return jax.jit(
        lambda state, batch: train_step(experiment, state, batch),
        in_shardings=(state, batch_sharding(experiment.mesh)),
        out_shardings=(state, replicated(experiment.mesh)),
        donate_argnums=0,
    )
