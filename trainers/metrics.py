"""What evaluators measure, and what the trainer knows of them."""

from pathlib import Path
from typing import NamedTuple, Protocol

from trainers.metric_names import count_name
from trainers.state import TrainState


class Metric(NamedTuple):
    """A value and the number of examples that it was computed on."""

    value: float
    n: int


Metrics = dict[str, Metric]


class Evaluator(Protocol):
    """What the trainer knows of an evaluator.

    Its metrics are called PREFIX/..., and where it has protocols PREFIX/...@PROTOCOL, such as
    kinetics400/val/top1@4x3_logits; see `trainers.metric_names`.

    Attributes:
        prefix: of its metrics' names.
        protocols: that they end with, such as '4x3' and '4x3_logits'; ('',) where they have none.
    """

    prefix: str
    protocols: tuple[str, ...]

    def __call__(self, state: TrainState, workdir: Path | None = None) -> Metrics:
        """Evaluates.

        Args:
            state: of the model.
            workdir: where files of an evaluator that has some are written; None writes none.
        """

    def check_data(self) -> None:
        """Reads an example of each split, so that one that is missing is told of at once."""


def count_names(metrics: Metrics) -> dict[str, int]:
    """The numbers of examples of metrics, by their names."""
    return {count_name(name): metric.n for name, metric in metrics.items()}
