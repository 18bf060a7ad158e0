"""From a video file to JPEG frames at a fixed rate.

A file is used whole or not at all: one that is damaged, cut off or no video is refused, as far as
its format lets a reader notice. What counts is the content, not the name.
"""

import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import simplejpeg
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from datasets.tiles import choose_interval

# One file each: a playlist that is called .mp4 is not to open others, nor is a text to be drawn.
_FORMATS = 'mov,mp4,matroska,webm,avi,flv,asf,mpegts,mpeg,ogg'

SHORT_SIDE, QUALITY = 256, 85  # by default

# Exact, so that all machines give the same bytes.
_SCALING = (
    Interpolation.AREA
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.BITEXACT
)

_ROUNDING = Fraction(1, 1000)  # seconds, to which Matroska rounds times
_EARLY = Fraction(1, 2)  # seconds that may miss at the end, where containers are not exact,
_EARLY_PART = Fraction(1, 20)  # or this part of all
_STILL = 60  # seconds that a frame may be shown; of damaged times, it can be days
_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_FOLDER_RATE = 24  # frames a second of Charades_v1_rgb


@dataclass(frozen=True)
class Decoded:
    """A video at a fixed rate.

    Attributes:
        frames: JPEG files.
        times: of the frames, seconds since the first one.
        duration: of the video, seconds.
        height: of the frames, pixels.
        width: likewise.
    """

    frames: tuple[bytes, ...]
    times: tuple[float, ...]
    duration: float
    height: int
    width: int


@dataclass(frozen=True)
class _Shown:
    """A frame, from when to when it is shown (seconds), and width / height of its pixels."""

    frame: av.VideoFrame
    start: Fraction
    end: Fraction
    aspect: Fraction = Fraction(1)


def decode_video(path: Path, *, fps: int, short_side: int, quality: int) -> Decoded:
    """Decodes a video: of each time k / fps the frame that is shown then, upright.

    Args:
        path: a file, or a folder of frames ID/ID-000001.jpg and so on, 24 a second.
        fps: frames a second of the result; those of a slower video are repeated.
        short_side: pixels of the result's shorter side; a smaller video keeps its size.
        quality: of the JPEG files, 1 to 100.

    Raises:
        ValueError: why the video cannot be used, in one line.
        OSError: if its file is there and cannot be read; the video may be sound.
    """
    encode = _Encoder(short_side, quality)
    frames: list[bytes] = []
    begin = last = None
    for shown in _of_folder(path) if path.is_dir() else _of_file(path):
        if last is None:
            begin = shown.start
        else:
            _repeat(frames, encode, last, fps * (shown.start - begin - _ROUNDING))
        last = shown
    if last is None:
        raise ValueError('no frames in it')
    # The frame at 0 is there even if it is shown for no time.
    _repeat(frames, encode, last, max(fps * (last.end - begin - _ROUNDING), Fraction(1)))
    times = tuple(k / fps for k in range(len(frames)))
    return Decoded(tuple(frames), times, float(last.end - begin), *encode.size)


def _repeat(frames: list[bytes], encode: '_Encoder', shown: _Shown, until: Fraction) -> None:
    """Appends a frame as often as it takes to have those before `until`, which may be never."""
    if (count := math.ceil(until) - len(frames)) > 0:
        frames += [encode(shown)] * count


class _Encoder:
    """Makes JPEG files of frames, all of the first one's size."""

    def __init__(self, short_side: int, quality: int) -> None:
        self._short_side, self._quality = short_side, quality
        self._scaler = VideoReformatter()
        self.size: tuple[int, int] = (0, 0)

    def __call__(self, shown: _Shown) -> bytes:
        a, b, c, d = _orientation(shown.frame)
        turned = slice(None, None, -1 if b else 1)
        if self.size == (0, 0):
            self.size = self._fit(shown.frame.height, shown.frame.width * shown.aspect)[turned]
        height, width = self.size[turned]
        try:
            image = self._scaler.reformat(
                shown.frame, width, height, 'rgb24', interpolation=_SCALING, threads=1
            ).to_ndarray()
        except FFmpegError as error:
            raise ValueError(f'its frames cannot be converted: {error.strerror}') from error
        if b:
            image = image.swapaxes(0, 1)
        image = image[:: b + d, :: a + c]
        return encode_frame(np.ascontiguousarray(image), self._quality)

    def _fit(self, height: int, width: Fraction) -> tuple[int, int]:
        scale = min(Fraction(self._short_side) / min(height, width), 1)
        return max(1, round(height * scale)), max(1, round(width * scale))


def encode_frame(image: np.ndarray, quality: int, interval: int | None = None) -> bytes:
    """A JPEG file of an image.

    Args:
        image: [h, w, 3] uint8.
        quality: 1 to 100.
        interval: blocks between restart markers, 0 for none; by default such that
            `datasets.tiles` can cut parts.
    """
    file = io.BytesIO()
    interval = choose_interval(image.shape[1]) if interval is None else interval
    settings = {'quality': quality, 'subsampling': '4:2:0', 'restart_marker_blocks': interval}
    Image.fromarray(image).save(file, 'JPEG', **settings)
    return file.getvalue()


def _orientation(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """How a frame is to be shown: x, y go to a x + c y, b x + d y, of which each is 0, 1 or -1."""
    if Type.DISPLAYMATRIX not in frame.side_data:
        return 1, 0, 0, 1
    matrix = np.frombuffer(frame.side_data[Type.DISPLAYMATRIX], np.int32)[[0, 1, 3, 4]]
    matrix = matrix.astype(float)  # fixed point; what scales is in the pixels' aspect
    a, b, c, d = (
        int(x) for x in np.sign(np.where(abs(matrix) < abs(matrix).max() / 100, 0, matrix))
    )
    if (abs(a), abs(b), abs(c), abs(d)) not in ((1, 0, 0, 1), (0, 1, 1, 0)):
        raise ValueError('it is to be turned by no multiple of 90 degrees')
    return a, b, c, d


def _of_folder(folder: Path) -> Iterator[_Shown]:
    try:
        names = sorted(x for x in os.listdir(folder) if x.endswith('.jpg') and x[0] != '.')
        for number, name in enumerate(names):
            expected = f'{folder.name}-{number + 1:06d}.jpg'
            if name != expected:
                raise ValueError(f'its frame {expected} is missing')
            frame = _still(folder / name)
            yield _Shown(frame, Fraction(number, _FOLDER_RATE), Fraction(number + 1, _FOLDER_RATE))
    except _NO_FILE as error:
        raise ValueError(f'it cannot be read: {error.strerror}') from error


def _still(path: Path) -> av.VideoFrame:
    try:
        return av.VideoFrame.from_ndarray(simplejpeg.decode_jpeg(path.read_bytes()), 'rgb24')
    except ValueError as error:
        raise ValueError(f'its frame {path.name} is damaged: {error}') from error


def _of_file(path: Path) -> Iterator[_Shown]:
    try:
        with path.open('rb') as file:
            if not file.peek(1):
                raise ValueError('the file is empty')
            with _open(file) as container:
                yield from _of_stream(container, _video(container))
    except _NO_FILE as error:
        raise ValueError(f'it cannot be read: {error.strerror}') from error


def _open(file: Any) -> Any:
    """The container.

    FFmpeg gets the open file and not its name, so that the content alone decides the format.
    """
    try:
        return av.open(
            file,
            container_options={'format_whitelist': _FORMATS},
            metadata_errors='replace',
            buffer_size=2**18,
        )
    except FFmpegError as error:
        raise ValueError('not a video file, or one that is cut off before its index') from error


def _video(container: Any) -> Any:
    """The video stream. The cover of a piece of music is none."""
    streams = [x for x in container.streams.video if not x.disposition & Disposition.attached_pic]
    if not streams:
        raise ValueError('no video in it')
    if streams[0].codec_context is None:
        raise ValueError('its codec is not known')
    streams[0].codec_context.thread_count = 1
    return streams[0]


def _of_stream(container: Any, stream: Any) -> Iterator[_Shown]:
    shown, latest = None, Fraction(0)
    try:
        for packet in container.demux():
            latest = max(latest, _end(packet))
            # In AVI, an empty packet repeats a frame. (The decoder would take it for the last.)
            if packet.stream_index != stream.index or not (packet.size or packet.dts is None):
                continue
            if packet.is_corrupt:
                raise ValueError(f'damaged {_place(container, stream, shown)}')
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise ValueError(f'damaged {_place(container, stream, shown)}')
                shown = _when(frame, container, stream, shown)
                yield shown
    except FFmpegError as error:
        raise ValueError(f'damaged {_place(container, stream, shown)}') from error
    end = shown.end if shown and stream.duration else latest
    declared = _declared(container, stream)
    if shown and declared - end > max(_EARLY, _EARLY_PART * declared):
        raise ValueError(f'cut off {_place(container, stream, shown)}')


def _end(packet: Any) -> Fraction:
    if packet.pts is None or packet.time_base is None:
        return Fraction(0)
    return (packet.pts + (packet.duration or 0)) * packet.time_base


def _place(container: Any, stream: Any, shown: _Shown | None) -> str:
    at, declared = float(shown.end if shown else 0), float(_declared(container, stream))
    return f'at {at:.1f} s of {declared:.1f} s' if declared else f'at {at:.1f} s'


def _declared(container: Any, stream: Any) -> Fraction:
    """When the file says that the video ends, or all its streams (seconds); 0 if it does not."""
    if stream.duration:
        return ((stream.start_time or 0) + stream.duration) * stream.time_base
    return Fraction(container.duration or 0, av.time_base)


def _when(frame: av.VideoFrame, container: Any, stream: Any, last: _Shown | None) -> _Shown:
    """When a frame is shown, after the last one."""
    # AVI has no times of its own: frames, in the order in which they are shown, are all as long.
    ticks = frame.dts if container.format.name == 'avi' or frame.pts is None else frame.pts
    start = last.end if last else Fraction(0)
    if ticks is not None:
        start = ticks * stream.time_base
    if last and not -_EARLY <= start - last.start <= _STILL:
        raise ValueError(f'its times jump from {float(last.start):.1f} s to {float(start):.1f} s')
    rate = stream.average_rate or stream.guessed_rate
    length = (frame.duration or 0) * stream.time_base or (1 / rate if rate else Fraction(0))
    return _Shown(frame, start, start + length, stream.sample_aspect_ratio or Fraction(1))
