"""The video sets of the paper, as `datasets.prepare` writes them; nothing here loads TensorFlow.

Sizes and classes are known without the data, which is all that a plan of a run needs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grain
import numpy as np
import tensorflow_datasets as tfds

from datasets.dataset import Action, Dataset, Unreadable, UnreadSource, Video
from datasets.prepared import Labels, Records, data_root, find_version, parse_example, text
from datasets.video_sets import VIDEO_SETS, VideoSet


def load_videos(name: str, data_dir: str, *, fps: int = 0) -> Dataset:
    """Opens a prepared set, or describes one that is not there.

    Args:
        name: of `VIDEO_SETS`.
        data_dir: folder of prepared sets; '' is TFDS's, $TFDS_DATA_DIR or ~/tensorflow_datasets.
        fps: frames a second that it was prepared with; 0 is the default of `datasets.prepare`.

    Raises:
        ValueError: if its parts were not merged, or it is of another form.
    """
    known, root = VIDEO_SETS[name], data_root(data_dir)
    fps = fps or known.fps
    folder = root / f'{name}_{fps}fps'
    prepared = open_set(folder)
    if prepared is None:
        return _described(name, known, folder, fps)
    return Dataset(name, prepared.names, 3, prepared.splits, known.max_labels, True, fps)


@dataclass(frozen=True)
class PreparedSet:
    """A video set on the disk.

    Attributes:
        name: with the frame rate, as its folder is called.
        folder: of its version.
        manifest: as `datasets.prepare` wrote it.
        names: of the classes.
        splits: its videos; those without a readable one are not there.
    """

    name: str
    folder: Path
    manifest: Mapping[str, Any]
    names: tuple[str, ...]
    splits: Mapping[str, 'PreparedVideos']


def open_set(folder: Path) -> PreparedSet | None:
    """Opens the newest version of a prepared set; None if there is none.

    Args:
        folder: of this version, or the one it lies in.

    Raises:
        ValueError: if its parts were not merged, or it is of another form.
    """
    found = find_version(folder)
    if found is None:
        if any(folder.glob('parts')) or any(folder.glob('*/parts')):
            raise ValueError(
                f'{folder} is not complete; go on with the command that prepares it, or end it '
                'with --merge'
            )
        return None
    if not (found / 'manifest.json').is_file():
        raise ValueError(f'{found} has no manifest.json; name a set of python -m datasets.prepare')
    try:
        manifest = json.loads((found / 'manifest.json').read_text(encoding='utf-8'))
        names = tuple((found / 'vocabulary.txt').read_text(encoding='utf-8').splitlines())
        name, per_record = f'{manifest["name"]}_{manifest["fps"]}fps', manifest['frames_per_record']
        annotated = {k: v['annotated'] for k, v in manifest['splits'].items() if v['readable']}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f'{found} has a damaged manifest.json or vocabulary.txt; prepare it again'
        ) from error
    splits = {
        split: PreparedVideos(found, split, Labels(names), per_record, count)
        for split, count in annotated.items()
    }
    return PreparedSet(name, found, manifest, names, splits)


class PreparedVideos:
    """The videos of a split, a few frames of each in a record.

    Attributes:
        num_frames: of each video, [videos].
        num_annotated: how many videos the annotation has; those that failed are not there.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        labels: Labels,
        frames_per_record: int,
        num_annotated: int,
    ) -> None:
        """Opens a split.

        Args:
            folder: of the set's version.
            split: of the set.
            labels: the classes.
            frames_per_record: of all records but the last one of each video.
            num_annotated: how many videos the annotation has.

        Raises:
            ValueError: if the index does not fit the files.
        """
        instructions = tfds.builder_from_directory(folder).info.splits[split].file_instructions
        self._records = Records(grain.sources.ArrayRecordDataSource(instructions))
        try:
            self._first, self.num_frames = np.load(folder / f'{split}.index.npy').T
        except (EOFError, ValueError) as error:  # empty, a pickle, or of another shape
            raise ValueError(f'{folder}/{split}.index.npy is damaged; prepare it again') from error
        self.num_annotated = num_annotated
        self._labels, self._per_record = labels, frames_per_record
        records = -(-self.num_frames // frames_per_record)
        if len(self._records) != records.sum():
            raise ValueError(
                f'{folder} has {len(self._records)} records of {split}, and {split}.index.npy is '
                f'of {records.sum()}; prepare it again'
            )

    def __len__(self) -> int:
        return len(self.num_frames)

    def read(self, index: int, frames: Sequence[int]) -> Video:
        """Some frames of a video; reads the records that hold them.

        Raises:
            Unreadable: if a record is damaged, or a label not in the vocabulary.
            OSError: if a file cannot be read.
        """
        length, per_record = int(self.num_frames[index]), self._per_record
        parts: dict[int, _Record] = {}
        for k in sorted({n // per_record for n in frames}):
            record, count = int(self._first[index]) + k, min(per_record, length - k * per_record)
            parts[k] = _parse(self._records[record], k, count)
        about = next(iter(parts.values()))
        if any(part.id != about.id for part in parts.values()):
            raise Unreadable('its records are of several videos')
        pairs = [divmod(n, per_record) for n in frames]
        actions = zip(about.labels, about.starts, about.ends, strict=True)
        return Video(
            id=text(about.id),
            frames=[parts[k].frames[i] for k, i in pairs],
            times=np.array([parts[k].times[i] for k, i in pairs]),
            actions=tuple(Action(self._labels(name), *when) for name, *when in actions),
        )


class _Record(NamedTuple):
    """A record; see datasets.prepare.records."""

    id: bytes
    labels: Sequence[bytes]
    starts: Sequence[float]
    ends: Sequence[float]
    frames: Sequence[bytes]
    times: Sequence[float]


def _parse(record: bytes, number: int, count: int) -> _Record:
    """A record that is to be the part of its video with this number, of so many frames."""
    features = parse_example(record)
    ids, labels, frames = (features[k].bytes_list.value for k in ('id', 'labels', 'frames'))
    starts, ends, times = (features[k].float_list.value for k in ('starts', 'ends', 'times'))
    found = (features['part'].int64_list.value, *map(len, (ids, frames, times, starts, ends)))
    if found != ([number], 1, count, count, len(labels), len(labels)):
        raise Unreadable(f'its record is not part {number} of a video, with {count} frames')
    return _Record(ids[0], labels, starts, ends, frames, times)


def _described(name: str, known: VideoSet, folder: Path, fps: int) -> Dataset:
    reason = (
        f'{folder} is not there; prepare it: python -m datasets.prepare {name} --annotations '
        f'FILE... --videos DIR --out={folder.parent} --fps={fps} (docs/video_data.md; to try '
        f'things out, first python -m datasets.make_fake {name} --out=DIR)'
    )
    splits = {split: UnreadSource(size, reason) for split, size in known.sizes.items()}
    names = tuple(map(str, range(known.classes)))
    return Dataset(name, names, 3, splits, known.max_labels, True, fps)
