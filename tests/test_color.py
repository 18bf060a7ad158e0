"""Random colours against colorsys and TensorFlow, and clips whose frames are augmented alike."""

import colorsys
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from tests.conftest import run_script
from trainers.augment import AUGMENTATIONS, Affine, Flip, Preprocess
from trainers.color import Color, adjust_contrast, adjust_hue, adjust_saturation, grey
from trainers.construct import UserError, construct_named
from trainers.rand_augment import RandAugment

PHOTO = load_sample_image('flower.jpg')[200:232:2, 300:348:2]
IMAGE = np.concatenate(
    [
        PHOTO.reshape(-1, 3) / 255,
        np.random.default_rng(0).random((180, 3)),
        np.eye(3),
        1 - np.eye(3),
        np.outer([0, 0.3, 1], [1, 1, 1]),
        [[0.5, 0.5, 0.2], [0.2, 0.5, 0.5], [0.5, 0.2, 0.5]],
    ]
).reshape(24, 24, 3)
WIDE = 1.4 * IMAGE - 0.2  # as far outside 0..1 as brightness and contrast take it, and more
KEYS = jax.random.split(jax.random.key(0), 200)
ALWAYS = Color(prob_color_augment=1.0, prob_color_drop=0.0)


def on_planes(function, image, *settings):
    planes = tuple(jnp.asarray(image[..., i], jnp.float32) for i in range(3))
    return np.stack(jax.jit(function)(planes, *map(jnp.float32, settings)), -1)


def contrast(planes, factor):
    return [adjust_contrast(plane, factor) for plane in planes]


def in_hsv(image, saturation=1.0, turn=0.0):
    def pixel(rgb):
        h, s, v = colorsys.rgb_to_hsv(*rgb)
        return colorsys.hsv_to_rgb((h + turn) % 1, min(saturation * s, 1), v)

    return np.apply_along_axis(pixel, -1, image)


@pytest.mark.parametrize('factor', [0.0, 0.6, 1.0, 1.4, 9.0])
def test_saturation_is_that_of_hsv(factor):
    found = on_planes(adjust_saturation, IMAGE, factor)
    np.testing.assert_allclose(found, in_hsv(IMAGE, saturation=factor), atol=1e-6)


@pytest.mark.parametrize('turn', [-0.5, -0.2, 0.0, 0.05, 0.2, 0.5])
def test_hue_is_that_of_hsv(turn):
    found = on_planes(adjust_hue, IMAGE, turn)
    np.testing.assert_allclose(found, in_hsv(IMAGE, turn=turn), atol=2e-6)


def test_contrast_turns_about_the_mean_of_each_channel():
    mean = IMAGE.mean((0, 1))
    found = on_planes(contrast, IMAGE, 1.4)
    np.testing.assert_allclose(found, mean + 1.4 * (IMAGE - mean), atol=1e-6)


TENSORFLOW = """
import numpy as np
import tensorflow as tf

images = np.load({given!r}).astype(np.float32)
brightness, saturation, contrast, hue = {settings}
found = tf.image.adjust_brightness(images, brightness)
found = tf.image.adjust_saturation(found, saturation)
found = tf.image.adjust_contrast(found, contrast)
found = tf.clip_by_value(tf.image.adjust_hue(found, hue), 0, 1)
np.savez(
    {out!r},
    saturation=tf.image.adjust_saturation(images, saturation),
    contrast=tf.image.adjust_contrast(images, contrast),
    hue=tf.image.adjust_hue(images, hue),
    grey=tf.image.rgb_to_grayscale(images),
    all=found,
)
"""


@pytest.mark.slow
def test_all_are_those_of_tensorflow_within_and_outside_0_to_1(tmp_path):
    images, settings = np.stack([IMAGE, WIDE]), (-24 / 255, 1.3, 0.7, -0.15)
    given, out = str(tmp_path / 'images.npy'), str(tmp_path / 'found.npz')
    np.save(given, images)
    run_script(tmp_path, TENSORFLOW.format(given=given, out=out, settings=settings))
    expected = np.load(out)
    operations = {
        'saturation': (adjust_saturation, 1.3),
        'contrast': (contrast, 0.7),
        'hue': (adjust_hue, -0.15),
        'grey': (lambda planes: [grey(planes)],),
    }
    for name, operation in operations.items():
        function, *given = operation
        found = [on_planes(function, image, *given) for image in images]
        np.testing.assert_allclose(found, expected[name], atol=5e-6, err_msg=name)
    drawn = [(-24 / 32 + 1) / 2, 0.7 / 0.8, 0.1 / 0.8, (-0.15 / 0.2 + 1) / 2]
    for image, after in zip(images, expected['all'], strict=True):
        found = on_planes(lambda planes: ALWAYS.change(planes, jnp.float32(drawn)), image)
        np.testing.assert_allclose(found, after, atol=5e-6)


def augmented(color, image=PHOTO):
    image = jnp.float32(image) / 255
    return np.asarray(jax.jit(jax.vmap(color, (0, None)))(KEYS, image)), np.asarray(image)


def is_grey(images):
    return (np.ptp(images, axis=-1) == 0).all((1, 2))


def test_keys_draw_and_values_stay_from_0_to_1():
    found, _ = augmented(ALWAYS)
    assert len(np.unique(found.reshape(len(KEYS), -1), axis=0)) == len(KEYS)
    assert 0 <= found.min() < found.max() <= 1
    assert not is_grey(found).any()


def test_brightness_is_uniform_within_its_bounds():
    found, image = augmented(ALWAYS, np.full((8, 8, 3), 128))
    added = found - image
    assert (np.ptp(added, axis=(1, 2, 3)) < 1e-6).all()
    assert np.abs(added).max() <= 32 / 255 + 1e-6
    quarters, _ = np.histogram(added[:, 0, 0, 0] * 255, bins=4, range=(-32, 32))
    assert quarters.sum() == len(KEYS)
    assert quarters.min() > 30


@pytest.mark.parametrize('drop', [0.0, 0.25, 1.0])
@pytest.mark.parametrize('change', [0.0, 0.75, 1.0])
def test_probabilities(change, drop):
    found, image = augmented(Color(prob_color_augment=change, prob_color_drop=drop))
    same = (found == image).all((1, 2, 3)) | (
        np.abs(found - (image @ [0.2989, 0.587, 0.114])[..., None]).max((1, 2, 3)) < 1e-6
    )
    for times, probability in ((~same, change), (is_grey(found), drop)):
        assert abs(times.mean() - probability) <= (0.1 if probability % 1 else 0)


def test_settings_of_no_effect_leave_the_image():
    still = Color(1.0, 0.0, brightness=0.0, saturation=(1.0, 1.0), contrast=(1.0, 1.0), hue=0.0)
    found, image = augmented(still)
    np.testing.assert_allclose(found, np.broadcast_to(image, found.shape), atol=1e-6)


def test_grey_images_change_in_brightness_and_contrast():
    one = Color(1.0, 1.0, brightness=0.0, contrast=(0.5, 0.5))
    found, image = augmented(one, PHOTO[..., :1])
    half = image.mean() + 0.5 * (image - image.mean())
    np.testing.assert_allclose(found, np.broadcast_to(half, found.shape), atol=1e-6)
    with pytest.raises(ValueError, match='takes 1 or 3 channels, not 4'):
        ALWAYS(KEYS[0], jnp.zeros((8, 8, 4)))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'prob_color_augment': 1.5}, 'prob_color_augment=1.5 is out of range; use 0 to 1'),
        ({'prob_color_drop': float('nan')}, 'prob_color_drop=nan is out of range; use 0 to 1'),
        ({'brightness': -0.1}, 'brightness=-0.1 is out of range; use 0 to 1'),
        ({'hue': 0.6}, 'hue=0.6 is out of range; use 0 to 0.5'),
        ({'saturation': (1.4, 0.6)}, r'saturation=\(1.4, 0.6\) are no bounds; use two'),
        ({'contrast': (-1.0, 0.6)}, r'contrast=\(-1.0, 0.6\) are no bounds; use two'),
        ({'hues': 0.1}, 'hues is not a known key; did you mean hue?'),
    ],
    ids=str,
)
def test_bad_settings_are_refused(settings, message):
    given = {'name': 'color', 'prob_color_augment': 0.8, 'prob_color_drop': 0.1, **settings}
    with pytest.raises(UserError, match=message):
        construct_named(AUGMENTATIONS, given, 'config.augment.color')


WAYS = {
    'color': Color(0.8, 0.5),
    'flip': Flip(0.5),
    'affine': Affine(degrees=20.0, scale=0.1, shift=0.1),
    'rand_augment': RandAugment(2, 15.0, 'all'),
}


@pytest.fixture(scope='module')
def clips():
    """Six clips of four frames, and the preprocessing of clips and images with all ways."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6, 4, 16, 12, 3), np.uint8), KEYS[:6]


@pytest.mark.slow
@pytest.mark.parametrize('way', WAYS)
def test_frames_of_a_clip_are_augmented_as_images_with_one_key(clips, way):
    clips, keys = clips
    preprocess = jax.jit(Preprocess((0.5,), (0.25,), (WAYS[way],)))
    found = preprocess(clips, keys)
    assert found.shape == clips.shape
    for frame in (0, 3):
        np.testing.assert_allclose(found[:, frame], preprocess(clips[:, frame], keys), atol=2e-5)
    still = preprocess(clips[:, :1].repeat(4, axis=1), keys)
    np.testing.assert_array_equal(still, np.broadcast_to(still[:, :1], still.shape))
    assert (found != preprocess(clips)).any()


def test_a_clip_follows_from_its_key_wherever_it_is_in_the_batch(clips):
    clips, keys = clips
    preprocess = jax.jit(Preprocess((0.5,), (0.25,), (WAYS['flip'], WAYS['color'])))
    order = np.array([3, 0, 5, 1, 4, 2])
    found = preprocess(clips[order], keys[order])
    np.testing.assert_allclose(found, preprocess(clips, keys)[order], atol=1e-6)
    assert np.abs(preprocess(clips, keys[order]) - preprocess(clips, keys)).max() > 0.5


def test_without_keys_clips_are_only_scaled(clips):
    scaled = Preprocess((0.5,), (0.25,), (ALWAYS,))(jnp.asarray(clips[0]))
    np.testing.assert_allclose(scaled, (clips[0] / 255 - 0.5) / 0.25, atol=1e-5)


def test_a_clip_takes_one_draw(clips):
    """Random bits are unsigned; no array of them has the axis of the frames."""
    preprocess = Preprocess((0.5,), (0.25,), (WAYS['flip'], WAYS['color']))
    text = jax.jit(preprocess).lower(*clips).as_text()
    assert 'tensor<6x4x16x12x3xf32>' in text
    assert 'tensor<6x6xui32>' in text
    assert not re.search(r'tensor<6x4(x\d+)*xui32>', text)
