"""Mixup (Zhang et al., arXiv:1710.09412): pairs of images, and of losses, in one ratio a batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from trainers.batch import Batch
from trainers.loss import Loss


def check_mixup(alpha: float, batch_size: int, microbatches: int, shares: int) -> None:
    """Raises ValueError if batches cannot be mixed so; 0 does not mix."""
    if alpha < 0:
        raise ValueError(f'mixup={alpha} is negative; use 0 (none) or the alpha of a Beta')
    if alpha and batch_size % (2 * microbatches * shares):
        raise ValueError(
            f'mixup pairs the halves of a batch, which batch_size={batch_size}, {microbatches} '
            f'microbatches and {shares} shares do not leave; use a multiple of '
            f'{2 * microbatches * shares}'
        )


def draw_ratio(key: Key[Array, ''], alpha: float) -> Float[Array, '']:
    """The share of an image in its mixture, at least a half: Beta(alpha, alpha), folded."""
    ratio = jax.random.beta(key, alpha, alpha)
    return jnp.maximum(ratio, 1 - ratio)


def mix(
    images: Float[Array, 'b *t h w c'],
    loss: Loss,
    mask: Float[Array, 'b'],
    ratio: Float[Array, ''],
    shares: int,
) -> tuple[Float[Array, 'b *t h w c'], Loss]:
    """Mixes each image with the one half a batch away, which mixes with it.

    The half is of each share, so that where the rows of a process lie next to each other no image
    leaves it, and the pairs are the same for any number of such processes, and of microbatches. An
    image whose partner is masked stays as it is. The losses that the recipes use are linear in the
    targets: the loss of mixed targets is the mixed loss.

    Args:
        images: or clips, of a batch or microbatch.
        loss: of unmixed images.
        mask: 0 where there is no image.
        ratio: of the image in its mixture.
        shares: of the processes, that the batch is put together from.

    Returns:
        The mixtures and their loss.
    """

    def partner(x: Array) -> Array:
        parts = x.reshape(shares, -1, *x.shape[1:])
        return jnp.roll(parts, parts.shape[1] // 2, axis=1).reshape(x.shape)

    own = jnp.where(partner(mask) > 0, ratio, 1.0)
    wide = own.reshape(-1, *[1] * (images.ndim - 1))

    def mixed(logits: Float[Array, 'b classes'], batch: Batch) -> Float[Array, 'b']:
        read = ('label', 'labels', 'image', 'video')
        other = {key: partner(batch[key]) for key in read if key in batch}
        return own * loss(logits, batch) + (1 - own) * loss(logits, other)

    return wide * images + (1 - wide) * partner(images), mixed
