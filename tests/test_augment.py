import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datasets import load_dataset
from tests.test_train import make, on
from trainers.augment import AUGMENTATIONS, Affine, Flip, Preprocess, warp
from trainers.construct import UserError, construct_named
from trainers.sharding import put_batch
from trainers.state import create_state
from trainers.step import make_train_step

IMAGE = jnp.asarray(load_dataset('digits').split('test')[7]['image'] / np.float32(255))
KEYS = jax.random.split(jax.random.key(0), 64)


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        ((0, 1, 0, 0), IMAGE),
        ((np.pi / 2, 1, 0, 0), np.rot90(IMAGE, -1)),
        ((0, 1, 0, 0.25), np.pad(IMAGE, ((0, 0), (7, 0), (0, 0)))[:, :28]),
        ((0, 1, -0.25, 0), np.pad(IMAGE, ((0, 7), (0, 0), (0, 0)))[7:]),
    ],
)
def test_warp(settings, expected):
    np.testing.assert_allclose(warp(IMAGE, *map(jnp.float32, settings)), expected, atol=1e-4)


def test_scale_is_that_of_the_content():
    square = jnp.zeros((28, 28, 1)).at[10:18, 10:18].set(1)
    half = warp(square, *map(jnp.float32, (0, 0.5, 0, 0)))
    assert half.sum() == pytest.approx(16, rel=0.05)
    wide = warp(jnp.ones((8, 16, 1)), *map(jnp.float32, (0, 1, 0, 0)))
    assert (wide == 1).all()


def test_affine_stays_within_its_bounds():
    middle = jnp.zeros((29, 29, 1)).at[14, 14].set(1)
    moved = jax.vmap(Affine(degrees=0.0, scale=0.0, shift=0.1), (0, None))(KEYS, middle)
    rows = (moved.sum((2, 3)) * jnp.arange(29)).sum(1) - 14
    assert 2 < jnp.abs(rows).max() <= 2.9 + 1e-3
    assert abs(rows.mean()) < 1


def test_flip():
    flipped = jax.vmap(Flip(0.25), (0, None))(KEYS, IMAGE)
    turned = (flipped == IMAGE[:, ::-1]).all((1, 2, 3))
    assert (turned | (flipped == IMAGE).all((1, 2, 3))).all()
    assert 6 <= turned.sum() <= 26
    for probability, expected in [(0.0, IMAGE), (1.0, IMAGE[:, ::-1])]:
        np.testing.assert_array_equal(Flip(probability)(KEYS[0], IMAGE), expected)


@pytest.mark.parametrize(
    ('name', 'settings', 'message'),
    [
        ('flip', {'probability': 1.5}, 'config.augment: probability=1.5 .* use 0 to 1'),
        ('flip', {}, 'config.augment.probability is missing'),
        ('rand_augment', {'layers': -1}, 'layers=-1 is negative'),
        ('rand_augment', {'magnitude': 31.0}, 'magnitude=31.0 .* use 0 to 30'),
        ('rand_augment', {'magnitude': -1.0}, 'magnitude=-1.0 .* use 0 to 30'),
        ('rand_augment', {'operations': 'colour'}, 'use one of color, all'),
    ],
    ids=str,
)
def test_bad_settings_are_refused(name, settings, message):
    given = {'layers': 2, 'magnitude': 15.0, 'operations': 'all'} if name != 'flip' else {}
    with pytest.raises(UserError, match=message):
        construct_named(AUGMENTATIONS, {'name': name, **given, **settings}, 'config.augment')


def test_only_training_augments():
    images = (IMAGE * 255).astype(jnp.uint8)[None]
    preprocess = Preprocess((0.5,), (0.25,), (Affine(degrees=30.0, scale=0.1, shift=0.1),))
    np.testing.assert_allclose(preprocess(images), (images / 255 - 0.5) / 0.25, atol=1e-6)
    assert jnp.abs(preprocess(images, KEYS[:1]) - preprocess(images)).max() > 0.5


@pytest.mark.slow
def test_augmentation_follows_from_the_example_for_any_number_of_processes_and_microbatches():
    """Several processes put the batch's rows in the order of their shares."""
    losses = []
    for shares, microbatches in [(1, 1), (2, 1), (1, 2)]:
        experiment = on(make(batch_size=16, microbatches=microbatches), 1)
        batch = next(experiment.train_batches())
        order = np.arange(16).reshape(-1, shares).T.reshape(-1)
        batch = put_batch({key: x[order] for key, x in batch.items()}, experiment.mesh)
        reading = dataclasses.replace(experiment.reading, shares=shares)
        step = make_train_step(dataclasses.replace(experiment, reading=reading))
        _, sums = step(create_state(experiment), batch)
        losses.append(float(sums['loss']))
    np.testing.assert_allclose(losses[1:], losses[0], rtol=1e-6)
