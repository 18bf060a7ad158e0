"""Scores of videos: how views are merged, what is measured, and the files of it."""

import csv

import numpy as np
import pytest

from trainers.metrics import Metric
from trainers.video_scores import VideoScores, measure, merge_clips, write_scores, write_tables

NAMES = tuple('abcdefg')


def rows(*clips, size=None):
    """A batch of clips (video, clip, logits, probabilities, label), the last place first.

    None as logits is a clip that cannot be read; up to `size` it is filled up with padding.
    """
    blank = [0.0] * len(NAMES)
    filled = [*clips, *[clips[-1]] * ((size or len(clips)) - len(clips))]
    real = np.arange(len(filled)) < len(clips)
    read = np.array([clip[2] is not None for clip in filled])
    batch = {
        'video_number': np.array([clip[0] for clip in filled], np.int32),
        'clip_number': np.array([clip[1] for clip in filled], np.int32),
        'logits': np.array([clip[2] or blank for clip in filled], np.float32),
        'max': np.array([clip[2] or blank for clip in filled], np.float32),
        'probs': np.array([clip[3] or blank for clip in filled], np.float32),
        'labels': np.array([[clip[4]] for clip in filled], np.int32),
        'place': np.arange(len(filled), dtype=np.int32),
        'mask': np.float32(real & read),
        'unreadable': np.float32(real & ~read),
    }
    return {key: values[::-1] for key, values in batch.items()}


def ones(*places):
    return [float(i in places) for i in range(len(NAMES))]


def minus(*places):
    return [x - 2 for x in ones(*places)]


def test_clips_are_merged_and_a_video_with_one_that_cannot_be_read_is_left_out():
    batches = [
        rows(
            (0, 0, ones(1), ones(2), 3), (0, 1, ones(1, 4), ones(3), 3), (1, 0, ones(0), ones(), 5)
        ),
        rows((1, 1, None, None, -1), (1, 2, ones(0), ones(0), 5), (2, 0, minus(6), ones(), -1)),
        rows((3, 0, None, None, -1), size=3),
    ]
    clips_of = np.array([2, 3, 1, 1])
    reductions = ('max', 'logits', 'probs')
    readable, labels, merged = merge_clips('set/val', batches, clips_of, 7, 1, reductions)
    assert readable.tolist() == [True, False, True, False]
    assert labels[:3].tolist() == [[3], [5], [-1]]
    assert {values.dtype for values in merged.values()} == {np.dtype(np.float32)}
    assert merged['logits'][0].tolist() == [0, 1, 0, 0, 0.5, 0, 0]
    assert merged['max'][0].tolist() == ones(1, 4)
    assert merged['probs'][0].tolist() == [0, 0, 0.5, 0.5, 0, 0, 0]
    assert merged['logits'][2].tolist() == merged['max'][2].tolist() == minus(6)


@pytest.mark.parametrize('bad', ['missing', 'twice'])
def test_a_clip_that_is_missing_or_comes_twice_is_an_error(bad):
    clips = [(0, k, ones(k), ones(k), 0) for k in range(3)]
    clips = clips[:-1] if bad == 'missing' else [*clips, clips[1]]
    with pytest.raises(RuntimeError, match=r'set/val: 1 of 3 clips were not seen exactly once'):
        merge_clips('set/val', [rows(*clips)], np.array([3]), len(NAMES), 1, ('logits',))


# Five classes are likelier than the label of the last video but one; of that before the label's
# score is also that of a class with a lower number.
LOGITS = [ones(0), ones(1), ones(2), ones(1), ones(1, 2), np.arange(7.0), ones(5)]
PROBS = [ones(0), ones(0), ones(2), ones(0), ones(2), np.arange(7.0), ones(5)]
LABELS = [0, 1, 2, 0, 2, 1, -1]


def scores(labels=LABELS, annotated=9):
    merged = {'logits': np.float32(LOGITS), 'probs': np.float32(PROBS)}
    labels = np.array(labels, np.int32).reshape(len(LOGITS), -1)
    return VideoScores([f'v{i}' for i in range(len(LOGITS))], labels, merged, annotated)


def test_metrics_of_both_reductions_and_the_strict_ones():
    """Of 9 annotated videos 7 can be read and 6 have a label: 8 could have been right."""
    assert measure(scores(), '4x3', NAMES) == {
        'annotated@4x3': (9.0, 6),
        'readable@4x3': (7.0, 6),
        'scored@4x3': (6.0, 6),
        'classes@4x3': (3.0, 6),
        'top1@4x3_logits': (3 / 6, 6),
        'top1_strict@4x3_logits': (3 / 8, 8),
        'top5@4x3_logits': (5 / 6, 6),
        'top5_strict@4x3_logits': (5 / 8, 8),
        'mean_class@4x3_logits': ((1 / 2 + 1 / 2 + 1 / 2) / 3, 6),
        'top1@4x3_probs': (4 / 6, 6),
        'top1_strict@4x3_probs': (4 / 8, 8),
        'top5@4x3_probs': (5 / 6, 6),
        'top5_strict@4x3_probs': (5 / 8, 8),
        'mean_class@4x3_probs': ((2 / 2 + 0 / 2 + 2 / 2) / 3, 6),
    }


def test_videos_of_the_class_none_are_left_out_too():
    """Two are; of the four others two are taken for it by their logits, which is wrong."""
    found = measure(scores(), '1x1', ('a', 'none', *NAMES[2:]))
    assert found['top1@1x1_logits'] == (3 / 6, 6)
    assert found['top1_without_none@1x1_logits'] == (2 / 4, 4)
    assert found['mean_class_without_none@1x1_logits'] == ((1 / 2 + 1 / 2) / 2, 4)
    assert found['top1_without_none@1x1_probs'] == (4 / 4, 4)
    assert found['mean_class_without_none@1x1_probs'] == (1.0, 4)
    assert not any('without' in name for name in measure(scores(), '1x1', NAMES))
    alone = measure(scores([1] * 7), '1x1', ('a', 'none', *NAMES[2:]))
    assert not any('without' in name for name in alone)


SEVERAL = [[0, 3], [4, 0], [-1, -1], [2, -1], [5, 2], [0, 1], [-1, -1]]


def test_average_precision_of_several_labels():
    """Of the five videos with labels, what is equal in their order; no video is of class 6."""
    found = measure(scores(SEVERAL), '2x1', NAMES)
    assert set(found) == {
        *(f'{name}@2x1' for name in ('annotated', 'readable', 'scored', 'classes')),
        *(f'{name}@2x1_{of}' for name in ('map', 'wap') for of in ('logits', 'probs')),
    }
    assert found['classes@2x1'] == (6, 5)
    first, third = (1 / 1 + 2 / 2 + 3 / 5) / 3, (1 / 2 + 2 / 5) / 2
    others = 1 / 4 + 1 / 2 + 1 / 3 + 1 / 5  # which have one video each
    assert found['map@2x1_logits'] == (pytest.approx((first + third + others) / 6), 5)
    assert found['wap@2x1_logits'] == (pytest.approx((3 * first + 2 * third + others) / 9), 5)


def test_of_several_labels_scores_that_are_not_finite_rank_last():
    merged = np.float32([[np.nan, 1], [0, np.inf], [-1, -1], [-2, 0]])
    labels = np.array([[0, -1], [1, -1], [0, 1], [1, -1]], np.int32)
    found = measure(VideoScores('abcd', labels, {'max': merged}, 4), '1x1', ('a', 'b'))
    assert found['map@1x1_max'].value == pytest.approx(((1 + 2 / 3) / 2 + (1 + 1 + 3 / 4) / 3) / 2)


def test_without_any_label_there_are_counts_alone():
    found = measure(scores([-1] * 7), '1x1', NAMES)
    counts = {'annotated': 9, 'readable': 7, 'scored': 0, 'classes': 0}
    assert found == {f'{k}@1x1': (n, 0) for k, n in counts.items()}


def read_csv(path):
    with path.open(newline='') as file:
        return list(csv.reader(file))


def test_tables_of_classes_and_confusions(tmp_path):
    names = ('a', 'b, "or c"', *NAMES[2:])
    write_tables(tmp_path, 'set_val_4x3', scores(), names)
    header, *classes = read_csv(tmp_path / 'classes_set_val_4x3.csv')
    assert header == ['class', 'videos', 'right', 'top1', 'taken_for', 'times']
    assert classes[:4] == [
        ['a', '2', '1', '0.5', 'b, "or c"', '1'],
        ['b, "or c"', '2', '1', '0.5', 'g', '1'],
        ['c', '2', '1', '0.5', 'b, "or c"', '1'],
        ['d', '0', '0', '', '', '0'],
    ]
    assert len(classes) == 7
    twice = scores([0, 2, 2, 2, 0, 1, -1])
    write_tables(tmp_path, 'set_val_4x3', twice, NAMES)
    assert read_csv(tmp_path / 'confusions_set_val_4x3.csv') == [
        ['label', 'predicted', 'count'],
        *(['c', 'b', '2'], ['a', 'b', '1'], ['b', 'g', '1']),
    ]


def test_scores_of_several_labels_are_written_as_they_are(tmp_path):
    write_scores(tmp_path, 'x', scores(SEVERAL), NAMES, 3)
    assert np.load(tmp_path / 'scores_x.npz')['labels'].tolist() == SEVERAL


def test_scores_that_are_not_finite_are_wrong(tmp_path):
    merged = np.array([[np.nan] * 7, ones(1), [np.inf, *ones(1)[1:]]], np.float32)
    labels = np.array([[0], [1], [0]], np.int32)
    scores = VideoScores(['a', 'b', 'c'], labels, {'logits': merged, 'probs': merged}, 3)
    assert measure(scores, '4x3', NAMES)['top1@4x3_logits'] == Metric(pytest.approx(1 / 3), 3)
    write_tables(tmp_path, 'x', scores, NAMES)
    classes = list(csv.DictReader((tmp_path / 'classes_x.csv').read_text().splitlines()))
    assert [row['right'] for row in classes[:2]] == ['0', '1']
    assert (tmp_path / 'confusions_x.csv').read_text().split() == ['label,predicted,count']
