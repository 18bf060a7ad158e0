"""From an image file's bytes to pixels: only what is needed of it, where the format allows."""

import io
import math
import threading
from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from datasets.box import Box
from datasets.dataset import Unreadable
from datasets.tiles import cut_tiles

cv2.setNumThreads(0)  # the reader's threads each decode a batch of their own
Image.MAX_IMAGE_PIXELS = None  # ours is below, and an error instead of a warning

# A JPEG of more is decoded at a smaller scale, any other image refused: 0.2 GB of pixels.
MAX_PIXELS = 2**26

SCRATCH = 2**22  # bytes; an image of more bytes gets memory of its own
_own = threading.local()

# What sets hold. (Of Pillow's others some run programs, and some warn of what is damaged.)
_FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'WEBP')


class Picture:
    """An image that is decoded when it is known what of it is needed.

    Greyscale, CMYK and palettes become RGB and transparency is dropped, whatever the file's name
    says. The orientation in EXIF is not applied, as in TensorFlow.

    Attributes:
        height: of the whole image, pixels.
        width: likewise.
        channels: of the result.
    """

    def __init__(self, image: np.ndarray | bytes) -> None:
        """Reads the header.

        Args:
            image: pixels [h, w, channels] uint8, or the bytes of a file.

        Raises:
            Unreadable: if this is no image, or one of more than 8 bits a channel, or too large.
        """
        self._image = image
        self._open: Image.Image | None = None
        self.channels = 3
        if isinstance(image, np.ndarray):
            self.height, self.width, self.channels = image.shape
        elif image[:2] == b'\xff\xd8':
            self.height, self.width, colors = _jpeg_header(image)
            if colors in ('CMYK', 'YCCK'):
                self._open = _open(image)
        else:
            self._open = _open(image)
            self.width, self.height = self._open.size
        pixels = self.height * self.width
        if self._open is not None and pixels > MAX_PIXELS:
            raise Unreadable(
                f'{pixels / 1e6:.0f} megapixels are more than the {MAX_PIXELS / 1e6:.0f} that '
                f'are decoded of a {self._open.format} file'
            )

    def cut(self, box: Box, size: int, *, exact: bool) -> np.ndarray:
        """A part of the image as a square, [size, size, channels] uint8; see `draw`."""
        out = np.empty((size, size, self.channels), np.uint8)
        self.draw([box], [out], exact=exact)
        return out

    def draw(self, boxes: Sequence[Box], outs: Sequence[np.ndarray], *, exact: bool) -> None:
        """Fills in squares, each with a part of the image.

        Averages where it shrinks, bilinear where it grows.

        Args:
            boxes: the parts.
            outs: [size, size, channels] uint8, in one piece each.
            exact: every pixel counts. Otherwise a JPEG is decoded from the top to the parts' end
                only, and if much is thrown away at a half, a quarter or an eighth of its size, no
                smaller than the result; and what then shrinks to no less than a half is bilinear
                too, as in the published recipes, which takes a fifth of the time. (Where a JPEG
                allows it, see `datasets.tiles`, only the parts are decoded in any case.)

        Raises:
            Unreadable: if the file is damaged.
        """
        pixels, have, scale = self._decode(boxes, len(outs[0]), exact)
        for box, out in zip(boxes, outs, strict=True):
            down, across = box.top - have.top, box.left - have.left
            ends = down + box.height, across + box.width
            bottom, right = (max(1, round(end * scale)) for end in ends)
            top, left = min(round(down * scale), bottom - 1), min(round(across * scale), right - 1)
            _resize(pixels[top:bottom, left:right], out, exact)

    def _decode(
        self, boxes: Sequence[Box], size: int, exact: bool
    ) -> tuple[np.ndarray, Box, float]:
        """Pixels [h, w, channels], of which part, and their scale.

        They are there until this thread decodes another image.
        """
        whole = Box(0, 0, self.height, self.width)
        if isinstance(self._image, np.ndarray):
            return self._image, whole, 1.0
        if self._open is not None:
            try:
                return np.asarray(self._open.convert('RGB')), whole, 1.0
            except (OSError, ValueError, SyntaxError, EOFError) as error:
                raise Unreadable(f'damaged {self._open.format} file: {error}') from error
        shrink = 1
        while self.height * self.width > MAX_PIXELS * shrink**2:
            shrink *= 2
        data, have, strict = self._needed(boxes, exact)
        least = have.height // shrink, have.width // shrink
        if not exact:
            parts = min(box.height for box in boxes), min(box.width for box in boxes)
            sides = zip(least, have[2:], parts, strict=True)
            least = tuple(min(n, math.ceil(size * of / part)) for n, of, part in sides)
        pixels = _decode_jpeg(data, have[2:], least, strict)
        # The decoder's scales are eighths, and it rounds sides up.
        return pixels, have, round(8 * max(pixels.shape[:2]) / max(have[2:])) / 8

    def _needed(self, boxes: Sequence[Box], exact: bool) -> tuple[bytes, Box, bool]:
        """A JPEG file that has the parts, what it has, and whether it is to be without fault."""
        assert isinstance(self._image, bytes)
        top, left = min(box.top for box in boxes), min(box.left for box in boxes)
        bottom = max(box.top + box.height for box in boxes)
        right = max(box.left + box.width for box in boxes)
        around = Box(top, left, bottom - top, right - left)
        if cut := cut_tiles(self._image, self.height, self.width, around):
            return *cut, True
        rows, data = self.height, self._image
        if not exact:
            data, rows = _first_rows(data, rows, bottom)
        return data, Box(0, 0, rows, self.width), rows == self.height


def _resize(part: np.ndarray, out: np.ndarray, exact: bool) -> None:
    """Fills in a square of another size."""
    size = len(out)
    if part.shape == out.shape:
        out[...] = part
        return
    if exact or max(part.shape[:2]) > 2 * size:
        height, width = (min(n, size) for n in part.shape[:2])
        part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    target = out[..., 0] if out.shape[-1] == 1 else out  # in place only as OpenCV has the shape
    cv2.resize(part, (size, size), dst=target, interpolation=cv2.INTER_LINEAR)


def _jpeg_header(data: bytes) -> tuple[int, int, str]:
    """Height, width and colours."""
    try:
        return simplejpeg.decode_jpeg_header(data)[:3]
    except ValueError as error:
        raise Unreadable(f'damaged JPEG file: {error}') from error


def _first_rows(data: bytes, height: int, rows: int) -> tuple[bytes, int]:
    """A JPEG file that says it has only these rows, or a few more, and how many.

    The decoder then stops there, which changes no pixel above: blocks of 16 rows, and the chroma of
    one more, make up the last ones. As it would call the rest of the file damage, the file's end is
    looked for here; a file without it, as any that is cut off, or of a kind that does not come from
    the top down, stays as it is.
    """
    kept = min(height, (rows // 16 + 2) * 16)
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] in (0xC0, 0xC1) and kept < height and data.rfind(b'\xff\xd9') > at:
            return data[: at + 5] + kept.to_bytes(2) + data[at + 7 :], kept
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return data, height


def _decode_jpeg(
    data: bytes, size: tuple[int, int], least: tuple[int, int], strict: bool
) -> np.ndarray:
    """RGB [h, w, 3] of an image of this size, perhaps smaller, but not than the least."""
    options = {
        **{'min_height': least[0], 'min_width': least[1], 'min_factor': 2},
        'buffer': _scratch(3 * size[0] * size[1]),
    }
    try:
        try:
            return simplejpeg.decode_jpeg(data, strict=strict, **options)
        except ValueError as error:
            # Bytes between the image and its end mark do no harm, and some cameras leave them.
            if 'extraneous bytes' not in str(error):
                raise
            return simplejpeg.decode_jpeg(data, strict=False, **options)
    except ValueError as error:
        raise Unreadable(f'damaged JPEG file: {error}') from error


def _scratch(count: int) -> np.ndarray | None:
    """This thread's memory to decode to, if so many bytes are not too many for it.

    New memory for each image would cost a third of the time that it takes to decode one.
    """
    if count > SCRATCH:
        return None
    if not hasattr(_own, 'scratch'):
        _own.scratch = np.empty(SCRATCH, np.uint8)
    return _own.scratch


def _open(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise Unreadable(f'this is no file of {", ".join(_FORMATS)}') from error
    image.info.pop('transparency', None)  # of which Pillow warns where it drops it
    header = data.find(b'IHDR')
    if image.format == 'PNG' and data[header + 12 : header + 13] == b'\x10':
        raise Unreadable('PNG file of 16 bits a channel, not of 8')  # Pillow would drop half
    return image
