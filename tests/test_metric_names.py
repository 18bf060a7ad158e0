"""The names of metrics: whose they are, what they are counted by, and how they are shown."""

import subprocess
import sys

import pytest

from tests.forked import ROOT
from trainers.metric_names import belongs, count_name, is_count, is_share, parse_name
from trainers.metrics import Metric, count_names


def test_a_name_has_three_parts():
    assert parse_name('digits/test/top1') == ('digits/test', 'top1', '')
    assert parse_name('k/val/top1_strict@4x3_logits') == ('k/val', 'top1_strict', '4x3_logits')
    assert parse_name('step') == ('', 'step', '')


def test_metrics_belong_by_prefix_and_protocol():
    evaluators = [
        *(('k/val', ('1x1_center',)), ('k/val', ('1x1', '1x1_logits')), ('k/val', ('4x3_logits',))),
        *(('k/val2', ('1x1',)), ('i/val', ('',))),
    ]
    for name, owner in [
        *(('k/val/top1@1x1_center', 0), ('k/val/top1@1x1_logits', 1), ('k/val/scored@1x1', 1)),
        *(('k/val/top5@4x3_logits', 2), ('k/val2/scored@1x1', 3), ('i/val/top1', 4)),
        ('k/val/top1@14x3_logits', None),
    ]:
        owners = [i for i, evaluator in enumerate(evaluators) if belongs(name, *evaluator)]
        assert owners == ([] if owner is None else [owner])


def test_metrics_of_the_same_examples_have_one_number():
    counted = {
        'i/val/top1': Metric(0.5, 7),
        'k/val/top1@4x3_logits': Metric(0.5, 8),
        'k/val/top1_strict@4x3_logits': Metric(0.4, 10),
        'k/val/mean_class_without_none@4x3_logits': Metric(0.4, 6),
        'k/val/scored@4x3': Metric(8.0, 8),
    }
    numbers = count_names(counted)
    assert numbers == {
        **{'i/val/n': 7, 'k/val/n@4x3_logits': 8, 'k/val/n_strict@4x3_logits': 10},
        **{'k/val/n_without_none@4x3_logits': 6, 'k/val/n@4x3': 8},
    }
    assert [count_name(name) for name in numbers] == list(numbers)
    assert all(map(is_count, numbers))


@pytest.mark.parametrize(
    ('name', 'share', 'count'),
    [
        *((f'k/val/{name}', True, False) for name in ('top1', 'top5_strict', 'mean_class', 'wap')),
        *((f'k/val/{name}@4x3', False, True) for name in ('n', 'classes', 'annotated', 'scored')),
        ('k/val/mean_class_without_none@4x3_probs', True, False),
        ('charades/test/map@allx1_max', True, False),
        ('fewshot_lsr_fixed/dtd/test/5shot_seed0', True, False),
        ('fewshot_lsr_rank/l2/5shot', False, False),  # a strength
        ('train/skipped_steps', False, True),
        ('digits/test/loss', False, False),
        ('digits/test/mapped', False, False),
    ],
)
def test_what_is_a_share_and_what_is_counted(name, share, count):
    assert (is_share(name), is_count(name)) == (share, count)


def test_names_need_no_jax():
    code = 'import sys; sys.modules["jax"] = None; import trainers.metric_names'
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
