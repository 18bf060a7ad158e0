"""What the device does to images before the model sees them, inside the jitted step."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

Preprocess = Callable[[UInt8[Array, 'b h w c']], Float[Array, 'b h w c']]


def normalizer(mean: float, std: float) -> Preprocess:
    """From uint8 pixels to (pixel / 255 - mean) / std in float32."""

    def normalize(images: UInt8[Array, 'b h w c']) -> Float[Array, 'b h w c']:
        return (images.astype(jnp.float32) / 255 - mean) / std

    return normalize
