"""The evaluators of an experiment, by name.

An evaluator is built from the experiment and its settings, and called with a state. It
returns, for each metric, the value and the number of examples that it was computed on.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from token_learner.checks import check_choice
from trainers.classification import Classification
from trainers.construct import UserError, construct, construct_named
from trainers.experiment import Experiment
from trainers.fewshot import FewShot
from trainers.metrics import Evaluator

EVALUATORS: Mapping[str, Callable[..., Evaluator]] = {
    'classification': Classification,
    'fewshot': FewShot,
}

# The setting `when` of each: while training goes on and at its end, only at the end, or only with
# --mode=eval --evaluator=NAME.
WHEN = ('always', 'end', 'asked')


class Evaluators(Mapping[str, Evaluator]):
    """The evaluators of an experiment by name; the first one is of the trained dataset.

    Attributes:
        first: its classification, that names the split of results, predictions and pictures.
    """

    def __init__(
        self, evaluators: Mapping[str, Evaluator], when: Mapping[str, str], first: Classification
    ) -> None:
        self._evaluators, self._when, self.first = dict(evaluators), when, first

    def __getitem__(self, name: str) -> Evaluator:
        return self._evaluators[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._evaluators)

    def __len__(self) -> int:
        return len(self._evaluators)

    def due(self, *, end: bool) -> list[Evaluator]:
        """Those that run while training goes on, or at its end."""
        times = ('always', 'end') if end else ('always',)
        return [e for name, e in self.items() if self._when[name] in times]

    def named(self, name: str | None) -> list[Evaluator]:
        """One, or those that a run comes to by itself.

        Raises:
            UserError: if there is none of that name.
        """
        if name is None:
            return self.due(end=True)
        if name not in self:
            raise UserError(
                f'--evaluator={name} is not in config.evaluators; use one of {", ".join(self)}'
            )
        return [self[name]]


def make_evaluators(experiment: Experiment) -> Evaluators:
    """The evaluators of `config.evaluators`, by the names given there. Reads no data.

    Raises:
        UserError: if one cannot be built, or the first is none of the trained dataset.
    """
    made: dict[str, Evaluator] = {}
    when = {}
    for name, settings in experiment.evaluators.items():
        where, rest = f'config.evaluators.{name}', dict(settings)
        when[name] = rest.pop('when', 'always')
        construct(partial(check_choice, 'when', when[name], WHEN), {}, where)
        made[name] = construct_named(EVALUATORS, rest, where, experiment=experiment)
    name, first = next(iter(made.items()), ('', None))
    if not isinstance(first, Classification) or first.dataset is not experiment.data.dataset:
        raise UserError(
            'the first of config.evaluators has to be a classification on the trained dataset; '
            'name it first'
        )
    if when[name] != 'always':
        raise UserError(f"config.evaluators.{name} is the first, and needs when='always'")
    if len({e.prefix for e in made.values()}) < len(made):
        raise UserError(
            'two of config.evaluators have metrics of the same name; '
            'keep one, or give them different splits'
        )
    return Evaluators(made, when, first)
