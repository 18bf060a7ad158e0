import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainers.augment import Preprocess
from trainers.loss import multi_hot, sigmoid, softmax

LOGITS = jax.random.normal(jax.random.key(0), (3, 5))
LABEL = {'label': jnp.array([4, 0, 2])}
LABELS = {'labels': jnp.array([[4, 1, -1], [0, -1, -1], [-1, -1, -1]])}


def test_multi_hot():
    np.testing.assert_array_equal(multi_hot(LABEL, 5), np.eye(5)[[4, 0, 2]])
    expected = [[0, 1, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(multi_hot(LABELS, 5), expected)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_softmax(smoothing):
    targets = np.eye(5)[[4, 0, 2]] * (1 - smoothing) + smoothing / 5
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    loss = softmax(label_smoothing=smoothing)(LOGITS, LABEL)
    np.testing.assert_allclose(loss, -(targets * np.log(p)).sum(-1), rtol=1e-5)


def test_sigmoid():
    targets, p = multi_hot(LABELS, 5), 1 / (1 + np.exp(-LOGITS))
    expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(-1)
    for reduction, divisor in (('sum', 1), ('mean', 5)):
        loss = sigmoid(reduction=reduction)(LOGITS, LABELS)
        np.testing.assert_allclose(loss, expected / divisor, rtol=1e-5)


def test_losses_are_float32_for_bfloat16_logits():
    for loss in (softmax(label_smoothing=0.0), sigmoid(reduction='sum')):
        assert loss(LOGITS.astype(jnp.bfloat16), LABEL).dtype == jnp.float32


def test_normalisation():
    images = jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 3, 1)
    out = Preprocess((0.2,), (0.4,))(images)
    np.testing.assert_allclose(out.ravel(), [-0.5, 0, 2], atol=1e-6)
    assert out.dtype == jnp.float32
