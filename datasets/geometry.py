"""Geometry on the host: from an image of any size to the size the model takes, in uint8.

What is random in it draws from `np.random.default_rng(seed)`. What changes pixels in place (warps,
colours, normalisation) runs on the device, in `trainers.augment`.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

Geometry = Callable[[np.ndarray, Sequence[int]], np.ndarray]  # of an image and a seed


class Resize:
    """The whole image, resized to a square; an image of that size stays as it is."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """Maps [h, w, channels] uint8 to [size, size, channels] uint8."""
        del seed
        if image.shape[:2] == (self.size, self.size):
            return image
        planes = [
            Image.fromarray(image[..., i]).resize((self.size,) * 2, Image.Resampling.BILINEAR)
            for i in range(image.shape[-1])
        ]
        return np.stack([np.asarray(p) for p in planes], axis=-1)


GEOMETRIES: dict[str, Callable[..., Geometry]] = {'resize': Resize}
