"""Optax recipes and learning rate schedules by name."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from token_learner.checks import check_choice


def cosine(
    *,
    learning_rate: float,
    end_learning_rate: float,
    warmup_epochs: float,
    total_steps: int,
    steps_per_epoch: float,
) -> optax.Schedule:
    """Warm-up, then half a cosine down to the end's learning rate.

    Raises:
        ValueError: if a rate is not possible, or the warm-up is as long as the training.
    """
    _check_rates(learning_rate, end_learning_rate)
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
    share = end_learning_rate / learning_rate
    rest = optax.cosine_decay_schedule(learning_rate, total_steps - warmup, share)
    return _after_warmup(rest, learning_rate, warmup)


def linear(
    *,
    learning_rate: float,
    end_learning_rate: float,
    warmup_epochs: float,
    total_steps: int,
    steps_per_epoch: float,
) -> optax.Schedule:
    """Warm-up, then linearly down to the end's learning rate.

    Raises:
        ValueError: as `cosine`.
    """
    _check_rates(learning_rate, end_learning_rate)
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
    rest = optax.linear_schedule(learning_rate, end_learning_rate, total_steps - warmup)
    return _after_warmup(rest, learning_rate, warmup)


def adamw(
    schedule: optax.Schedule,
    *,
    b1: float,
    b2: float,
    weight_decay: float,
    decayed: str,
    clip_norm: float,
) -> optax.GradientTransformation:
    """AdamW; the gradient's global norm is cut to clip_norm, unless that is 0.

    Raises:
        ValueError: if a value is not possible.
    """
    _check_averaging(b1=b1, b2=b2)
    _check_not_negative(weight_decay=weight_decay, clip_norm=clip_norm)
    step = optax.adamw(schedule, b1, b2, weight_decay=weight_decay, mask=_mask(decayed))
    return optax.chain(_clip(clip_norm), step)


def momentum(
    schedule: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    decayed: str,
    clip_norm: float,
) -> optax.GradientTransformation:
    """SGD with momentum; weight decay is added to the clipped gradient.

    Raises:
        ValueError: if a value is not possible.
    """
    _check_averaging(momentum=momentum)
    _check_not_negative(weight_decay=weight_decay, clip_norm=clip_norm)
    decay = optax.add_decayed_weights(weight_decay, mask=_mask(decayed))
    return optax.chain(_clip(clip_norm), decay, optax.sgd(schedule, momentum))


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {'cosine': cosine, 'linear': linear}
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    'adamw': adamw,
    'momentum': momentum,
}


def kernels(params: Any) -> Any:
    """True at kernels; not at biases, norms and embeddings."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def _check_rates(learning_rate: float, end_learning_rate: float) -> None:
    if not learning_rate > 0:
        raise ValueError(f'learning_rate={learning_rate} is too small; use more than 0')
    _check_not_negative(end_learning_rate=end_learning_rate)


def _check_averaging(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f'{name}={value} is no decay; use 0 or more and less than 1')


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f'{name}={value} is not possible; use 0 or more')


def _mask(decayed: str) -> Callable[[Any], Any] | None:
    check_choice('decayed', decayed, ('kernels', 'all'))
    return kernels if decayed == 'kernels' else None


def _clip(norm: float) -> optax.GradientTransformation:
    return optax.clip_by_global_norm(norm) if norm else optax.identity()


def _warmup_steps(warmup_epochs: float, steps_per_epoch: float, total_steps: int) -> int:
    steps = round(warmup_epochs * steps_per_epoch)
    if not 0 <= steps < total_steps:
        raise ValueError(
            f'warmup_epochs={warmup_epochs} are {steps} of {total_steps} steps; '
            'use fewer, or train longer'
        )
    return steps


def _after_warmup(rest: optax.Schedule, learning_rate: float, warmup: int) -> optax.Schedule:
    """A linear rise from 0 to the learning rate, then another schedule."""
    rise = optax.linear_schedule(0.0, learning_rate, warmup)
    return optax.join_schedules([rise, rest], [warmup])
