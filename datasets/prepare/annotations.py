"""The official annotation files of video sets, read as they are.

kinetics400, kinetics600: CSV, of whose columns label, youtube_id, time_start, time_end and split
count, in any order; a file without labels is of videos that have none. charades: CSV, of whose
columns id and actions count. avid: JSON, {"yrpxojhg.mp4": "playing harmonica"}.
"""

import csv
import hashlib
import io
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.arguments import split_and_path
from datasets.video_sets import VIDEO_SETS

log = logging.getLogger(__name__)

# Of video files, with which AViD names its videos too.
EXTENSIONS = ('.mp4', '.mkv', '.avi', '.webm', '.mov')

CHARADES_CODES = tuple(f'c{number:03d}' for number in range(VIDEO_SETS['charades'].classes))
_SPLITS = {
    'train': 'train',
    **dict.fromkeys(('val', 'validate', 'validation'), 'val'),
    'test': 'test',
}
_OF_NAMES = {
    'Charades_v1_train.csv': 'train',
    'Charades_v1_test.csv': 'test',
    'avid_train.json': 'train',
    'avid_val.json': 'val',
}
_NUMBER = re.compile(r'[0-9]+(\.[0-9]*)?')


@dataclass(frozen=True)
class Named:
    """An action by its name, and when it happens.

    Attributes:
        label: its name.
        start: seconds. Some end before they start, or after the video: they are as annotated.
        end: likewise.
    """

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Annotated:
    """A video as the annotation has it.

    Attributes:
        id: name of the record: for Kinetics '<youtube_id>_<start>_<end>', as its files are named.
        split: 'train', 'val' or 'test'.
        label: where a video has one; None if this one has none, or the set has actions.
        actions: where a video has any number of them.
    """

    id: str
    split: str
    label: str | None
    actions: tuple[Named, ...] = ()


@dataclass(frozen=True)
class Annotations:
    """All that the annotation files of a set say.

    Attributes:
        name: of the set.
        single_label: whether a video has a label, not actions.
        vocabulary: names of the labels, in the order of the classes.
        videos: by split, in the order of the files, each id once.
        refused: by split: id -> why it is not among the videos.
        duplicates: by split: ids of more than one row, all the same; they count once.
        files: name, split that all of it is of, None for several, and sha256 of each file.
    """

    name: str
    single_label: bool
    vocabulary: tuple[str, ...]
    videos: Mapping[str, tuple[Annotated, ...]]
    refused: Mapping[str, Mapping[str, str]]
    duplicates: Mapping[str, tuple[str, ...]]
    files: tuple[tuple[str, str | None, str], ...]


# A video, and why it is refused. Rows are told apart by both.
_Row = tuple[Annotated, str | None]


@dataclass(frozen=True)
class _File:
    """A text and how to call it; `split` is of all its rows."""

    path: Path
    text: str
    split: str | None


def read_annotations(name: str, files: Sequence[str], classes: int | None = None) -> Annotations:
    """Reads all annotation files of a set.

    Args:
        name: kinetics400, kinetics600, charades or avid.
        files: FILE or SPLIT=FILE, several of a split if need be. Files that say of what split they
            are, in a column or by their official name, need no SPLIT.
        classes: how many labels there are; None for as many as the set is known to have.

    Raises:
        ValueError: if a file cannot be read as one of the set's, or the number of labels differs.
    """
    if name not in VIDEO_SETS:
        raise ValueError(f'there is no set {name!r}; use one of {", ".join(VIDEO_SETS)}')
    read = {'charades': _charades, 'avid': _avid}.get(name, _kinetics)
    rows: list[_Row] = []
    used: dict[str, tuple[str, str | None, str]] = {}
    for given in files:
        split, path = _split_and_path(given, name)
        data = _bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        if digest in used:
            raise ValueError(f'{path} is given a second time; name each file once')
        found = list(read(_File(path, _text(path, data), split or _OF_NAMES.get(path.name))))
        if not found:
            raise ValueError(f'{path} has no video; give another file')
        splits = {video.split for video, _ in found}
        used[digest] = path.name, splits.pop() if len(splits) == 1 else None, digest
        rows += found
    vocabulary = _vocabulary(name, rows, classes)
    return Annotations(name, name != 'charades', vocabulary, *_by_split(rows), tuple(used.values()))


def _split_and_path(given: str, name: str) -> tuple[str | None, Path]:
    split, path = split_and_path(given)
    if split is None:
        return None, path
    known = [key for key, value in _SPLITS.items() if value != 'val' or name != 'charades']
    if split not in known:
        raise ValueError(f'{given} names no split of {name}; use {", ".join(known)}')
    return _SPLITS[split], path


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f'{path} cannot be read: {error.strerror}; name a file') from error


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is no text in UTF-8; give the file as published') from error


def _vocabulary(name: str, rows: Iterable[_Row], classes: int | None) -> tuple[str, ...]:
    names = {video.label for video, _ in rows if video.label}
    vocabulary = CHARADES_CODES if name == 'charades' else tuple(sorted(names))
    size, known = len(vocabulary), VIDEO_SETS[name].classes
    if classes is not None and size != classes:
        raise ValueError(
            f'annotations have {size} labels, not {classes}; '
            f'give all annotation files, or --classes={size}'
        )
    if classes is None and size != known:
        message = f'annotations have {size} labels, {name} has {known}'
        if name != 'avid':  # whose published files differ from the paper already
            raise ValueError(f'{message}; give all annotation files, or --classes={size}')
        log.warning('%s; give all annotation files', message)
    return vocabulary


def _by_split(
    rows: Iterable[_Row],
) -> tuple[dict[str, tuple[Annotated, ...]], dict[str, dict[str, str]], dict[str, tuple[str, ...]]]:
    """Videos, refused and duplicates: every id is in one of the first two, once."""
    same: dict[str, dict[str, list[_Row]]] = {}
    for row in rows:
        same.setdefault(row[0].split, {}).setdefault(row[0].id, []).append(row)
    videos: dict[str, tuple[Annotated, ...]] = {}
    refused: dict[str, dict[str, str]] = {}
    duplicates: dict[str, tuple[str, ...]] = {}
    for split in filter(same.get, dict.fromkeys(_SPLITS.values())):  # however files are ordered
        by_id = same[split]
        reasons = {
            id: 'annotated twice, differently' if len(set(found)) > 1 else found[0][1]
            for id, found in by_id.items()
        }
        videos[split] = tuple(found[0][0] for id, found in by_id.items() if not reasons[id])
        refused[split] = {id: reason for id, reason in reasons.items() if reason}
        duplicates[split] = tuple(
            id for id, found in by_id.items() if len(found) > 1 and len(set(found)) == 1
        )
    return videos, refused, duplicates


def _rows(file: _File, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Of each row of a CSV file where it is, and its columns."""
    reader = csv.DictReader(io.StringIO(file.text, newline=''), strict=True)
    try:
        if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
            raise ValueError(f'{file.path} has no column {", ".join(missing)}; give another file')
        for row in reader:
            where = f'{file.path}:{reader.line_num}'
            if None in row.values():
                raise ValueError(f'{where} has fewer columns than the header; get the file again')
            if None in row:
                raise ValueError(f'{where} has more columns than the header; get the file again')
            yield where, row
    except csv.Error as error:
        raise ValueError(f'{file.path}:{reader.line_num + 1} is no CSV: {error}') from error


def _kinetics(file: _File) -> Iterator[_Row]:
    for where, row in _rows(file, ('youtube_id', 'time_start', 'time_end')):
        split = _split_of_row(row, file, where)
        start, end = (_seconds(row[column], where) for column in ('time_start', 'time_end'))
        label = row.get('label')
        reason = _refusal(row['youtube_id'], label, where)
        yield Annotated(f'{row["youtube_id"]}_{start:06d}_{end:06d}', split, label), reason


def _split_of_row(row: Mapping[str, str], file: _File, where: str) -> str:
    if 'split' not in row:
        return _split_of_file(file)
    if row['split'] not in _SPLITS:
        raise ValueError(f'{where} has the split {row["split"]!r}; use one of {", ".join(_SPLITS)}')
    split = _SPLITS[row['split']]
    if file.split not in (None, split):
        raise ValueError(f'{where} is of the split {split}; do not call it {file.split}')
    return split


def _split_of_file(file: _File) -> str:
    if file.split is None:
        raise ValueError(f'{file.path} does not say which split it is of; use SPLIT={file.path}')
    return file.split


def _seconds(text: str, where: str) -> int:
    if not _is_number(text):
        raise ValueError(f'{where} has the time {text!r}; use seconds')
    return int(float(text))


def _is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text)) and math.isfinite(float(text))


def _charades(file: _File) -> Iterator[_Row]:
    split = _split_of_file(file)
    for where, row in _rows(file, ('id', 'actions')):
        reason = _refusal(row['id'], None, where)
        try:
            actions = tuple(map(_action, row['actions'].split(';') if row['actions'] else ()))
        except ValueError as error:
            actions, reason = (), reason or str(error)
        yield Annotated(row['id'], split, None, actions), reason


def _action(text: str) -> Named:
    code, *times = text.split(' ')
    if len(times) != 2 or not all(map(_is_number, times)):
        raise ValueError(f'its action {text!r} is not CLASS START END')
    if code not in CHARADES_CODES:
        first, last = CHARADES_CODES[0], CHARADES_CODES[-1]
        raise ValueError(f'its action {text!r} is none of {first} to {last}')
    return Named(code, *map(float, times))


def _avid(file: _File) -> Iterator[_Row]:
    split = _split_of_file(file)
    try:
        pairs = json.loads(file.text, object_pairs_hook=tuple)  # a dict would hide double names
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{file.path} is no JSON: {error}') from error
    if not isinstance(pairs, tuple) or not all(isinstance(label, str) for _, label in pairs):
        raise ValueError(f'{file.path} is not {{"NAME.mp4": "LABEL"}}; give such a file')
    for name, label in pairs:
        if not _is_text(name + label):
            raise ValueError(f'{file.path}: {name!r} or its label {label!r} is no text; mend it')
        stem, dot, extension = name.rpartition('.')
        id = stem if f'{dot}{extension}'.lower() in EXTENSIONS else name
        yield Annotated(id, split, label), _refusal(id, label, f'{file.path}: {name!r}')


def _is_text(text: str) -> bool:
    """JSON may name halves of characters, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(id: str, label: str | None, where: str) -> str | None:
    """Why a video is refused; raises ValueError for what would damage the vocabulary's file."""
    if label and (label.splitlines() != [label] or label.strip() != label):
        raise ValueError(f'{where} has the label {label!r}; use one line without spaces around it')
    if id in ('', '.', '..') or any(char in id for char in '/\\\0'):
        return 'its id is no file name'
    return 'its label is empty' if label == '' else None
