"""Geometry on the host: from an image of any size to the size the model takes, in uint8.

What changes colours and values (normalisation, mixup) runs on the device, in
`trainers.augment`.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

Geometry = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def warp(image: np.ndarray, matrix: tuple[float, ...], size: int) -> np.ndarray:
    """Samples an image bilinearly, 0 outside it.

    Args:
        image: [h, w, channels] uint8.
        matrix: (a, b, c, d, e, f): the output's pixel (x, y) comes from the input's
            (a x + b y + c, d x + e y + f), in pixels from the upper left corner.
        size: side of the output, pixels.

    Returns:
        [size, size, channels] uint8.
    """
    planes = [
        Image.fromarray(image[..., i]).transform(
            (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )
        for i in range(image.shape[-1])
    ]
    return np.stack([np.asarray(p) for p in planes], axis=-1)


class Resize:
    """The whole image, resized to a square; an image of that size stays as it is."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Maps [h, w, channels] uint8 to [size, size, channels] uint8."""
        del rng
        if image.shape[:2] == (self.size, self.size):
            return image
        planes = [
            Image.fromarray(image[..., i]).resize((self.size,) * 2, Image.Resampling.BILINEAR)
            for i in range(image.shape[-1])
        ]
        return np.stack([np.asarray(p) for p in planes], axis=-1)


class Affine:
    """A random rotation, scale and shift about the centre, resized to a square.

    Attributes:
        size: side of the output, pixels.
        degrees: rotation, uniform in +-degrees.
        scale: size of the content, uniform in 1 +- scale.
        shift: of the content, uniform in +-shift, as a share of the side.
    """

    def __init__(self, size: int, *, degrees: float, scale: float, shift: float) -> None:
        self.size, self.degrees, self.scale, self.shift = size, degrees, scale, shift

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Maps [h, w, channels] uint8 to [size, size, channels] uint8."""
        angle, scale, dx, dy = rng.uniform(-1, 1, 4)
        angle = math.radians(self.degrees * angle)
        scale = 1 + self.scale * scale
        cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
        h, w = image.shape[:2]
        x, y = w / self.size, h / self.size  # input pixels in one of the output's
        half = self.size / 2
        cx, cy = half * (1 + 2 * self.shift * dx), half * (1 + 2 * self.shift * dy)
        matrix = (
            x * cos,
            x * sin,
            x * (half - cos * cx - sin * cy),
            -y * sin,
            y * cos,
            y * (half + sin * cx - cos * cy),
        )
        return warp(image, matrix, self.size)


GEOMETRIES: dict[str, Callable[..., Geometry]] = {'resize': Resize, 'affine': Affine}
