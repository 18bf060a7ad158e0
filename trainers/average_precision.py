"""Average precision of each class over videos, as Charades' official script computes it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class AveragePrecisions:
    """What the classes have.

    Attributes:
        of_class: average precision, NaN of a class without a positive.
        positives: how many each class has.
    """

    of_class: Float[np.ndarray, 'classes']
    positives: Int[np.ndarray, 'classes']

    @property
    def mean(self) -> float:
        """The unweighted mean over the classes that have a positive (mAP); NaN if none has."""
        there = self.of_class[self.positives > 0]
        return float(there.mean()) if there.size else float('nan')

    @property
    def weighted(self) -> float:
        """The mean weighted by the numbers of positives (wAP); NaN if there is none."""
        there = self.positives > 0
        if not there.any():
            return float('nan')
        return float(np.average(self.of_class[there], weights=self.positives[there]))


def average_precisions(
    scores: Float[np.ndarray, 'n classes'], positive: Bool[np.ndarray, 'n classes']
) -> AveragePrecisions:
    """Ranks examples by each class's scores: the mean of the precisions at its positives.

    The precision at a rank is the share of positives up to it, and nothing is interpolated
    (Charades_v1_classify.m of Charades). Of equal scores the earlier example ranks higher, so the
    order counts; what is missing has the score -inf.

    Raises:
        ValueError: if a score is NaN.
    """
    if np.isnan(scores).any():
        raise ValueError('scores are not a number (NaN); rank no such example')
    order = np.argsort(-scores, axis=0, kind='stable')
    hits = np.take_along_axis(positive, order, axis=0)
    precisions = np.cumsum(hits, axis=0) / np.arange(1, len(hits) + 1)[:, None]
    positives = hits.sum(axis=0)
    of_class = np.full(len(positives), np.nan)
    np.divide(np.where(hits, precisions, 0).sum(axis=0), positives, of_class, where=positives > 0)
    return AveragePrecisions(of_class, positives)
