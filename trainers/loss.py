"""Losses by name: from logits and a batch to one float32 value an example."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from token_learner.checks import check_choice
from trainers.batch import Batch, labels_of

Loss = Callable[[Float[Array, 'b classes'], Batch], Float[Array, 'b']]


def softmax(*, label_smoothing: float) -> Loss:
    """Cross-entropy with a softmax, for one label an example."""

    def loss(logits: Float[Array, 'b classes'], batch: Batch) -> Float[Array, 'b']:
        targets = optax.smooth_labels(multi_hot(batch, logits.shape[-1]), label_smoothing)
        return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)

    return loss


def sigmoid(*, reduction: str) -> Loss:
    """Binary cross-entropy, the 'sum' or 'mean' over the classes, for any number of labels."""
    check_choice('reduction', reduction, ('sum', 'mean'))

    def loss(logits: Float[Array, 'b classes'], batch: Batch) -> Float[Array, 'b']:
        targets = multi_hot(batch, logits.shape[-1])
        each = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets)
        return each.mean(-1) if reduction == 'mean' else each.sum(-1)

    return loss


LOSSES: dict[str, Callable[..., Loss]] = {'softmax': softmax, 'sigmoid': sigmoid}

# What a model that was trained with a loss takes for the probabilities of the classes.
PROBABILITIES: dict[str, Callable[[Array], Array]] = {
    'softmax': jax.nn.softmax,
    'sigmoid': jax.nn.sigmoid,
}


def multi_hot(batch: Batch, num_classes: int) -> Float[Array, 'b classes']:
    """Targets from the labels of a batch."""

    def mark(own: Array) -> Array:
        # Out of the array instead of -1, which would be the last class.
        own = jnp.where(own < 0, num_classes, own)
        return jnp.zeros(num_classes).at[own].set(1.0, mode='drop')

    return jax.vmap(mark)(labels_of(batch))
