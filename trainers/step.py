"""The train step: one jitted function over the mesh."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from trainers.batch import Batch, pixels_of
from trainers.experiment import Experiment
from trainers.mixup import draw_ratio, mix
from trainers.sharding import batch_sharding, replicated
from trainers.state import TrainState, abstract_state

# Sums over examples and the number of examples, so that metrics of many steps merge.
Sums = dict[str, jax.Array]


def train_step(experiment: Experiment, state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
    """One update: gradient of the mean loss over the unmasked examples of the global batch.

    Where the loss or the gradient is not finite, the update is left out and counted: the state
    stays what it was, but for the number of the step.
    """
    n = jnp.sum(batch['mask'])
    loss, grads, mutable = _gradient(experiment, state, batch, n)
    updates, opt_state = experiment.optimizer.update(grads, state.opt_state, state.params)
    norm = optax.tree.norm(grads)
    good = jnp.isfinite(loss) & jnp.isfinite(norm)

    def if_good(new: Any, old: Any) -> Any:
        return jax.tree.map(partial(jnp.where, good), new, old)

    sums = {
        'n': jnp.where(good, n, 0.0),
        'loss': jnp.where(good, n * loss, 0.0),
        'gradient_norm': jnp.where(good, n * norm, 0.0),
        'skipped': 1 - good.astype(jnp.int32),
    }
    params = if_good(optax.apply_updates(state.params, updates), state.params)
    decay, ema = experiment.ema, None
    if decay:
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)
    new_state = dataclasses.replace(
        state,
        step=state.step + 1,
        skipped=state.skipped + sums['skipped'],
        params=params,
        ema=if_good(ema, state.ema),
        mutable=if_good(mutable, state.mutable),
        opt_state=if_good(opt_state, state.opt_state),
    )
    return new_state, sums


def _gradient(
    experiment: Experiment, state: TrainState, batch: Batch, n: jax.Array
) -> tuple[jax.Array, Any, Any]:
    """Mean loss, its gradient and the mutable collections, one microbatch after the other."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    key, augment_key, mixup_key = jax.random.split(key, 3)
    ratio = draw_ratio(mixup_key, experiment.mixup) if experiment.mixup else None
    # An example's own key follows from its place in the global batch, whoever has read it, and from
    # the step, which was folded into `key`.
    keys = jax.vmap(partial(jax.random.fold_in, augment_key))(batch['place'])
    batch = {**batch, 'key': keys}
    share = partial(_share_of_loss, experiment, n=n, ratio=ratio)
    gradient = jax.value_and_grad(share, has_aux=True)
    parts = experiment.microbatches
    if parts == 1:
        (loss, mutable), grads = gradient(state.params, state.mutable, batch, key)
        return loss, grads, mutable
    # Each device's examples are spread over the microbatches, so that none has to move.
    micro = {k: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0) for k, x in batch.items()}
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(experiment).params)

    def add(total: Any, xs: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        *sums, mutable = total
        (loss, mutable), grads = gradient(
            state.params, mutable, xs[0], jax.random.fold_in(key, xs[1])
        )
        loss, grads = jax.tree.map(jnp.add, tuple(sums), (loss, grads))
        return (loss, jax.lax.with_sharding_constraint(grads, shardings), mutable), None

    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params), state.mutable)
    total, _ = jax.lax.scan(add, zero, (micro, jnp.arange(parts)))
    return total


def _share_of_loss(
    experiment: Experiment,
    params: Any,
    mutable: Any,
    batch: Batch,
    key: jax.Array,
    *,
    n: jax.Array,
    ratio: jax.Array | None,
) -> tuple[jax.Array, Any]:
    """What a microbatch adds to the mean loss over n examples."""
    images, loss = experiment.preprocess(pixels_of(batch), batch['key']), experiment.loss
    if ratio is not None:
        images, loss = mix(images, loss, batch['mask'], ratio, experiment.reading.shares)
    # Statistics of a batch do not count what is masked; models without them do not take a mask.
    counted = {'mask': batch['mask'].astype(bool)} if mutable else {}
    logits, mutable = experiment.apply(
        {'params': params, **mutable},
        images,
        **counted,
        train=True,
        rngs={'dropout': key},
        mutable=list(mutable),
    )
    return jnp.sum(loss(logits, batch) * batch['mask']) / n, mutable


def make_train_step(experiment: Experiment) -> jax.stages.Wrapped:
    """The step, compiled for the mesh; the old state's memory is given to the new one."""
    state = jax.tree.map(lambda x: x.sharding, abstract_state(experiment))
    return jax.jit(
        lambda state, batch: train_step(experiment, state, batch),
        in_shardings=(state, batch_sharding(experiment.mesh)),
        out_shardings=(state, replicated(experiment.mesh)),
        donate_argnums=0,
    )
