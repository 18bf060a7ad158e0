"""Geometry on the host: which part of an image becomes the square that the model takes, in uint8.

What is random in it draws from `np.random.default_rng(seed)`. What changes pixels in place (warps,
colours, normalisation) runs on the device, in `trainers.augment`.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from datasets.box import Box
from datasets.image import Picture


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

    def crops(self, height: int, width: int, count: int) -> list[Box]:
        """The parts that are shown of what is evaluated in several crops.

        Raises:
            ValueError: if there is but one.
        """
        if count == 1:
            return [self.box(height, width, (0,))]
        raise ValueError(f"{count} crops need config.eval_geometry.name='center_crop'")

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
    """The square in the middle, its side a share of the short one; or several along the long side.

    Attributes:
        share: 0.875 is "resize the short side to 256, crop 224".
    """

    def __init__(self, size: int, share: float = 0.875) -> None:
        super().__init__(size)
        self.share = _checked_share(share)

    def box(self, height: int, width: int, seed: Sequence[int]) -> Box:
        """A square."""
        del seed
        side = self._side(height, width)
        return _middle(height, width, side, side)

    def crops(self, height: int, width: int, count: int) -> list[Box]:
        """Squares evenly from one end of the long side to the other.

        Three are those of Scenic and SlowFast (facebookresearch/SlowFast), whose middle is rounded
        up; one is the square in the middle.
        """
        if count == 1:
            return super().crops(height, width, count)
        side = self._side(height, width)
        down, right = height - side, width - side
        shares = np.arange(count) / (count - 1)
        if height > width:
            return [Box(math.ceil(down * at), math.ceil(right / 2), side, side) for at in shares]
        return [Box(math.ceil(down / 2), math.ceil(right * at), side, side) for at in shares]

    def _side(self, height: int, width: int) -> int:
        return max(1, round(min(height, width) * self.share))


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


class JitterCrop(Geometry):
    """A square of the image after it was resized by random factors, as ViViT's recipe takes it.

    The short side is resized to `min_resize` pixels, then height and width each by a factor of
    their own, uniform between the two given, and of the result a random square is cut (Arnab et
    al., arXiv:2103.15691, Appendix; google-deepmind/dmvr, `scale_jitter_augm`, in the configs of
    google-research/scenic). Here the part that becomes the square is cut, and resized once.

    Attributes:
        min_resize: pixels.
        scale_min_factor: least factor.
        scale_max_factor: largest factor.
        prob_scale_jitter: share of the images that are resized by factors; others by none.
    """

    exact = False

    def __init__(
        self,
        size: int,
        min_resize: int = 256,
        scale_min_factor: float = 0.9,
        scale_max_factor: float = 1.33,
        prob_scale_jitter: float = 1.0,
    ) -> None:
        super().__init__(size)
        if not 0 < scale_min_factor <= scale_max_factor:
            raise ValueError(
                f'scale_min_factor={scale_min_factor} and scale_max_factor={scale_max_factor} are '
                'no range; use positive numbers, the smaller first'
            )
        if not 0 <= prob_scale_jitter <= 1:
            raise ValueError(f'prob_scale_jitter={prob_scale_jitter} is no probability; use 0 to 1')
        factors = [scale_min_factor] * (prob_scale_jitter > 0) + [1.0] * (prob_scale_jitter < 1)
        if size > min_resize * min(factors):
            raise ValueError(
                f'a square of {size} does not fit min_resize={min_resize} by a factor of '
                f'{min(factors)}; use a larger min_resize or scale_min_factor'
            )
        self.min_resize, self.prob_scale_jitter = min_resize, prob_scale_jitter
        self.scale_min_factor, self.scale_max_factor = scale_min_factor, scale_max_factor

    def box(self, height: int, width: int, seed: Sequence[int]) -> Box:
        """A random part."""
        draw = np.random.default_rng(seed).random
        low, high = self.scale_min_factor, self.scale_max_factor
        factors = [low + (high - low) * draw() for _ in range(2)]
        if draw() >= self.prob_scale_jitter:
            factors = [1.0, 1.0]
        side = self.size * min(height, width) / self.min_resize
        h, w = (max(1, round(side / factor)) for factor in factors)
        top, left = int(draw() * (height - h + 1)), int(draw() * (width - w + 1))
        return Box(top, left, h, w)


GEOMETRIES: dict[str, Callable[..., Geometry]] = {
    'resize': Resize,
    'center_crop': CenterCrop,
    'inception_crop': InceptionCrop,
    'jitter_crop': JitterCrop,
}


def _checked_share(share: float) -> float:
    if not 0 < share <= 1:
        raise ValueError(f'share={share} is no share; use more than 0, at most 1')
    return share


def _middle(height: int, width: int, h: int, w: int) -> Box:
    return Box((height - h) // 2, (width - w) // 2, h, w)
