"""The evaluators of an experiment, by name.

An evaluator is built from the experiment and its settings, and called with a state and the workdir.
It returns, for each metric, the value and the number of examples that it was computed on.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from token_learner.checks import check_choice
from trainers.classification import Classification
from trainers.construct import UserError, construct, construct_named
from trainers.experiment import Experiment
from trainers.fewshot import FewShot
from trainers.metrics import Evaluator
from trainers.multiview import MultiView

EVALUATORS: Mapping[str, Callable[..., Evaluator]] = {
    'classification': Classification,
    'fewshot': FewShot,
    'multiview': MultiView,
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


def make_evaluators(experiment: Experiment, asked: str | None = None) -> Evaluators:
    """The evaluators of `config.evaluators`, by the names given there. Reads no data.

    Args:
        experiment: of the model.
        asked: name of one that else would not be built, as it runs only when it is asked for.

    Raises:
        UserError: if one cannot be built, or the first is none of the trained dataset.
    """
    if asked is not None and asked not in experiment.evaluators:
        raise UserError(
            f'--evaluator={asked} is not in config.evaluators; use one of '
            f'{", ".join(experiment.evaluators)}'
        )
    made: dict[str, Evaluator] = {}
    when = {}
    for name, settings in experiment.evaluators.items():
        where, rest = f'config.evaluators.{name}', dict(settings)
        if 'when' not in rest:
            raise UserError(f'{where}.when is missing; set it')
        when[name] = rest.pop('when')
        construct(partial(check_choice, 'when', when[name], WHEN), {}, where)
        if when[name] != 'asked' or name == asked:
            made[name] = construct_named(EVALUATORS, rest, where, experiment=experiment)
    first = next(iter(made.values()), None)
    if not isinstance(first, Classification) or first.dataset is not experiment.data.dataset:
        raise UserError(
            'the first of config.evaluators has to be a classification on the trained dataset; '
            'name it first'
        )
    if when[next(iter(made))] != 'always':
        raise UserError("the first of config.evaluators needs when='always'; set it")
    names = [(e.prefix, protocol) for e in made.values() for protocol in e.protocols]
    if len(set(names)) < len(names):
        raise UserError(
            'two of config.evaluators have metrics of the same name; '
            'keep one, or give them different splits or views'
        )
    return Evaluators(made, when, first)
