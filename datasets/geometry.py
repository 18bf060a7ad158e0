"""Geometry on the host: which part of an image becomes the square that the model takes, in uint8.

What is random in it draws from `np.random.default_rng(seed)`. What changes pixels in place (warps,
colours, normalisation) runs on the device, in `trainers.augment`.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from datasets.image import Box, Picture


class Geometry:
    """A choice of a box, which is then resized to a square.

    Attributes:
        size: side of the square, pixels.
        exact: whether every pixel counts; otherwise JPEGs may be decoded at a smaller scale.
    """

    exact = True

    def __init__(self, size: int) -> None:
        self.size = size

    def box(self, height: int, width: int, seed: Sequence[int]) -> Box:
        """The part of an image that is shown."""
        raise NotImplementedError

    def keeps(self, height: int, width: int) -> bool:
        """Whether an image of this size stays as it is."""
        del height, width
        return False

    def __call__(self, image: np.ndarray | bytes, seed: Sequence[int]) -> np.ndarray:
        """Maps [h, w, channels] uint8, or the bytes of a file, to [size, size, channels] uint8.

        Raises:
            Unreadable: if the file cannot be decoded.
        """
        if isinstance(image, np.ndarray) and self.keeps(*image.shape[:2]):
            return image
        picture = Picture(image)
        box = self.box(picture.height, picture.width, seed)
        return picture.cut(box, self.size, exact=self.exact)


class Resize(Geometry):
    """The whole image squeezed to a square, or the middle of that.

    Attributes:
        share: of each side that is kept. 0.875 is "resize to 256, crop 224".
    """

    def __init__(self, size: int, share: float = 1.0) -> None:
        super().__init__(size)
        self.share = _checked_share(share)

    def keeps(self, height: int, width: int) -> bool:
        """Whether it has the size."""
        return self.share == 1 and height == width == self.size

    def box(self, height: int, width: int, seed: Sequence[int]) -> Box:
        """The middle of both sides."""
        del seed
        return _middle(height, width, *(max(1, round(n * self.share)) for n in (height, width)))


class CenterCrop(Geometry):
    """The square in the middle, its side a share of the short one.

    Attributes:
        share: 0.875 is "resize the short side to 256, crop 224".
    """

    def __init__(self, size: int, share: float = 0.875) -> None:
        super().__init__(size)
        self.share = _checked_share(share)

    def box(self, height: int, width: int, seed: Sequence[int]) -> Box:
        """A square."""
        del seed
        side = max(1, round(min(height, width) * self.share))
        return _middle(height, width, side, side)


class InceptionCrop(Geometry):
    """A random part of random shape (Szegedy et al., arXiv:1409.4842, Sec. 6).

    Width over height is uniform in 3/4 to 4/3, then the height uniform in what the area allows,
    as in TensorFlow's `sample_distorted_bounding_box`, which the published recipes draw from. An
    image in which no such part is found is shown whole.

    Attributes:
        min_area: the least share of the image that is shown, at most 1.
    """

    exact = False
    _TRIES = 100

    def __init__(self, size: int, min_area: float = 0.05) -> None:
        super().__init__(size)
        if not 0 < min_area <= 1:
            raise ValueError(f'min_area={min_area} is no share; use more than 0, at most 1')
        self.min_area = min_area

    def box(self, height: int, width: int, seed: Sequence[int]) -> Box:
        """A random part."""
        draw = np.random.default_rng(seed).random
        for _ in range(self._TRIES):
            aspect = 3 / 4 + (4 / 3 - 3 / 4) * draw()
            least = math.sqrt(self.min_area * height * width / aspect)
            most = math.sqrt(height * width / aspect)
            most = min(height, int((width + 0.5) / aspect), round(most))
            if most < least:
                continue
            h = int(math.ceil(least) + draw() * (most - math.ceil(least) + 1))
            w = round(h * aspect)
            if 0 < h <= height and 0 < w <= width and h * w >= self.min_area * height * width:
                top, left = int(draw() * (height - h + 1)), int(draw() * (width - w + 1))
                return Box(top, left, h, w)
        return Box(0, 0, height, width)


GEOMETRIES: dict[str, Callable[..., Geometry]] = {
    'resize': Resize,
    'center_crop': CenterCrop,
    'inception_crop': InceptionCrop,
}


def _checked_share(share: float) -> float:
    if not 0 < share <= 1:
        raise ValueError(f'share={share} is no share; use more than 0, at most 1')
    return share


def _middle(height: int, width: int, h: int, w: int) -> Box:
    return Box((height - h) // 2, (width - w) // 2, h, w)
