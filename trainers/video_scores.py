"""Scores of videos that were seen in several views: their means, what is right, and files."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainers.metrics import Metric, Metrics
from trainers.workdir import writing

# What is averaged over the views. Scenic and mmaction2's 'score' take the logits, SlowFast,
# VideoMAE and mmaction2's 'prob' the probabilities.
REDUCTIONS = ('logits', 'probs')

Rows = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class VideoScores:
    """Scores of the videos of a split all of whose clips could be read, in the split's order.

    Attributes:
        ids: of the videos.
        labels: of each, [videos, most labels] int32, -1 for none.
        means: by reduction, the mean over a video's views, [videos, classes] float32.
        annotated: how many videos the split was annotated with.
    """

    ids: Sequence[str]
    labels: np.ndarray
    means: Mapping[str, np.ndarray]
    annotated: int


def average_clips(
    name: str, batches: Iterable[Rows], clips_of: np.ndarray, num_classes: int, most_labels: int
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Averages scores over the clips of each video.

    Args:
        name: of the pass, for what is raised.
        batches: rows [b, ...] of clips: `video_number`, `clip_number`, `place` in the batch,
            `mask`, `unreadable`, `labels` and, for each of `REDUCTIONS`, scores.
        clips_of: how many clips each video has, [videos].
        num_classes: of the scores.
        most_labels: of a video.

    Returns:
        Which videos could be read in all of their clips [videos]; of every video the labels
        [videos, most labels]; by reduction the means [videos, classes] float32, summed in float64.

    Raises:
        RuntimeError: if a clip of a video was not there exactly once.
    """
    first = np.cumsum(clips_of) - clips_of  # of the clips of all videos in a row
    times, read = np.zeros(clips_of.sum(), int), np.zeros(len(clips_of), int)
    labels = np.full((len(clips_of), most_labels), -1, np.int32)
    sums = {reduction: np.zeros((len(clips_of), num_classes)) for reduction in REDUCTIONS}
    for batch in batches:
        order = np.argsort(batch['place'])
        rows = {key: values[order] for key, values in batch.items()}
        there, readable = rows['mask'] + rows['unreadable'] > 0, rows['mask'] > 0
        np.add.at(times, (first[rows['video_number']] + rows['clip_number'])[there], 1)
        videos = rows['video_number'][readable]
        np.add.at(read, videos, 1)
        labels[videos] = rows['labels'][readable]
        for reduction, total in sums.items():
            np.add.at(total, videos, rows[reduction][readable])
    if wrong := int((times != 1).sum()):
        raise RuntimeError(f'{name}: {wrong} of {len(times)} clips were not seen exactly once')
    means = {k: (total / clips_of[:, None]).astype(np.float32) for k, total in sums.items()}
    return read == clips_of, labels, means


def measure(scores: VideoScores, views: str) -> Metrics:
    """Metrics of videos, by names that end with the protocol, such as `top1@4x3_logits`.

    `top1` and `top5` are shares of the videos that are scored, those that could be read and have a
    label; with several labels each of them is right. The strict ones count as wrong what could not
    be read, or was missing when the set was prepared: they are shares of all annotated videos but
    those that were read and have no label. `mean_class`, where a video has one label, is the
    unweighted mean of top-1 over the classes that have a scored video. Of classes with the same
    score the one with the lower number counts as likelier; scores that are not finite are wrong.

    Args:
        scores: of the videos.
        views: clips by crops, such as '4x3'.

    Returns:
        Besides these, for each reduction, the numbers of videos `annotated`, `readable` and
        `scored`; these alone if no video has a label.
    """
    scored = np.flatnonzero((scores.labels >= 0).any(axis=1))
    labels, n, readable = scores.labels[scored], len(scored), len(scores.labels)
    n_strict = scores.annotated - readable + n
    counts = {'annotated': scores.annotated, 'readable': readable, 'scored': n}
    metrics = {f'{name}@{views}': Metric(float(count), n) for name, count in counts.items()}
    if not n:
        return metrics
    for reduction, means in scores.means.items():
        hits = (likeliest(means[scored])[:, :, None] == labels[:, None, :]).any(axis=2)
        found = {}
        for name, right in (('top1', hits[:, 0]), ('top5', hits.any(axis=1))):
            found[name] = Metric(float(right.mean()), n)
            found[f'{name}_strict'] = Metric(float(right.sum() / n_strict), n_strict)
        if labels.shape[1] == 1:
            videos = np.bincount(labels[:, 0])
            of_class = np.bincount(labels[:, 0], hits[:, 0])[videos > 0] / videos[videos > 0]
            found['mean_class'] = Metric(float(of_class.mean()), n)
        metrics |= {f'{name}@{views}_{reduction}': metric for name, metric in found.items()}
    return metrics


def likeliest(scores: np.ndarray) -> np.ndarray:
    """The five likeliest classes [n, 5] of scores [n, classes]; -2 where one is not finite."""
    order = np.argsort(-scores, axis=1, kind='stable')[:, :5]
    return np.where(np.isfinite(scores).all(axis=1, keepdims=True), order, -2)


def write_scores(
    folder: Path, name: str, scores: VideoScores, label_names: Sequence[str], step: int
) -> None:
    """Writes scores_NAME.npz of ids, labels, logits, probs, annotated, label_names and step.

    `labels` is [videos] where a video has one label, and [videos, most labels] where it has
    several; -1 is none. `np.load` reads it without pickle.
    """
    labels = scores.labels
    with writing(folder / f'scores_{name}.npz', 'wb') as file:
        np.savez(
            file,
            ids=np.array(scores.ids, str),
            labels=labels[:, 0] if labels.shape[1] == 1 else labels,
            **scores.means,  # type: ignore[arg-type]  # after numpy's own option
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
    predicted = likeliest(scores.means['logits'][scored])[:, 0]
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
