"""Files that belong to no set, as a dataset of one split: what is asked of a trained model."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datasets.dataset import Dataset, Unreadable, Video
from datasets.image import Picture
from datasets.prepare.decode import QUALITY, SHORT_SIDE, Decoded, decode_video
from datasets.prepare.isolate import Failure, run_isolated

SPLIT = 'files'

TIMEOUT = 3600  # of one video, seconds: what is long, and sound, is done by then


def open_files(
    files: Sequence[Path], label_names: Sequence[str], *, videos: bool, fps: int | None = None
) -> Dataset:
    """Reads files of images, or decodes those of videos as `datasets.prepare` does.

    They have no labels, three channels, and their names as ids.

    Args:
        files: to read.
        label_names: the classes of the model.
        videos: whether they are to be videos.
        fps: frames a second of these.

    Raises:
        ValueError: if one is no image or no video, or it is not known at which rate to decode.
    """
    if videos and fps is None:
        raise ValueError('the dataset has no frames a second, by which files would be decoded')
    splits: dict[str, Any] = {}
    if videos:
        assert fps is not None
        splits[SPLIT] = VideoFiles(files, fps)
    else:
        splits[SPLIT] = ImageFiles(files)
    return Dataset('files', tuple(label_names), 3, splits, None, videos, fps)


class ImageFiles:
    """Images, as a `Source`; the label is -1."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Reads the files.

        Raises:
            ValueError: if one is no image.
        """
        self._files = files
        self._images = [_read(file) for file in files]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {'image': self._images[index], 'id': self._files[index].name, 'label': -1}


def _read(file: Path) -> bytes:
    try:
        image = file.read_bytes()
        Picture(image)
    except OSError as error:
        raise ValueError(f'{file} cannot be read: {error.strerror}') from error
    except Unreadable as error:
        raise ValueError(f'{file} is no image to use: {error}') from error
    return image


class VideoFiles:
    """Videos without actions, as a `VideoSource`.

    Attributes:
        num_frames: of each, [videos].
        num_annotated: all of them.
    """

    def __init__(self, files: Sequence[Path], fps: int) -> None:
        """Decodes the files, in a process of their own.

        Raises:
            ValueError: if one is no sound video.
        """
        self._files, self._decoded = files, list(_decode(files, fps))
        self.num_frames = np.array([len(x.frames) for x in self._decoded], np.int64)
        self.num_annotated = len(files)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int, frames: Sequence[int]) -> Video:
        """Some frames of a video."""
        decoded = self._decoded[index]
        times = np.array([decoded.times[k] for k in frames])
        return Video(self._files[index].name, [decoded.frames[k] for k in frames], times, ())


def _decode(files: Sequence[Path], fps: int) -> Iterator[Decoded]:
    decode = partial(decode_video, fps=fps, short_side=SHORT_SIDE, quality=QUALITY)
    results = run_isolated(decode, files, processes=1, timeout=TIMEOUT)
    with contextlib.closing(results):  # ends the process
        for file in files:
            try:
                result = next(results)
            except ChildProcessError as error:
                name = '' if str(file) in str(error) else f'{file} could not be decoded: '
                raise ValueError(f'{name}{error}') from error
            if isinstance(result, Failure):
                raise ValueError(f'{file} is no video to use: {result.reason}')
            yield result
