"""Evaluation of videos in several views: some clips of each, and some crops of each clip."""

import logging
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np

from datasets.clips import EvalClips, Views
from datasets.pipeline import Batch as HostBatch
from datasets.prepare.annotations import CHARADES_CODES
from trainers.batch import Batch, labels_of
from trainers.charades import write_submission
from trainers.classification import compute_crop_logits, open_evaluated
from trainers.experiment import Experiment
from trainers.loss import PROBABILITIES
from trainers.metrics import Metrics
from trainers.passes import each_batch, read_one
from trainers.processes import gather_texts, is_first
from trainers.sharding import check_batch_size, replicated
from trainers.state import TrainState
from trainers.video_scores import (
    REDUCTIONS,
    REDUCTIONS_OF_SEVERAL,
    VideoScores,
    measure,
    merge_clips,
    write_scores,
    write_tables,
)

log = logging.getLogger(__name__)

_BESIDE = ('video_number', 'clip_number', 'place', 'mask', 'unreadable')


class MultiView:
    """Accuracy of videos by their views' mean logits and mean probabilities.

    Of videos with several labels average precision, by these and the largest logits. `4x3` is the
    protocol of ViViT (Arnab et al., arXiv:2103.15691, Sec. 4.1): 4 clips, 3 crops of each. One pass
    serves all reductions; a video whose clips could not all be read has no score.

    Into the workdir go the scores of each video, and for videos with one label the accuracy of each
    class and what was taken for what, see `trainers.video_scores`; of Charades' classes the largest
    logits as its official script reads them, see `trainers.charades`.

    Attributes:
        dataset: that it evaluates on.
        split: of it.
        prefix: of its metrics' names.
        protocols: clips by crops, such as '4x3', alone and with each reduction.
    """

    def __init__(
        self,
        *,
        experiment: Experiment,
        dataset: str,
        split: str,
        batch_size: int,
        clips: int | None,
        crops: int,
    ) -> None:
        """Builds an evaluator.

        Args:
            experiment: of the model.
            dataset: name of one with the same classes, in the same data_dir; '' is the trained
                one.
            split: to evaluate on.
            batch_size: of the global batch, in clips.
            clips: of each video, see `datasets.clips.Views`; None is all of it.
            crops: of each clip.

        Raises:
            ValueError: if a value is not possible, or the classes are others.
        """
        check_batch_size(batch_size, experiment.mesh)
        if experiment.clip is None:
            raise ValueError('multi-view evaluation is of videos; leave it out for images')
        self._experiment, self._batch_size = experiment, batch_size
        self.dataset, self.split = open_evaluated(dataset, experiment.data), split
        self.dataset.split(split)
        self._views = Views(clips, crops)
        experiment.eval_geometry.crops(256, 256, crops)  # so that it is told now if there are none
        several = self.dataset.max_labels is not None
        self._reductions = REDUCTIONS_OF_SEVERAL if several else REDUCTIONS
        self.prefix = f'{self.dataset.name}/{split}'
        protocols = str(self._views), *(f'{self._views}_{k}' for k in self._reductions)
        self.protocols: tuple[str, ...] = protocols
        self._step = jax.jit(self._scores, out_shardings=replicated(experiment.mesh))

    def check_data(self) -> None:
        """Reads an example."""
        read_one(self.dataset, self.split)

    def __call__(self, state: TrainState, workdir: Path | None = None) -> Metrics:
        """Evaluates.

        Args:
            state: of the model.
            workdir: for scores_DATASET_SPLIT_VIEWS.npz, classes_....csv and confusions_....csv, or
                submission_..._max.txt.

        Raises:
            RuntimeError: if the pass did not see every clip exactly once.
        """
        scores = self.gather(state)
        names = self.dataset.label_names
        if workdir is not None and is_first():
            of_pass = f'{self.dataset.name}_{self.split}_{self._views}'
            write_scores(workdir, of_pass, scores, names, int(state.step))
            if self.dataset.max_labels is None:
                write_tables(workdir, of_pass, scores, names)
            if names == CHARADES_CODES:
                path, largest = workdir / f'submission_{of_pass}_max.txt', scores.merged['max']
                write_submission(path, scores.ids, largest, scores.annotated)
        metrics = measure(scores, str(self._views), names)
        return {f'{self.prefix}/{name}': metric for name, metric in metrics.items()}

    def gather(self, state: TrainState) -> VideoScores:
        """Scores of the videos that can be read, on every process.

        Raises:
            RuntimeError: if the pass did not see every clip exactly once.
        """
        experiment, dataset, split = self._experiment, self.dataset, self.split
        clips = experiment.eval_examples(dataset, split, views=self._views)
        assert isinstance(clips, EvalClips)
        ids = [''] * len(clips.clips_of)
        batches = experiment.eval_batches(dataset, split, self._batch_size, views=self._views)
        rows = each_batch(partial(self._step, state), noting(batches, ids), experiment.mesh)
        classes, most = len(dataset.label_names), dataset.max_labels or 1
        readable, labels, merged = merge_clips(
            self.prefix, rows, clips.clips_of, classes, most, self._reductions
        )
        if not readable.all():
            bad = (~readable).sum()
            log.warning('%s: %d of %d videos could not be read', self.prefix, bad, len(readable))
        finite = np.isfinite(merged['logits'][readable]).all(axis=1)
        if not finite.all():
            bad = (~finite).sum()
            log.warning('%s: %d videos have scores that are not finite', self.prefix, bad)
        return VideoScores(
            ids=[id for id, good in zip(gather_texts(ids), readable, strict=True) if good],
            labels=labels[readable],
            merged={name: values[readable] for name, values in merged.items()},
            annotated=dataset.split(split).num_annotated,
        )

    def _scores(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Scores of each clip [b, classes], merged over its crops, and what the clip is."""
        experiment = self._experiment
        logits = compute_crop_logits(experiment, state, batch)
        probs = PROBABILITIES[experiment.output_activation](logits)
        merged = {'logits': logits.mean(axis=1), 'probs': probs.mean(axis=1)}
        if 'max' in self._reductions:
            merged |= {'max': logits.max(axis=1)}
        return merged | {'labels': labels_of(batch)} | {key: batch[key] for key in _BESIDE}


def noting(batches: Iterable[HostBatch], ids: list[str]) -> Iterator[HostBatch]:
    """The same batches; notes the ids of videos that are read in this process by their numbers."""
    for batch in batches:
        for row in np.flatnonzero(batch['mask']):
            ids[batch['video_number'][row]] = str(batch['id'][row])
        yield batch
