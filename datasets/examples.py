"""What batches are made of: examples by number, ready for the model but for the device's part."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from datasets.dataset import Dataset, Source, Unreadable
from datasets.geometry import Geometry


class Sample(NamedTuple):
    """An example that was read.

    Attributes:
        id: of it.
        label: number of the class, or a list of them.
        draw: fills an array of the examples' shape with its pixels; raises `Unreadable` if they
            cannot be used.
    """

    id: str
    label: Any
    draw: Callable[[np.ndarray], None]


class Examples(Protocol):
    """Random access to examples.

    Attributes:
        pixels: what their array is called in a batch, 'image' or 'video'.
        shape: of the array of one example, uint8.
        max_labels: of one example; None where each has exactly one.
        numbers: further entries of a batch, which are known without reading, [examples] int32.
    """

    pixels: str
    shape: tuple[int, ...]
    max_labels: int | None
    numbers: Mapping[str, np.ndarray]

    def __len__(self) -> int: ...

    def name(self, index: int, /) -> str:
        """What one is called whose id is not known, as it cannot be read."""

    def sample(self, index: int, seed: tuple[int, ...], /) -> Sample:
        """Reads one; what is random about it follows from the seed.

        Raises:
            Unreadable: if it cannot be used.
        """


class Images:
    """The images of a split, each [size, size, channels]."""

    pixels = 'image'
    numbers: Mapping[str, np.ndarray] = {}

    def __init__(self, dataset: Dataset, split: str, geometry: Geometry) -> None:
        self._source: Source = dataset.split(split)
        self._geometry = geometry
        self._label = 'label' if dataset.max_labels is None else 'labels'
        self._prefix = f'{dataset.name}/{split}'
        self.shape: tuple[int, ...] = geometry.size, geometry.size, dataset.channels
        self.max_labels = dataset.max_labels

    def __len__(self) -> int:
        return len(self._source)

    def name(self, index: int) -> str:
        """By its place."""
        return f'{self._prefix}[{index}]'

    def sample(self, index: int, seed: tuple[int, ...]) -> Sample:
        """An image, of which a part is to be cut."""
        example = self._source[index]

        def draw(out: np.ndarray) -> None:
            pixels = self._geometry(example['image'], seed)
            check_channels(pixels.shape[-1], out)
            out[...] = pixels

        return Sample(example['id'], example[self._label], draw)


def check_channels(channels: int, out: np.ndarray) -> None:
    """Checks that pixels have the channels of the array that they are drawn to.

    Raises:
        Unreadable: if not.
    """
    if channels != out.shape[-1]:
        raise Unreadable(
            f'its number of channels is {channels}, that of the dataset {out.shape[-1]}'
        )
