"""RandAugment (Cubuk et al., arXiv:1909.13719), as the public ViT recipes apply it.

The operations and their scales are facts of google-research/big_vision, pp/autoaugment.py (the
copy in google-research/scenic names the same ones). They are defined on 8 bits, so here an image
is rounded to levels 0..255 first and every operation ends on a whole level, as Pillow's do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Bool, Float, Int, Key

from token_learner.checks import check_choice

COLOR = (
    *('autocontrast', 'equalize', 'invert', 'posterize', 'solarize', 'solarize_add'),
    *('color', 'contrast', 'brightness', 'sharpness'),
)
GEOMETRY = ('rotate', 'shear_x', 'shear_y', 'translate_x', 'translate_y', 'cutout')
OPERATIONS = {'color': COLOR, 'all': COLOR + GEOMETRY}

GREY = 128  # of what lies outside the image or is cut out
LUMA = (19595, 38470, 7471)  # parts in 65536 of red, green and blue (ITU-R 601-2, as in Pillow)

Levels = Int[Array, 'h w c']
Plane = Int[Array, 'h w']


@dataclass(frozen=True)
class RandAugment:
    """Operations drawn uniformly and with replacement, all of one magnitude.

    As in the sources, posterize and solarize weaken with the magnitude: at 0 one blackens and the
    other inverts, and beyond 8 bits (20 and 10) they change nothing. Where the sources differ from
    Pillow, which they name as their model, this is Pillow: contrast turns about the mean grey
    (theirs about the number of pixels / 256), and sharpness rounds what it smooths (theirs cuts
    it off). Shifts and cutouts are theirs on 224 x 224 pixels, and scale with the image.

    Attributes:
        layers: operations an image (N in the paper).
        magnitude: of all operations (M), 10 being the end of the paper's scale.
        operations: 'all', or 'color' to leave out those that move or cut out pixels.

    Raises:
        ValueError: if layers or magnitude is out of range, or operations is unknown.
    """

    layers: int
    magnitude: int | float
    operations: str

    def __post_init__(self) -> None:
        if self.layers < 0:
            raise ValueError(f'layers={self.layers} is negative; use 0 or more')
        if not 0 <= self.magnitude <= 30:
            raise ValueError(f'magnitude={self.magnitude} is out of range; use 0 to 30')
        check_choice('operations', self.operations, tuple(OPERATIONS))

    def __call__(self, key: Key[Array, ''], image: Float[Array, 'h w c']) -> Float[Array, 'h w c']:
        """Applies the operations that the key draws, whatever the image is.

        Raises:
            ValueError: if the image is neither grey nor RGB.
        """
        if image.shape[-1] not in (1, 3):
            raise ValueError(f'rand_augment takes 1 or 3 channels, not {image.shape[-1]}')
        levels = jnp.round(image * 255).astype(jnp.int32)
        draws = jax.random.uniform(key, (self.layers, 4))
        levels, _ = jax.lax.scan(lambda done, drawn: (self.apply(done, drawn), None), levels, draws)
        return levels.astype(image.dtype) / 255

    def apply(self, levels: Levels, drawn: Float[Array, '4']) -> Levels:
        """Applies one operation.

        Under `jax.vmap` a switch would compute every operation for every image. Here they share
        four stages, a look-up, a blend, a gather and a mask, each of which leaves the image as it
        is unless its operation was drawn.

        Args:
            levels: of the image, 0..255.
            drawn: from 0 to 1: which operation, which way, and where down and right.
        """
        names, strength = OPERATIONS[self.operations], self.magnitude / 10
        operation = jnp.floor(drawn[0] * len(names)).astype(jnp.int32)
        tones = partial(change_tones, operation=operation, strength=strength)
        levels = enhance(jax.vmap(tones, -1, -1)(levels), operation, strength)
        if names == COLOR:
            return levels
        levels = move(levels, operation, jnp.where(drawn[1] < 0.5, -strength, strength))
        return cut_out(levels, operation, strength, drawn[2:])


def change_tones(plane: Plane, operation: Int[Array, ''], strength: float) -> Plane:
    """Looks a channel's levels up in the table of the operation."""
    # Channel by channel, as a TPU pads an innermost 3 to 128. Sorting takes a CPU four times as
    # long, one-hot products ten times.
    counts = jnp.zeros(256, jnp.int32).at[plane].add(1)
    tones = jnp.arange(256)
    shift = max(8 - int(strength * 4), 0)
    added = jnp.minimum(tones + int(strength * 110), 255)
    table = _choose(
        operation,
        {
            'autocontrast': stretch(counts),
            'equalize': equalize(counts),
            'invert': 255 - tones,
            'posterize': tones >> shift << shift,
            'solarize': jnp.where(tones < int(strength * 256), tones, 255 - tones),
            'solarize_add': jnp.where(tones < 128, added, tones),
        },
        tones,
    )
    return jnp.take(table, plane, mode='clip')


def stretch(counts: Int[Array, '256']) -> Int[Array, '256']:
    """The table that takes the lowest level to 0 and the highest to 255, rounding down."""
    tones = jnp.arange(256)
    low, high = jnp.argmax(counts > 0), 255 - jnp.argmax(counts[::-1] > 0)
    stretched = jnp.clip((tones - low) * 255 // jnp.maximum(high - low, 1), 0, 255)
    return jnp.where(high > low, stretched, tones)


def equalize(counts: Int[Array, '256']) -> Int[Array, '256']:
    """The table that spreads the pixels evenly over the levels, in Pillow's whole numbers."""
    high = 255 - jnp.argmax(counts[::-1] > 0)
    step = (counts.sum() - counts[high]) // 255
    below = counts.cumsum() - counts
    spread = jnp.minimum((below + step // 2) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, spread, jnp.arange(256))


def enhance(levels: Levels, operation: Int[Array, ''], strength: float) -> Levels:
    """Blends the image with one that lacks what is enhanced, or with itself."""
    luma = grey(levels)
    base = _choose(
        operation,
        {
            'color': luma,
            'contrast': jnp.floor(luma.mean() + 0.5).astype(jnp.int32),
            'brightness': jnp.int32(0),
            'sharpness': smooth(levels),
        },
        levels,
    )
    blended = base + (0.1 + 1.8 * strength) * (levels - base)
    return jnp.clip(blended, 0, 255).astype(jnp.int32)


def grey(levels: Levels) -> Int[Array, 'h w 1']:
    """The luma of an image of 1 or 3 channels."""
    if levels.shape[-1] == 1:
        return levels
    return ((levels * jnp.array(LUMA)).sum(-1, keepdims=True) + 2**15) >> 16


def smooth(levels: Levels) -> Levels:
    """Means of 3x3 pixels, the middle one counted five times; the border stays."""
    pixels = levels.astype(jnp.float32)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    nine = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    middle = jnp.floor((nine + 4 * pixels[1:-1, 1:-1]) / 13 + 0.5).astype(jnp.int32)
    return levels.at[1:-1, 1:-1].set(middle)


def move(levels: Levels, operation: Int[Array, ''], strength: Float[Array, '']) -> Levels:
    """Turns about the centre, shears about the corner or shifts; nearest neighbour, else grey.

    At magnitude 10 by 30 degrees, by 0.3, and by 100 of 224 parts of a side.
    """
    h, w, _ = levels.shape

    def amount(name: str, most: float) -> Float[Array, '']:
        return _choose(operation, {name: most * strength}, 0.0)

    angle = amount('rotate', np.pi / 6)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    y, x = jnp.mgrid[:h, :w].astype(jnp.float32)
    up, left = y - (h - 1) / 2, x - (w - 1) / 2
    rows = cos * up + sin * left + (h - 1) / 2
    columns = cos * left - sin * up + (w - 1) / 2
    rows += amount('shear_y', 0.3) * x + amount('translate_y', h * 100 / 224)
    columns += amount('shear_x', 0.3) * y + amount('translate_x', w * 100 / 224)
    return jax.vmap(
        lambda plane: map_coordinates(plane, [rows, columns], 0, cval=GREY), in_axes=-1, out_axes=-1
    )(levels)


def cut_out(
    levels: Levels,
    operation: Int[Array, ''],
    strength: float,
    where: Float[Array, '2'],
) -> Levels:
    """Greys a square about a pixel, at magnitude 10 by 40 of 224 parts of a side each way."""
    h, w, _ = levels.shape

    def inside(size: int, share: Float[Array, '']) -> Bool[Array, 'size']:
        reach = _choose(operation, {'cutout': int(strength * 40 * size / 224)}, 0)
        return jnp.abs(jnp.arange(size) + 0.5 - jnp.floor(share * size)) < reach

    hole = inside(h, where[0])[:, None, None] & inside(w, where[1])[:, None]
    return jnp.where(hole, GREY, levels)


def _choose(operation: Int[Array, ''], choices: Mapping[str, Any], default: Any) -> Array:
    """The choice named as the operation drawn, or the default where there is none."""
    drawn = [operation == OPERATIONS['all'].index(name) for name in choices]
    return jnp.select(drawn, list(choices.values()), default)
