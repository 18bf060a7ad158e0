"""Pictures of where tokens look: from pixels and maps, as arrays, to figures and animations.

    logits, maps = apply_with_maps(model, variables, preprocess(images))
    figure = draw_maps(images, maps[2], captions)

Nothing here knows of checkpoints or configs; `trainers.visualize` draws those of a run.
"""

import math
import textwrap
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from PIL import Image

DPI = 100
COLUMNS = 8  # of a grid over time; of more frames as many are drawn, evenly spread

_LONG, _SMALL = 104, 76  # pixels of a cell's longer side, of images and of clips
_GAP, _MARGIN = 6, 12  # pixels
_BAR = 96  # pixels to the right, of the scale
_LEAST = 520  # pixels of a figure's width, for its title
_HEAT = 0.65  # opacity of a map over the grey picture
_FONT = 9  # points
_LINE = 15  # pixels from a line of text to the next


def draw_maps(
    pixels: np.ndarray,
    maps: np.ndarray,
    captions: Sequence[str],
    *,
    title: str = '',
    cell: tuple[int, int, int] | None = None,
) -> Figure:
    """A grid of each token's map over the picture, in grey; each map has a scale of its own.

    Of images a row is an image, and a column a token. Of clips a row is a token, and a column a
    frame, up to eight of them; each clip has a block of rows. Of a clip the scale of a map is that
    of all its times.

    Args:
        pixels: [b, H, W, channels] or clips [b, T, H, W, channels], uint8, one or three channels.
        maps: of one layer, [b, t, s, h, w] as `token_learner.maps.apply_with_maps` returns them;
            t is 1 for images.
        captions: b texts.
        title: of the picture.
        cell: frames, and height and width in pixels, that a position of the maps covers, such as
            `model.cell`; by default the maps cover everything.

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    _check(pixels, maps, captions)
    if pixels.ndim == 4:
        cells = _Cells(pixels[:, None], maps, cell, _LONG)
        return _Sheet([cells.by_token(0)], [''], _wrapped(captions), cells.heads, title).figure
    cells = _Cells(pixels, maps, cell, _SMALL)
    count = cells.frames * maps.shape[1]
    frames = np.linspace(0, count - 1, min(count, COLUMNS)).round().astype(int).tolist()
    heads = [f'frame {k + 1}' for k in frames]
    if len(frames) < count:
        title = f'{title}; {len(frames)} of {count} frames'
    blocks = [cells.over_time(i, frames) for i in range(len(pixels))]
    return _Sheet(blocks, captions, cells.heads, heads, title).figure


def animate_maps(
    clips: np.ndarray,
    maps: np.ndarray,
    captions: Sequence[str],
    *,
    title: str = '',
    cell: tuple[int, int, int] | None = None,
) -> Iterator[np.ndarray]:
    """Pictures of clips that move, one for each frame that the maps cover.

    A row is a clip and a column a token; else as `draw_maps`.

    Args:
        clips: [b, T, H, W, channels] uint8.
        maps: [b, t, s, h, w].
        captions: b texts.
        title: of the picture.
        cell: see `draw_maps`.

    Yields:
        [height, width, 3] uint8, both even.
    """
    _check(clips, maps, captions)
    cells = _Cells(clips, maps, cell, _SMALL)
    sheet = _Sheet([cells.by_token(0)], [''], _wrapped(captions), cells.heads, title)
    canvas = FigureCanvasAgg(sheet.figure)
    for frame in range(cells.frames * maps.shape[1]):
        sheet.show([cells.by_token(frame)])
        canvas.draw()
        yield np.array(canvas.buffer_rgba())[..., :3]


def write_animation(frames: Sequence[np.ndarray], fps: int, *files: Path) -> None:
    """Writes the same frames to each file, a .gif or an .mp4.

    Args:
        frames: [height, width, 3] uint8, both even.
        fps: frames a second.
        *files: to write.
    """
    for file in files:
        if file.suffix == '.gif':
            first, *others = (
                Image.fromarray(f).quantize(128, dither=Image.Dither.NONE) for f in frames
            )
            kept: dict[str, Any] = {'save_all': True, 'loop': 0, 'disposal': 1}
            first.save(file, append_images=others, duration=round(1000 / fps), **kept)
        else:
            _write_mp4(frames, fps, file)


def _write_mp4(frames: Sequence[np.ndarray], fps: int, file: Path) -> None:
    with av.open(str(file), 'w', format='mp4') as container:
        stream = container.add_stream('libx264', rate=fps, options={'crf': '18'})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = 'yuv420p'  # what every player has
        stream.time_base = Fraction(1, fps)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, 'rgb24')))
        container.mux(stream.encode())


def _check(pixels: np.ndarray, maps: np.ndarray, captions: Sequence[str]) -> None:
    if maps.ndim != 5 or pixels.ndim not in (4, 5):
        raise ValueError(
            f'pixels {pixels.shape} and maps {maps.shape} are not [b, H, W, channels] or '
            '[b, T, H, W, channels] and [b, t, s, h, w]'
        )
    if not len(pixels) == len(maps) == len(captions):
        raise ValueError(
            f'{len(pixels)} examples, {len(maps)} maps and {len(captions)} captions; give as many '
            'of each'
        )
    if maps.shape[1] > (1 if pixels.ndim == 4 else pixels.shape[1]):
        raise ValueError(f'maps of {maps.shape[1]} times are not of pixels {pixels.shape}')


class _Cells:
    """The small pictures, made when they are asked for.

    Attributes:
        frames: that a time of the maps covers.
        heads: what the input and the tokens are called.
    """

    def __init__(
        self,
        clips: np.ndarray,
        maps: np.ndarray,
        cell: tuple[int, int, int] | None,
        side: int,
    ) -> None:
        (_, frames, height, width, channels), (t, s, h, w) = clips.shape, maps.shape[1:]
        low, high = (f(maps, axis=(1, 3, 4), keepdims=True) for f in (np.min, np.max))
        self._clips, self._maps = clips, (maps - low) / np.maximum(high - low, 1e-12)
        scale = side / max(height, width)
        covered = (height, width) if cell is None else (cell[1] * h, cell[2] * w)
        self.frames: int = frames // t if cell is None else cell[0]
        self._size = max(1, round(height * scale)), max(1, round(width * scale))
        self._covered = max(1, round(covered[0] * scale)), max(1, round(covered[1] * scale))
        self._shrinks, self._grey = scale < 1, channels == 1
        self.heads = ['input', *(f'token {k + 1}' for k in range(s))]

    def by_token(self, frame: int) -> np.ndarray:
        """[b, 1 + s, height, width, 3]: a row an example, at a frame."""
        return np.stack([self._row(i, frame) for i in range(len(self._clips))])

    def over_time(self, example: int, frames: Sequence[int]) -> np.ndarray:
        """[1 + s, frames, height, width, 3]: a column a frame."""
        return np.stack([self._row(example, frame) for frame in frames], axis=1)

    def _row(self, example: int, frame: int) -> np.ndarray:
        height, width = self._size
        how = cv2.INTER_AREA if self._shrinks else cv2.INTER_NEAREST
        picture = cv2.resize(self._clips[example, frame], (width, height), interpolation=how)
        picture = picture.reshape(height, width, -1) * np.ones(3, np.uint8)
        grey = picture.mean(axis=-1, keepdims=True)
        heats = self._maps[example, frame // self.frames]
        return np.stack([picture, *(self._overlay(grey, heat) for heat in heats)])

    def _overlay(self, grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
        down, across = self._covered
        large = cv2.resize(heat.astype(np.float32), (across, down))
        color = 255 * matplotlib.colormaps['inferno'](large)[..., :3]
        out = np.repeat(grey, 3, axis=-1)
        seen = out[:down, :across]
        seen[...] = (1 - _HEAT) * seen + _HEAT * color[: seen.shape[0], : seen.shape[1]]
        return out.round().astype(np.uint8)


class _Sheet:
    """A figure of blocks of cells, one below the other, pixel for pixel.

    Attributes:
        figure: the whole.
    """

    def __init__(
        self,
        blocks: Sequence[np.ndarray],
        headings: Sequence[str],
        rows: Sequence[str],
        columns: Sequence[str],
        title: str,
    ) -> None:
        """Lays it out.

        Args:
            blocks: each [rows, columns, height, width, 3] uint8, all of one shape.
            headings: of each block, above it; '' for none.
            rows: names of the rows of a block.
            columns: names of the columns.
            title: above all.
        """
        tiled = [_tile(block) for block in blocks]
        height, width = tiled[0].shape[:2]
        step = np.array(blocks[0].shape[2:4]) + _GAP
        left = _MARGIN + max(_text_width(name) for row in rows for name in row.split('\n')) + 8
        self._width = _even(max(_LEAST, left + width + _BAR))
        lines = textwrap.wrap(title, int((self._width - 2 * _MARGIN) / 7.6))
        heading = _LINE + 8 if any(headings) else 0
        top = _MARGIN + 19 * len(lines) + heading + _LINE + 4
        each = height + heading + _GAP
        self._height = _even(top + len(tiled) * each - heading + _MARGIN)
        self.figure = Figure(figsize=(self._width / DPI, self._height / DPI), dpi=DPI)
        for k, line in enumerate(lines):
            self._write(_MARGIN, _MARGIN + 19 * k + 6, line, size=11)
        self._shown = []
        for k, (picture, name) in enumerate(zip(tiled, headings, strict=True)):
            down = top + k * each
            self._write(left, down - heading / 2 - (0 if k else _LINE + 2), name, weight='bold')
            axes = self._axes(left, down, width, height)
            self._shown.append(axes.imshow(picture, interpolation='nearest', aspect='auto'))
            axes.set_axis_off()
            for i, row in enumerate(rows):
                middle = down + i * step[0] + (step[0] - _GAP) / 2
                self._write(left - 8, middle, row, ha='right')
        for j, column in enumerate(columns):
            middle = left + j * step[1] + (step[1] - _GAP) / 2
            self._write(middle, top - 9, column, ha='center')
        self._scale(left + width + 14, top, min(height, 240))

    def show(self, blocks: Sequence[np.ndarray]) -> None:
        """Puts other cells of the same shape in their place."""
        for image, block in zip(self._shown, blocks, strict=True):
            image.set_data(_tile(block))

    def _axes(self, left: float, top: float, width: float, height: float) -> matplotlib.axes.Axes:
        below = self._height - top - height
        sides = (left / self._width, below / self._height)
        return self.figure.add_axes((*sides, width / self._width, height / self._height))

    def _write(self, left: float, top: float, text: str, size: float = _FONT, **how: Any) -> None:
        at = left / self._width, 1 - top / self._height
        self.figure.text(*at, text, size=size, va='center', parse_math=False, **how)

    def _scale(self, left: float, top: float, height: float) -> None:
        """What the colours mean."""
        axes = self._axes(left, top, 10, height)
        axes.imshow(np.linspace(1, 0, 256)[:, None], cmap='inferno', aspect='auto')
        axes.set(xticks=[], yticks=[])
        for text, down in (('most', 6), ('least', height - 6)):
            self._write(left + 16, top + down, text)
        self._write(left + 54, top + height / 2, 'weight, by map', rotation='vertical')


def _tile(cells: np.ndarray) -> np.ndarray:
    """[rows, columns, h, w, 3] to one picture, with white gaps."""
    rows, columns, h, w, _ = cells.shape
    size = rows * (h + _GAP) - _GAP, columns * (w + _GAP) - _GAP
    out = np.full((*size, 3), 255, np.uint8)
    for i in range(rows):
        for j in range(columns):
            top, left = i * (h + _GAP), j * (w + _GAP)
            out[top : top + h, left : left + w] = cells[i, j]
    return out


def _wrapped(captions: Sequence[str]) -> list[str]:
    """Long lines cut, so that the pictures keep their room."""
    return [
        '\n'.join(part for line in caption.split('\n') for part in textwrap.wrap(line, 28))
        for caption in captions
    ]


def _text_width(text: str) -> float:
    """Pixels of a line."""
    if not text:
        return 0.0
    size = _FONT * DPI / 72
    return 1.06 * float(TextPath((0, 0), text.replace('$', 'S'), size=size).get_extents().width)


def _even(length: float) -> int:
    return 2 * math.ceil(length / 2)
