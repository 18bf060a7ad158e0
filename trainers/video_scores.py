"""Scores of videos that were seen in several views: merged, what is right, and files."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainers.average_precision import average_precisions
from trainers.metrics import Metric, Metrics
from trainers.workdir import writing

# How the scores of views become one of the video. The means of the logits (Scenic, mmaction2's
# 'score') and of the probabilities (SlowFast, VideoMAE, mmaction2's 'prob'); where videos have
# several labels also the largest logit, as SlowFast does for Charades: an action need not last.
REDUCTIONS = ('logits', 'probs')
REDUCTIONS_OF_SEVERAL = ('max', *REDUCTIONS)

NONE = 'none'  # what AViD calls the class of videos that show none of the others

Rows = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class VideoScores:
    """Scores of the videos of a split all of whose clips could be read, in the split's order.

    Attributes:
        ids: of the videos.
        labels: of each, [videos, most labels] int32, -1 for none.
        merged: by reduction, of a video's views, [videos, classes] float32.
        annotated: how many videos the split was annotated with.
    """

    ids: Sequence[str]
    labels: np.ndarray
    merged: Mapping[str, np.ndarray]
    annotated: int


def merge_clips(
    name: str,
    batches: Iterable[Rows],
    clips_of: np.ndarray,
    num_classes: int,
    most_labels: int,
    reductions: Sequence[str],
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Merges scores over the clips of each video.

    Args:
        name: of the pass, for what is raised.
        batches: rows [b, ...] of clips: `video_number`, `clip_number`, `place` in the batch,
            `mask`, `unreadable`, `labels` and, for each reduction, scores.
        clips_of: how many clips each video has, [videos].
        num_classes: of the scores.
        most_labels: of a video.
        reductions: `max`, or any other for the mean.

    Returns:
        Which videos could be read in all of their clips [videos]; of every video the labels
        [videos, most labels]; by reduction [videos, classes] float32, means summed in float64.

    Raises:
        RuntimeError: if a clip of a video was not there exactly once.
    """
    first = np.cumsum(clips_of) - clips_of  # of the clips of all videos in a row
    times, read = np.zeros(clips_of.sum(), int), np.zeros(len(clips_of), int)
    labels = np.full((len(clips_of), most_labels), -1, np.int32)
    shape = len(clips_of), num_classes
    merged = {k: np.full(shape, -np.inf if k == 'max' else 0.0) for k in reductions}
    for batch in batches:
        order = np.argsort(batch['place'])
        rows = {key: values[order] for key, values in batch.items()}
        there, readable = rows['mask'] + rows['unreadable'] > 0, rows['mask'] > 0
        np.add.at(times, (first[rows['video_number']] + rows['clip_number'])[there], 1)
        videos = rows['video_number'][readable]
        np.add.at(read, videos, 1)
        labels[videos] = rows['labels'][readable]
        for reduction, so_far in merged.items():
            merge = np.maximum if reduction == 'max' else np.add
            merge.at(so_far, videos, rows[reduction][readable])
    if wrong := int((times != 1).sum()):
        raise RuntimeError(f'{name}: {wrong} of {len(times)} clips were not seen exactly once')
    for reduction in set(merged) - {'max'}:
        merged[reduction] /= clips_of[:, None]
    return read == clips_of, labels, {k: x.astype(np.float32) for k, x in merged.items()}


def measure(scores: VideoScores, views: str, label_names: Sequence[str]) -> Metrics:
    """Metrics of videos, by names that end with the protocol, such as `top1@4x3_logits`.

    They are of the videos that are scored, those that could be read and have a label. Where each
    has one, `top1` and `top5` are shares of them. The strict ones count as wrong what could not be
    read, or was missing when the set was prepared: they are shares of all annotated videos but
    those that were read and have no label. `mean_class` is the unweighted mean of top-1 over the
    classes that have a scored video. Where a class is called `none`, `top1_without_none` and
    `mean_class_without_none` leave its videos out; to take another for it stays wrong. Of classes
    with the same score the one with the lower number counts as likelier.

    Where videos have several labels, `map` is the unweighted mean of the average precisions of the
    classes that have a scored video, and `wap` weighs them by their videos; see
    `trainers.average_precision`.

    Scores that are not finite are wrong, or rank last.

    Args:
        scores: of the videos.
        views: clips by crops, such as '4x3'.
        label_names: of the classes.

    Returns:
        Besides these, for each reduction, the numbers of videos `annotated`, `readable` and
        `scored`, and of `classes` that have a scored video; these alone if no video has a label.
    """
    scored = np.flatnonzero((scores.labels >= 0).any(axis=1))
    labels, n, readable = scores.labels[scored], len(scored), len(scores.labels)
    counts = {'annotated': scores.annotated, 'readable': readable, 'scored': n}
    counts['classes'] = len(np.unique(labels[labels >= 0]))
    metrics = {f'{name}@{views}': Metric(float(count), n) for name, count in counts.items()}
    if not n:
        return metrics
    none = label_names.index(NONE) if NONE in label_names else None
    for reduction, merged in scores.merged.items():
        if labels.shape[1] == 1:
            unread = scores.annotated - readable
            found = _accuracies(merged[scored], labels[:, 0], unread, none)
        else:
            found = _precisions(merged[scored], labels)
        metrics |= {f'{name}@{views}_{reduction}': metric for name, metric in found.items()}
    return metrics


def _accuracies(scores: np.ndarray, labels: np.ndarray, unread: int, none: int | None) -> Metrics:
    """Of one label a video; the class `none`, if there is one, has this number."""
    hits = top_five(scores) == labels[:, None]
    n, found = len(labels), {}
    for name, right in (('top1', hits[:, 0]), ('top5', hits.any(axis=1))):
        found[name] = Metric(float(right.mean()), n)
        found[f'{name}_strict'] = Metric(float(right.sum() / (n + unread)), n + unread)
    found['mean_class'] = Metric(_mean_class(hits[:, 0], labels), n)
    others = labels != none
    if none is not None and others.any():
        right, n = hits[others, 0], int(others.sum())
        found['top1_without_none'] = Metric(float(right.mean()), n)
        found['mean_class_without_none'] = Metric(_mean_class(right, labels[others]), n)
    return found


def _mean_class(right: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the classes that are there of the share of each one's videos."""
    videos = np.bincount(labels)
    return float((np.bincount(labels, right)[videos > 0] / videos[videos > 0]).mean())


def _precisions(scores: np.ndarray, labels: np.ndarray) -> Metrics:
    """Of several labels a video."""
    n, classes = scores.shape
    positive = np.zeros((n, classes + 1), bool)
    positive[np.arange(n)[:, None], labels] = True  # -1, for none, is the last
    finite = np.isfinite(scores).all(axis=1, keepdims=True)
    found = average_precisions(np.where(finite, scores, -np.inf), positive[:, :-1])
    return {'map': Metric(found.mean, n), 'wap': Metric(found.weighted, n)}


def top_five(scores: np.ndarray) -> np.ndarray:
    """The five likeliest classes [n, 5] of scores [n, classes]; -2 where one is not finite."""
    order = np.argsort(-scores, axis=1, kind='stable')[:, :5]
    return np.where(np.isfinite(scores).all(axis=1, keepdims=True), order, -2)


def write_scores(
    folder: Path, name: str, scores: VideoScores, label_names: Sequence[str], step: int
) -> None:
    """Writes scores_NAME.npz of ids, labels, the reductions, annotated, label_names and step.

    `labels` is [videos] where a video has one label, and [videos, most labels] where it has
    several; -1 is none. `np.load` reads it without pickle.
    """
    labels = scores.labels
    with writing(folder / f'scores_{name}.npz', 'wb') as file:
        np.savez(
            file,
            ids=np.array(scores.ids, str),
            labels=labels[:, 0] if labels.shape[1] == 1 else labels,
            **scores.merged,  # type: ignore[arg-type]  # after numpy's own option
            annotated=scores.annotated,
            label_names=np.array(label_names, str),
            step=step,
        )


def write_tables(folder: Path, name: str, scores: VideoScores, label_names: Sequence[str]) -> None:
    """Writes what the mean logits say of videos with one label: two tables.

    classes_NAME.csv has a row a class: its videos, how many of them are right, their share, and
    the class that the others are most often taken for. confusions_NAME.csv has a row for each label
    and another class that was predicted for it, the most frequent first.
    """
    scored = scores.labels[:, 0] >= 0
    own = scores.labels[scored, 0]
    predicted = top_five(scores.merged['logits'][scored])[:, 0]
    videos = np.bincount(own, minlength=len(label_names)).tolist()
    right = np.bincount(own[own == predicted], minlength=len(label_names)).tolist()
    wrong = (own != predicted) & (predicted >= 0)
    pairs = Counter(zip(own[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    ordered = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
    most: dict[int, tuple[str, int]] = {}
    for (label, other), count in ordered:
        most.setdefault(label, (label_names[other], count))
    with writing(folder / f'classes_{name}.csv') as file:
        table = csv.writer(file)
        table.writerow(('class', 'videos', 'right', 'top1', 'taken_for', 'times'))
        for label, own_name in enumerate(label_names):
            counts = videos[label], right[label]
            share = right[label] / videos[label] if videos[label] else ''
            table.writerow((own_name, *counts, share, *most.get(label, ('', 0))))
    with writing(folder / f'confusions_{name}.csv') as file:
        table = csv.writer(file)
        table.writerow(('label', 'predicted', 'count'))
        for (label, other), count in ordered:
            table.writerow((label_names[label], label_names[other], count))
