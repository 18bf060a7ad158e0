"""Average precision against the official script's loops, written out for one class at a time."""

import numpy as np
import pytest

from trainers.average_precision import average_precisions


def by_loops(scores, positive):
    """AP of each class, mAP and wAP in plain Python, by the steps of the official script."""
    aps, counts = [], []
    for own, hits in zip(zip(*scores, strict=True), zip(*positive, strict=True), strict=True):
        ranking = sorted(range(len(own)), key=lambda row: -own[row])  # stable
        right, total = 0, 0.0
        for place, row in enumerate(ranking, 1):
            if hits[row]:
                right += 1
                total += right / place
        counts.append(sum(hits))
        aps.append(total / counts[-1])
    weighted = sum(ap * count for ap, count in zip(aps, counts, strict=True)) / sum(counts)
    return aps, sum(aps) / len(aps), weighted


def agree(scores, positive):
    found = average_precisions(scores, positive)
    aps, mean, weighted = by_loops(scores.tolist(), positive.tolist())
    np.testing.assert_allclose(found.of_class, aps, rtol=0, atol=1e-12)
    assert found.mean == pytest.approx(mean, rel=0, abs=1e-12)
    assert found.weighted == pytest.approx(weighted, rel=0, abs=1e-12)
    return found


def drawn(seed, levels):
    """Scores of few values in 40 videos of 12 classes, with 1 to 12 positives; some without any."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (40, 12)) / levels
    positive = np.zeros((40, 12), bool)
    for label in range(12):
        positive[rng.permutation(36)[: 1 + label], label] = True
    return scores, positive[rng.permutation(40)]


@pytest.mark.parametrize('levels', [1, 3, 10**6], ids=['all tie', 'many tie', 'none ties'])
def test_ties_missing_videos_and_single_positives(levels):
    for seed in range(5):
        scores, positive = drawn(seed, levels)
        agree(scores, positive)
        scores[seed::7] = -np.inf  # as what a submission lacks
        agree(scores, positive)


def test_ties_keep_their_order():
    positive = np.array([[0, 1], [1, 0], [0, 0]], bool)
    found = agree(np.zeros((3, 2)), positive)
    assert found.of_class.tolist() == [1 / 2, 1]
    assert agree(np.float64([[0, 0], [0, 1], [0, 0]]), positive).of_class.tolist() == [1 / 2, 1 / 2]


def test_videos_without_actions_may_as_well_be_dropped():
    """Ranked last they change nothing, as long as no positive is missing; as negatives they do."""
    scores, positive = drawn(0, 5)
    there = positive.any(axis=1)
    assert 0 < there.sum() < len(there)
    dropped = average_precisions(scores[there], positive[there])
    last = average_precisions(np.where(there[:, None], scores, -np.inf), positive)
    np.testing.assert_array_equal(last.of_class, dropped.of_class)
    assert average_precisions(scores, positive).mean < dropped.mean


def test_classes_without_a_positive_are_nan_and_left_out_of_the_means():
    scores, positive = drawn(1, 5)
    both = average_precisions(np.hstack([scores, scores]), np.hstack([positive, positive & False]))
    alone = average_precisions(scores, positive)
    assert np.isnan(both.of_class[12:]).all()
    assert (both.mean, both.weighted) == (alone.mean, alone.weighted)
    nothing = average_precisions(scores, positive & False)
    assert np.isnan([nothing.mean, nothing.weighted]).all()


def test_nan_is_refused():
    with pytest.raises(ValueError, match='not a number'):
        average_precisions(np.array([[0.0], [np.nan]]), np.array([[True], [False]]))
