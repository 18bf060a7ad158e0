"""What a dataset is to the rest of the project."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np


class Unreadable(ValueError):
    """An example that cannot be used, and why. It is counted; nothing takes its place."""


class Source(Protocol):
    """Random access to examples.

    An example is a dict: `image` [h, w, channels] uint8 or the bytes of an image file, `id` str,
    and `label` int or, where an example has any number of them, `labels`, a list of int.

    Reading one raises `Unreadable` if it cannot be used.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


class Action(NamedTuple):
    """What happens in a video, and when.

    Attributes:
        label: number of the class.
        start: seconds since the first frame.
        end: likewise.
    """

    label: int
    start: float
    end: float


class Video(NamedTuple):
    """Some frames of a video.

    Attributes:
        id: of the video.
        frames: those that were asked for, each [h, w, channels] uint8 or the bytes of an image
            file, all of one size.
        times: of these frames, seconds since the first one of the video, [t] float.
        actions: of the whole video; at most one where each video has one label.
    """

    id: str
    frames: Sequence[np.ndarray | bytes]
    times: np.ndarray
    actions: tuple[Action, ...]


class VideoSource(Protocol):
    """Random access to videos and their frames.

    Attributes:
        num_frames: of each video, [videos] int64.
        num_annotated: how many videos the annotation has; those that failed are not there.
    """

    num_frames: np.ndarray
    num_annotated: int

    def __len__(self) -> int: ...

    def read(self, index: int, frames: Sequence[int], /) -> Video:
        """Frames of a video, in any order and as often as they are asked for.

        Raises:
            Unreadable: if they cannot be used.
        """


class UnreadSource:
    """A split of known size whose images or videos are not here.

    Attributes:
        num_annotated: its size.
    """

    def __init__(self, size: int, reason: str) -> None:
        self.num_annotated, self._reason = size, reason

    def __len__(self) -> int:
        return self.num_annotated

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises OSError, always: what is missing, and how to get it."""
        raise OSError(self._reason)

    def read(self, index: int, frames: Sequence[int]) -> Video:
        """As `__getitem__`."""
        raise OSError(self._reason)

    @property
    def num_frames(self) -> np.ndarray:
        """As `__getitem__`."""
        raise OSError(self._reason)


class Part:
    """Some examples of a source, in its order."""

    def __init__(self, source: Source, places: range) -> None:
        self._source, self._places = source, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[self._places[index]]


class Parts(Mapping[str, Source]):
    """Splits by name, and parts of them in TFDS's notation: 'train[1000:]', 'train[:1000]'."""

    def __init__(self, splits: Mapping[str, Source]) -> None:
        self._splits = splits

    def __getitem__(self, name: str) -> Source:
        match = re.fullmatch(r'(\w+)\[(\d*):(\d*)\]', name)
        if not match:
            return self._splits[name]
        source = self._splits[match[1]]
        size = len(source)
        start, stop = int(match[2] or 0), int(match[3] or size)
        if not 0 <= start < stop <= size:
            raise ValueError(f'split {name!r} is no part of {size} examples; use another')
        return Part(source, range(start, stop))

    def __iter__(self) -> Iterator[str]:
        return iter(self._splits)

    def __len__(self) -> int:
        return len(self._splits)


@dataclass(frozen=True)
class Dataset:
    """Sources by split, and what their labels mean.

    Attributes:
        name: as in the config and in metric names.
        label_names: name of each class, by label.
        channels: of an image.
        splits: name -> source. Those of image sets may be parts, such as 'train[:1000]'.
        max_labels: of one example; None where each has exactly one.
        videos: whether the sources are of videos.
        fps: frames a second of the videos; None where that says nothing.
    """

    name: str
    label_names: tuple[str, ...]
    channels: int
    splits: Mapping[str, Any]  # of Source or VideoSource
    max_labels: int | None = None
    videos: bool = False
    fps: int | None = None

    def split(self, name: str) -> Any:
        """One split.

        Raises:
            ValueError: if there is none of that name.
        """
        try:
            return self.splits[name]
        except KeyError:
            known = ', '.join(self.splits)
            message = f'dataset {self.name} has no split {name!r}; use one of {known}'
        except ValueError as error:
            message = f'dataset {self.name}: {error}'
        raise ValueError(message)
