"""`moving_digits`: handwritten digits that move, each over a grey canvas; the label is the motion.

The digits are those of `digits`, the split too; video i is of digit i. Motions come in pairs, one
the other played backwards: neither a frame nor all frames without their order tell which it is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from datasets.dataset import Action, Dataset, Source, Video
from datasets.digits import load_digits

# A pair of opposites is one way to move, there and back.
MOTIONS = ('left', 'right', 'up', 'down', 'counterclockwise', 'clockwise', 'shrinks', 'grows')
WAYS = len(MOTIONS) // 2
SIZE, FPS = 64, 12
MAX_MOTIONS = 3

# How far each way goes, least and most: of the canvas's shorter side across and down, radians of a
# circle, and the logarithm of how often as large.
_LEAST = np.array([0.25, 0.25, 1.5 * np.pi, np.log(1.5)])
_MOST = np.array([0.4, 0.4, 3 * np.pi, np.log(2.2)])
_INK = 0.16  # half of a digit's ink, of the shorter side


class Motion(NamedTuple):
    """A motion by its label, from frame `begin` up to frame `end`."""

    label: int
    begin: int
    end: int

    def action(self, fps: int) -> Action:
        """The same in seconds."""
        return Action(self.label, self.begin / fps, self.end / fps)


def draw_motions(rng: np.random.Generator, count: int, num_frames: int) -> list[Motion]:
    """Draws motions of different ways, which may overlap, by their beginning.

    Args:
        rng: to draw from.
        count: of motions, at most 4.
        num_frames: of the video; a motion lasts a quarter to three fifths of them.
    """
    labels = 2 * rng.permutation(WAYS)[:count] + rng.integers(0, 2, count)
    lengths = rng.integers(num_frames // 4, 3 * num_frames // 5 + 1, count)
    begins = rng.integers(0, num_frames - lengths + 1)
    motions = zip(labels.tolist(), begins.tolist(), (begins + lengths).tolist(), strict=True)
    return sorted((Motion(*motion) for motion in motions), key=lambda motion: motion.begin)


def draw_path(
    rng: np.random.Generator, motions: Sequence[Motion], num_frames: int, shape: tuple[int, int]
) -> np.ndarray:
    """Draws where a digit [28, 28] is in each frame.

    What is drawn does not depend on the motions: with each one's opposite at the mirrored time, it
    is the same path backwards.

    Args:
        rng: to draw from.
        motions: of different ways.
        num_frames: of the video.
        shape: of the canvas, h and w.

    Returns:
        Affine maps for cv2.warpAffine, [num_frames, 2, 3].
    """
    amounts = rng.uniform(_LEAST, _MOST)
    radius, angle, scale = rng.uniform([0.1, 0, 0.85], [0.16, 2 * np.pi, 1.15])
    place = rng.random(2)
    moved = np.zeros((num_frames, WAYS))
    for label, begin, end in motions:
        progress = np.clip((np.arange(num_frames) + 0.5 - begin) / (end - begin), 0, 1) - 0.5
        moved[:, label // 2] = amounts[label // 2] * progress * (1 if label % 2 else -1)
    angles, scales = angle + moved[:, 2], scale * np.exp(moved[:, 3])
    circle = radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    short, (h, w) = min(shape), shape
    centres = short * (moved[:, :2] + circle)
    least, most = centres.min(0), centres.max(0)
    edge = short * _INK * scales.max()
    centres += edge - least + (np.array([w - 1, h - 1]) - 2 * edge - most + least) * place
    maps = np.zeros((num_frames, 2, 3))
    maps[:, 0, 0] = maps[:, 1, 1] = scales * short / SIZE
    maps[:, :, 2] = centres - 13.5 * maps[:, :1, 0]  # a digit's middle
    return maps


def draw_frame(digit: np.ndarray, place: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A frame [h, w] uint8 with a digit [28, 28] at the place of an affine map."""
    return cv2.warpAffine(digit, place, shape[::-1])


class MovingDigits:
    """Videos [t, 64, 64, 1] of moving digits, drawn when they are read.

    Attributes:
        num_frames: of each video.
        num_annotated: all of them.
    """

    def __init__(self, digits: Source, split: int, several: bool) -> None:
        """Knows what to draw.

        Args:
            digits: one a video.
            split: number of the split, for other paths than those of another one.
            several: whether one to three motions have intervals in 8 s, or one lasts 2 2/3 s.
        """
        self._digits, self._split, self._several = digits, split, several
        self.num_frames = np.full(len(digits), 96 if several else 32)
        self.num_annotated = len(digits)

    def __len__(self) -> int:
        return len(self._digits)

    def read(self, index: int, frames: Sequence[int]) -> Video:
        """Draws frames of a video."""
        example, length = self._digits[index], int(self.num_frames[index])
        rng = np.random.default_rng((self._split, index))
        if self._several:
            motions = draw_motions(rng, 1 + index % MAX_MOTIONS, length)
        else:
            motions = [Motion(index % len(MOTIONS), 0, length)]
        frames = np.asarray(frames, np.int64)
        places = draw_path(rng, motions, length, (SIZE, SIZE))[frames]
        return Video(
            id=example['id'],
            frames=[
                draw_frame(example['image'], place, (SIZE, SIZE))[..., None] for place in places
            ],
            times=frames / FPS,
            actions=tuple(motion.action(FPS) for motion in motions),
        )


def load_moving_digits(data_dir: str, *, several: bool = False) -> Dataset:
    """Loads the moving digits.

    Args:
        data_dir: '', as the digits come with a package.
        several: whether a video has one to three motions, each in an interval of its own, or one.

    Raises:
        ValueError: if a data directory is given.
    """
    digits = load_digits(data_dir)
    return Dataset(
        name='moving_digits',
        label_names=MOTIONS,
        channels=1,
        splits={
            name: MovingDigits(digits.split(name), number, several)
            for number, name in enumerate(digits.splits)
        },
        max_labels=MAX_MOTIONS if several else None,
        videos=True,
        fps=FPS,
    )
