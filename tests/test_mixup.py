"""Mixup and averaged parameters, in the train step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_checkpoints import quiet  # noqa: F401
from tests.test_train import make, on
from trainers.checkpoints import open_checkpoints, restore_trained
from trainers.classification import Classification
from trainers.construct import UserError
from trainers.loss import multi_hot, sigmoid, softmax
from trainers.mixup import check_mixup, draw_ratio, mix
from trainers.sharding import put_batch
from trainers.state import create_state
from trainers.step import make_train_step

IMAGES = jax.random.normal(jax.random.key(0), (8, 2, 2, 3))
LOGITS = jax.random.normal(jax.random.key(1), (8, 5))
LABEL = {'label': jnp.array([0, 1, 2, 3, 4, 0, 1, 2])}
LABELS = {'labels': jnp.array([[0, 1], [1, -1], [-1, -1], [3, 2], [4, 0], [0, -1], [1, 4], [2, 3]])}
PARTNERS = {1: [4, 5, 6, 7, 0, 1, 2, 3], 2: [2, 3, 0, 1, 6, 7, 4, 5]}
ONES = jnp.ones(8)


@pytest.mark.parametrize('shares', [1, 2])
@pytest.mark.parametrize(
    ('loss', 'batch'),
    [
        (softmax(label_smoothing=0.1), LABEL),
        (sigmoid(reduction='sum'), LABEL),
        (sigmoid(reduction='sum'), LABELS),
    ],
    ids=['softmax', 'sigmoid', 'several'],
)
def test_images_and_losses_are_those_of_the_definition(loss, batch, shares):
    ratio, other = 0.7, np.array(PARTNERS[shares])
    images, mixed = mix(IMAGES, loss, ONES, jnp.float32(ratio), shares)
    np.testing.assert_allclose(images, ratio * IMAGES + 0.3 * IMAGES[other], atol=1e-6)
    hot = np.asarray(multi_hot(batch, 5))
    targets = ratio * hot + 0.3 * hot[other]
    if loss.__qualname__.startswith('softmax'):
        targets = 0.9 * targets + 0.1 / 5
        expected = -(targets * np.log(jax.nn.softmax(LOGITS))).sum(-1)
    else:
        p = 1 / (1 + np.exp(-np.asarray(LOGITS)))
        expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(-1)
    np.testing.assert_allclose(mixed(LOGITS, batch), expected, rtol=1e-5)


def test_clips_are_mixed_as_their_frames():
    clips = jnp.stack([IMAGES, IMAGES[::-1], 2 * IMAGES], axis=1)
    loss, mask = softmax(label_smoothing=0.0), ONES.at[5].set(0)
    found, mixed = mix(clips, loss, mask, jnp.float32(0.7), 2)
    for frame in range(3):
        images, expected = mix(clips[:, frame], loss, mask, jnp.float32(0.7), 2)
        np.testing.assert_array_equal(found[:, frame], images)
    np.testing.assert_array_equal(mixed(LOGITS, LABEL), expected(LOGITS, LABEL))


def test_an_image_whose_partner_is_masked_stays_as_it_is():
    loss = softmax(label_smoothing=0.0)
    mask = ONES.at[5].set(0)
    images, mixed = mix(IMAGES, loss, mask, jnp.float32(0.6), 1)
    plain = jnp.arange(8) == 1
    np.testing.assert_array_equal(images[1], IMAGES[1])
    assert not (images[~plain] == IMAGES[~plain]).all((1, 2, 3)).any()
    same = mixed(LOGITS, LABEL) == loss(LOGITS, LABEL)
    assert same[1]
    whole, _ = mix(IMAGES, loss, ONES, jnp.float32(0.6), 1)
    np.testing.assert_array_equal(images[~plain], whole[~plain])


@pytest.mark.parametrize('alpha', [0.2, 1.0])
def test_the_ratio_is_a_folded_beta(alpha):
    drawn = np.array([draw_ratio(key, alpha) for key in jax.random.split(jax.random.key(0), 400)])
    sample = np.random.default_rng(0).beta(alpha, alpha, 100_000)
    assert 0.5 <= drawn.min() <= drawn.max() <= 1
    assert abs(drawn.mean() - np.maximum(sample, 1 - sample).mean()) < 0.03


def test_batches_that_cannot_be_mixed_are_refused():
    with pytest.raises(UserError, match=r'mixup=-0.1 is negative; use 0'):
        make(mixup=-0.1)
    with pytest.raises(ValueError, match=r'batch_size=8, 8 microbatches .* use a multiple of 16'):
        check_mixup(0.2, 8, 8, 1)
    with pytest.raises(ValueError, match=r'2 shares do not leave; use a multiple of 8'):
        check_mixup(0.2, 12, 2, 2)
    check_mixup(0.0, 12, 2, 2)
    check_mixup(0.2, 16, 2, 2)


def after_a_step(shares, microbatches, alpha=0.5):
    """The states and sums after a step from batches as several processes would put them."""
    experiment = on(make(batch_size=16, microbatches=microbatches, mixup=alpha), 1)
    reading = dataclasses.replace(experiment.reading, shares=shares)
    step = make_train_step(dataclasses.replace(experiment, reading=reading))
    start, found = create_state(experiment), []
    order = np.arange(16).reshape(-1, shares).T.reshape(-1)
    for masked in ([], [3, 9]):
        batch = next(experiment.train_batches())
        batch['mask'][masked] = 0
        batch = put_batch({key: x[order] for key, x in batch.items()}, experiment.mesh)
        found.append(step(jax.tree.map(jnp.array, start), batch))
    return found


@pytest.mark.slow
def test_the_step_is_the_same_for_several_processes_and_microbatches():
    whole = after_a_step(1, 1)
    for (state, sums), (expected, expected_sums) in zip(after_a_step(2, 2), whole, strict=True):
        for key in ('n', 'loss', 'gradient_norm'):
            np.testing.assert_allclose(sums[key], expected_sums[key], rtol=2e-5)
        for a, b in zip(*map(jax.tree.leaves, (state.params, expected.params)), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)
    _, plain = after_a_step(1, 1, alpha=0.0)[0]
    assert float(plain['gradient_norm']) != pytest.approx(float(whole[0][1]['gradient_norm']), 1e-3)


@pytest.fixture(scope='module')
def averaging():
    return on(make(**{'ema': 0.75, 'schedule.warmup_epochs': 0.0, 'checkpoint.keep': 1}), 1)


@pytest.fixture(scope='module')
def averaged(averaging):
    """The state after 3 steps, its average computed by hand."""
    state, step = create_state(averaging), make_train_step(averaging)
    expected = jax.tree.map(np.array, state.params)
    batches = averaging.train_batches()
    for _ in range(3):
        state, _ = step(state, put_batch(next(batches), averaging.mesh))
        expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, expected, state.params)
    return state, expected


@pytest.mark.slow
def test_parameters_are_averaged(averaged):
    state, expected = averaged
    pairs = zip(*map(jax.tree.leaves, (state.ema, expected, state.params)), strict=True)
    for found, average, last in pairs:
        np.testing.assert_allclose(found, average, atol=1e-6)
        assert not np.array_equal(found, last)


@pytest.mark.slow
def test_an_update_that_is_left_out_leaves_the_average(averaging, averaged):
    state = jax.tree.map(jnp.array, averaged[0])
    batch = next(averaging.train_batches())
    batch['mask'][:] = 0  # the mean of no losses
    after, sums = make_train_step(averaging)(state, put_batch(batch, averaging.mesh))
    assert int(sums['skipped']) == 1
    for key in ('params', 'ema', 'opt_state'):
        for a, b in zip(
            *(jax.tree.leaves(getattr(s, key)) for s in (after, averaged[0])), strict=True
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_the_average_is_what_is_evaluated(averaging, averaged):
    state, expected = averaged
    evaluate = Classification(experiment=averaging, dataset='', split='test', batch_size=250)
    plain = dataclasses.replace(state, params=expected, ema=None)
    last = dataclasses.replace(state, ema=None)
    found, by_hand, of_last = (evaluate(s)['digits/test/loss'].value for s in (state, plain, last))
    assert found == pytest.approx(by_hand, rel=1e-5)
    assert found != pytest.approx(of_last, rel=1e-3)


@pytest.mark.slow
def test_the_average_survives_a_checkpoint(averaging, averaged, tmp_path):
    with open_checkpoints(tmp_path, averaging) as checkpoints:
        checkpoints.save(3, averaged[0])
        checkpoints.finish()
    restored = restore_trained(tmp_path, averaging)
    for a, b in zip(*map(jax.tree.leaves, (restored.ema, averaged[0].ema)), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(UserError, match='holds a checkpoint with ema=True, the config has False'):
        restore_trained(tmp_path, on(make(), 1))


@pytest.mark.parametrize('decay', [-0.1, 1.0])
def test_decays_that_are_none_are_refused(decay):
    with pytest.raises(UserError, match=f'ema={decay} is no decay; use 0'):
        make(ema=decay)
