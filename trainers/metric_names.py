"""How metrics are called: PREFIX/MEASURE, or PREFIX/MEASURE@PROTOCOL.

PREFIX is an evaluator's, such as digits/test, and `train` of the training itself. PROTOCOL is how
videos are seen and scored, such as 4x3_logits.
"""

import re
from collections.abc import Collection
from typing import NamedTuple

SHARES = ('top1', 'top5', 'map', 'wap', 'mean_class')  # are shown in percent, and so is few-shot
COUNTS = ('n', 'annotated', 'readable', 'scored', 'classes', 'unreadable', 'skipped_steps')

# Of measures of other examples than the rest: all annotated ones, or those without a class.
_OTHER_EXAMPLES = ('_strict', '_without_none')


class Name(NamedTuple):
    """The parts of a metric's name; `protocol` is '' where there is none."""

    prefix: str
    measure: str
    protocol: str


def parse_name(name: str) -> Name:
    """The parts of a name: k400/val, top1 and 4x3_logits of k400/val/top1@4x3_logits."""
    path, _, protocol = name.partition('@')
    prefix, _, measure = path.rpartition('/')
    return Name(prefix, measure, protocol)


def count_name(name: str) -> str:
    """What the number of examples of a metric is called, such as digits/test/n or .../n@4x3_logits.

    Metrics of one prefix and protocol have one number, but for those that are of other examples:
    the strict ones, whose is n_strict, and likewise those without the class `none`. A number of
    examples is called as it is.
    """
    prefix, measure, protocol = parse_name(name)
    number = f'{prefix}/n{_other_examples(measure)}'
    return f'{number}@{protocol}' if protocol else number


def belongs(name: str, prefix: str, protocols: Collection[str]) -> bool:
    """Whether a metric is of the evaluator with this prefix and these protocols."""
    return name.startswith(f'{prefix}/') and parse_name(name).protocol in protocols


def is_share(name: str) -> bool:
    """Whether a metric is a share, from 0 to 1."""
    prefix, measure, _ = parse_name(name)
    few_shot = re.fullmatch(r'\d+shot(_seed\d+)?', measure) and not prefix.endswith('/l2')
    return measure.removesuffix(_other_examples(measure)) in SHARES or bool(few_shot)


def is_count(name: str) -> bool:
    """Whether a metric is a number of examples, classes or steps."""
    measure = parse_name(name).measure
    return measure.removesuffix(_other_examples(measure)) in COUNTS


def _other_examples(measure: str) -> str:
    return next(filter(measure.endswith, _OTHER_EXAMPLES), '')
