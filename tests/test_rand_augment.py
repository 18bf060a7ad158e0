import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image

from datasets import load_dataset
from trainers.rand_augment import GREY, OPERATIONS, RandAugment

ALL = OPERATIONS['all']
PICTURES = {
    'digit': load_dataset('digits').split('test')[7]['image'],
    'photo': load_sample_image('china.jpg')[120:168, :64],
}
CENTRE = (0.3, 0.9)


@functools.cache
def results(picture, magnitude):
    """The picture after each operation, one way and the other: [side, operation, h, w, c]."""
    which, sides = (np.arange(len(ALL)) + 0.5) / len(ALL), [0.25, 0.75]
    draws = [[[operation, side, *CENTRE] for operation in which] for side in sides]
    apply = RandAugment(1, magnitude, 'all').apply
    apply = jax.jit(jax.vmap(jax.vmap(apply, (None, 0)), (None, 0)))
    return np.asarray(apply(jnp.int32(PICTURES[picture]), jnp.float32(draws)))


def after(picture, name, magnitude, side=1):
    return results(picture, magnitude)[side, ALL.index(name)]


def pillow(picture):
    return Image.fromarray(PICTURES[picture].squeeze())


def unlike(picture, name, magnitude, expected, side=1):
    """How much the levels differ from those expected: at most, and how many do."""
    expected = np.asarray(expected).reshape(PICTURES[picture].shape)
    difference = np.abs(after(picture, name, magnitude, side) - expected.astype(int))
    return difference.max(), (difference > 0).mean()


EVERYWHERE = pytest.mark.parametrize(
    ('picture', 'magnitude'), [('digit', 15.0), ('photo', 15.0), ('photo', 7.0)]
)


@EVERYWHERE
def test_tones_are_those_of_pillow(picture, magnitude):
    image, strength = pillow(picture), magnitude / 10
    threshold, bits = int(strength * 256), int(strength * 4)
    added = image.point(lambda x: min(x + int(strength * 110), 255) if x < 128 else x)
    for name, expected in {
        'equalize': ImageOps.equalize(image),
        'invert': ImageOps.invert(image),
        'posterize': ImageOps.posterize(image, bits),
        'solarize': ImageOps.solarize(image, threshold),
        'solarize_add': added,
    }.items():
        assert unlike(picture, name, magnitude, expected) == (0, 0), name
    # Pillow's floating point may land just below a whole level.
    most, share = unlike(picture, 'autocontrast', magnitude, ImageOps.autocontrast(image))
    assert most <= 1
    assert share < 0.05


@EVERYWHERE
def test_enhancements_are_those_of_pillow(picture, magnitude):
    for name in ('color', 'contrast', 'brightness', 'sharpness'):
        enhance = getattr(ImageEnhance, name.capitalize())(pillow(picture))
        expected = enhance.enhance(0.1 + 0.18 * magnitude)
        most, share = unlike(picture, name, magnitude, expected)
        assert most <= 1, name  # the two may add in another order
        assert share < 0.01, name


@EVERYWHERE
@pytest.mark.parametrize('side', [0, 1])
def test_geometry_is_that_of_pillow(picture, magnitude, side):
    image = pillow(picture)
    strength = magnitude / 10 * (1 if side else -1)
    shear, down, right = 0.3 * strength, *(strength * 100 / 224 * np.array(image.size[::-1]))
    grey = GREY if image.mode == 'L' else (GREY,) * 3
    # Pillow counts from the corner of a pixel, the sources from its centre.
    expected = {'rotate': image.rotate(30 * strength, fillcolor=grey)}
    for name, numbers in {
        'shear_x': (1, shear, -shear / 2, 0, 1, 0),
        'shear_y': (1, 0, 0, shear, 1, -shear / 2),
        'translate_x': (1, 0, right, 0, 1, 0),
        'translate_y': (1, 0, 0, 0, 1, down),
    }.items():
        moved = image.transform(image.size, Image.Transform.AFFINE, numbers, fillcolor=grey)
        expected[name] = moved
    for name, moved in expected.items():
        # Halfway between two pixels either is the nearest.
        assert unlike(picture, name, magnitude, moved, side)[1] < 0.02, name


@EVERYWHERE
def test_cutout_greys_a_square_about_its_centre(picture, magnitude):
    expected = PICTURES[picture].copy()
    (top, bottom), (left, right) = (
        (max(int(share * size) - reach, 0), int(share * size) + reach)
        for share, size in zip(CENTRE, expected.shape, strict=False)
        for reach in [int(magnitude * 4 * size / 224)]
    )
    expected[top:bottom, left:right] = GREY
    assert unlike(picture, 'cutout', magnitude, expected) == (0, 0)


def test_what_magnitude_0_leaves():
    image = PICTURES['photo']
    for name in ('rotate', 'shear_x', 'shear_y', 'translate_x', 'translate_y', 'cutout'):
        np.testing.assert_array_equal(after('photo', name, 0.0), image, name)
    np.testing.assert_array_equal(after('photo', 'solarize_add', 0.0), image)
    np.testing.assert_array_equal(after('photo', 'solarize', 0.0), 255 - image)
    assert not after('photo', 'posterize', 0.0).any()
    assert after('photo', 'brightness', 0.0).max() == int(0.1 * image.max())


def test_beyond_8_bits_nothing_changes():
    for name in ('posterize', 'solarize'):
        np.testing.assert_array_equal(after('photo', name, 30.0), PICTURES['photo'])


@functools.cache
def augmented(operations):
    """The photo by 256 keys, and one that differs from it in a few pixels, as whole levels."""
    frames = np.stack([PICTURES['photo']] * 2)
    frames[1, 20:22, 30:32] -= 9
    augment = jax.vmap(RandAugment(1, 15.0, operations), (None, 0))
    keys = jax.random.split(jax.random.key(0), 256)
    found = jax.jit(jax.vmap(augment, (0, None)))(keys, frames / np.float32(255))
    levels = np.rint(np.asarray(found) * 255).astype(int)
    np.testing.assert_allclose(found, levels / 255, atol=1e-6)
    return levels


def name_of(image):
    """The operation that made this image of the photo; only of the cutout is the place unknown."""
    for name in ALL:
        if any((image == after('photo', name, 15.0, side)).all() for side in (0, 1)):
            return name
    changed = (image != PICTURES['photo']).any(-1)
    return 'cutout' if (image[changed] == GREY).all() else None


@pytest.mark.slow
@pytest.mark.parametrize('operations', OPERATIONS)
def test_every_operation_is_drawn_equally_often(operations):
    counts = Counter(name_of(image) for image in augmented(operations)[:, 0])
    # At magnitude 15 posterize leaves 6 bits, and solarize nothing to do.
    assert set(counts) == set(OPERATIONS[operations])
    mean = 256 / len(OPERATIONS[operations])
    assert all(mean / 3 < count < mean * 2 for count in counts.values()), counts


def test_frames_of_one_key_are_treated_alike():
    first, second = augmented('all').swapaxes(0, 1)
    assert ((np.abs(first - second) > 4).mean((1, 2, 3)) < 0.02).all()


def test_layers_follow_one_another_and_from_the_key():
    image = jnp.float32(PICTURES['photo']) / 255
    key = jax.random.key(3)
    augment = RandAugment(2, 15.0, 'all')
    found = jax.jit(augment)(key, image)
    levels = jnp.int32(PICTURES['photo'])
    for drawn in jax.random.uniform(key, (2, 4)):
        levels = jax.jit(augment.apply)(levels, drawn)
    np.testing.assert_allclose(found, levels / 255, atol=1e-6)
    np.testing.assert_allclose(RandAugment(0, 15.0, 'all')(key, image), image, atol=1e-6)


def test_only_grey_and_rgb_are_taken():
    with pytest.raises(ValueError, match='takes 1 or 3 channels, not 4'):
        RandAugment(1, 9.0, 'all')(jax.random.key(0), jnp.zeros((8, 8, 4)))
