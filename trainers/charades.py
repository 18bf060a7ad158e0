"""Scores a file of Charades' official form by the rules of its official script.

    python -m trainers.charades FILE --annotations Charades_v1_test.csv

FILE has a line a video: its id and a score of each of the 157 classes, with spaces between; what
evaluations write as submission_..._max.txt, and Charades_v1_classify.m reads. As there, a video
without actions is ranked last, as is one that FILE lacks (which needs --allow_missing), and ids
that are not annotated are ignored. Both are counted.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.prepare.annotations import CHARADES_CODES, Annotated, read_annotations
from trainers.average_precision import AveragePrecisions, average_precisions
from trainers.workdir import writing

log = logging.getLogger(__name__)

Submission = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Scored:
    """What a submission is worth.

    Attributes:
        precisions: of the classes.
        annotated: how many videos are, `with_actions` of which count.
        with_actions: those that have actions.
        missing: ids of those that the submission lacks.
        unknown: how many ids of the submission are not annotated.
    """

    precisions: AveragePrecisions
    annotated: int
    with_actions: int
    missing: tuple[str, ...]
    unknown: int


def write_submission(path: Path, ids: Sequence[str], scores: np.ndarray, annotated: int) -> None:
    """Writes scores [videos, classes] float32, with the 9 digits that tell them apart.

    Videos whose scores are not finite are left out, which ranks them last. Says so if videos are
    missing, of so many that are annotated.
    """
    written = np.isfinite(scores).all(axis=1)
    with writing(path) as file:
        for id, own in zip(np.array(ids, str)[written], scores[written], strict=True):
            file.write(' '.join([id, *(f'{score:.9g}' for score in own)]) + '\n')
    if written.sum() < annotated:
        log.warning(
            '%s has %d of %d videos; the official mAP ranks the others last: '
            'python -m trainers.charades --allow_missing tells it',
            *(path, written.sum(), annotated),
        )


def read_submission(path: Path) -> dict[str, np.ndarray]:
    """The scores [classes] of each video, float64.

    Raises:
        ValueError: if it cannot be read, a line has not one finite score a class, or an id comes
            twice.
    """
    found: dict[str, np.ndarray] = {}
    for number, line in enumerate(_read(path).splitlines(), 1):
        where = f'{path}:{number}'
        id, *texts = line.split() or ['']
        if not id:
            continue
        if len(texts) != len(CHARADES_CODES):
            raise ValueError(
                f'{where} has {len(texts)} scores; give an id and {len(CHARADES_CODES)} of them'
            )
        if id in found:
            raise ValueError(f'{where} has the id {id} a second time; give each video one line')
        try:
            found[id] = np.array(texts, np.float64)
        except ValueError as error:
            raise ValueError(f'{where} has a score that is no number; use numbers') from error
        if not np.isfinite(found[id]).all():
            raise ValueError(f'{where} has a score that is not finite; leave such videos out')
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8-sig', errors='replace')
    except OSError as error:
        raise ValueError(f'{path} cannot be read ({error.strerror}); name a file') from error


def read_videos(path: Path) -> tuple[Annotated, ...]:
    """The videos of a split in the official CSV file, in its order.

    Raises:
        ValueError: if it cannot be read as it was published.
    """
    annotations = read_annotations('charades', [f'test={path}'])  # whatever split it is of
    twice = dict.fromkeys(annotations.duplicates['test'], 'annotated twice')
    if wrong := {**annotations.refused['test'], **twice}:
        id, reason = next(iter(wrong.items()))
        raise ValueError(f'{path} has the video {id!r}: {reason}; give the file as published')
    return annotations.videos['test']


def read_classes(path: Path) -> tuple[str, ...]:
    """The names of the classes from Charades_v1_classes.txt: a line of each, code and name.

    Raises:
        ValueError: if it cannot be read, or they are not the 157 in their order.
    """
    lines = [line.partition(' ') for line in _read(path).splitlines() if line.strip()]
    if tuple(code for code, _, _ in lines) != CHARADES_CODES:
        raise ValueError(
            f'{path} has {len(lines)} lines that are not the {len(CHARADES_CODES)} classes '
            f'{CHARADES_CODES[0]} to {CHARADES_CODES[-1]} in order; give Charades_v1_classes.txt'
        )
    return tuple(name for _, _, name in lines)


def score(submission: Submission, videos: Sequence[Annotated]) -> Scored:
    """Scores a submission: what is missing, or without actions, is -inf in every class."""
    shape = len(videos), len(CHARADES_CODES)
    scores, positive = np.full(shape, -np.inf), np.zeros(shape, bool)
    missing = []
    for row, video in enumerate(videos):
        if not video.actions:
            continue
        positive[row, [CHARADES_CODES.index(action.label) for action in video.actions]] = True
        if video.id in submission:
            scores[row] = submission[video.id]
        else:
            missing.append(video.id)
    return Scored(
        average_precisions(scores, positive),
        annotated=len(videos),
        with_actions=int(positive.any(axis=1).sum()),
        missing=tuple(missing),
        unknown=len(set(submission) - {video.id for video in videos}),
    )


def report(scored: Scored, names: Sequence[str] = ()) -> Iterator[str]:
    """Lines that tell of it: with names of the classes a line of each, and the means.

    The script's mAP is NaN where a class has no positive; the mean over the others is beside it.
    """
    found = scored.precisions
    for code, name, value, count in zip(
        CHARADES_CODES if names else (), names, found.of_class, found.positives, strict=False
    ):
        yield f'{code} {value:8.6f} of {count:4d} {name}'
    yield (
        f'{scored.annotated} videos annotated, {scored.with_actions} of them with actions; of '
        f'these {len(scored.missing)} missing; {scored.unknown} ids not annotated'
    )
    there, classes = int((found.positives > 0).sum()), len(found.positives)
    mean = f'{found.mean:.6f}'
    if there < classes:
        mean = f'nan; {mean} over the {there} of {classes} classes that have a video'
    yield f'mAP {mean}'
    yield f'wAP {found.weighted:.6f}'


def main(argv: list[str] | None = None) -> int:
    """Scores a file; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add('file', type=Path, help='of scores: an id and 157 numbers a line')
    add('--annotations', type=Path, required=True, help='Charades_v1_test.csv')
    add('--classes', type=Path, help='Charades_v1_classes.txt, for a line of each class')
    add('--allow_missing', action='store_true', help='rank videos last that the file lacks')
    args = parser.parse_args(argv)
    try:
        names = read_classes(args.classes) if args.classes else ()
        scored = score(read_submission(args.file), read_videos(args.annotations))
        if scored.missing and not args.allow_missing:
            raise ValueError(
                f'{args.file} lacks {len(scored.missing)} of {scored.with_actions} videos with '
                f'actions, the first {scored.missing[0]}; --allow_missing ranks them last'
            )
        print(*report(scored, names), sep='\n')
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
