"""Makes one set of files that are all there: what TFDS and the readers need, and the manifest."""

import hashlib
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from datasets.prepare.annotations import Annotations
from datasets.prepare.records import actions, count_records, features
from datasets.prepare.replacing import remove_left, replacing, temporary_path, writing
from datasets.prepare.shards import (
    Settings,
    Shard,
    as_json,
    check_settings,
    read_json,
    read_part,
)

_TEMPLATE = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'
_INFO = 'dataset_info.json'  # what readers look for, so it comes last

# Partial manifests by split, in the order of the files.
Parts = Mapping[str, Sequence[Mapping[str, Any]]]


def read_manifest(folder: Path, settings: Settings) -> dict[str, Any] | None:
    """The manifest of a finished set; None if it is not finished.

    Raises:
        ValueError: if it is of other settings or another annotation, or damaged.
    """
    if not (folder / _INFO).exists():
        return None
    manifest = read_json(path := folder / 'manifest.json')
    if not isinstance(manifest, dict) or 'splits' not in manifest:
        raise ValueError(
            f'{path} is gone or damaged; take {_INFO} away too and run the same command again'
        )
    found = {key: manifest[key] for key in asdict(settings) if key in manifest}
    check_settings(folder, found, settings)
    return manifest


def merge(
    folder: Path, shards: Sequence[Shard], settings: Settings, annotations: Annotations
) -> dict[str, Any]:
    """Finishes a set; its manifest.

    Raises:
        ValueError: if files are missing, or no video is readable.
        OSError: if something cannot be written.
    """
    parts = _read_parts(folder, shards, settings)
    text = '\n'.join(annotations.vocabulary) + '\n'
    splits = {
        split: _count(annotations, split, parts.get(split, [])) for split in annotations.videos
    }
    manifest = {
        **asdict(settings),
        'single_label': annotations.single_label,
        'vocabulary': {
            'size': len(annotations.vocabulary),
            'sha256': hashlib.sha256(text.encode()).hexdigest(),
        },
        'splits': splits,
        'in_several_splits': _in_several(annotations),
        'files': [
            {'name': part['file'], **{key: part[key] for key in ('records', 'bytes', 'sha256')}}
            for some in parts.values()
            for part in some
        ],
        'versions': _versions(parts),
    }
    if not any(split['readable'] for split in splits.values()):
        reason = next(reason for split in splits.values() for reason in split['failed'].values())
        raise ValueError(
            f'no video is readable, the first as {reason}; see {folder}/parts, put that right, and '
            'take the folder away before the next run'
        )
    _write(folder, settings, parts, {'vocabulary.txt': text, 'manifest.json': as_json(manifest)})
    return manifest


def summary(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Lines that tell of a set's videos, and why some are not in it."""
    for split, found in manifest['splits'].items():
        failed = found['failed']
        yield (
            f'{split}: {found["annotated"]} videos annotated, {found["readable"]} readable, '
            f'{len(failed)} failed'
        )
        reasons = Counter(failed.values()).most_common()
        yield from (f'  {count}: {reason}' for reason, count in reasons[:10])
        if reasons[10:]:
            yield f'  {sum(count for _, count in reasons[10:])}: for other reasons'
        if found['other_times']:
            yield (
                f'  {len(found["other_times"])} with other times than annotated, see other_times '
                'in the manifest'
            )


def _read_parts(folder: Path, shards: Sequence[Shard], settings: Settings) -> Parts:
    parts: dict[str, list[Any]] = {shard.split: [] for shard in shards}
    missing = []
    for shard in shards:
        if part := read_part(folder, shard, settings):
            parts[shard.split].append(part)
        else:
            missing.append(shard.file)
    if missing:
        names = ', '.join(missing[:3]) + (', ...' if missing[3:] else '')
        raise ValueError(
            f'{folder} lacks {len(missing)} of {len(shards)} files ({names}); run the same command '
            'without --merge, or with each --shard'
        )
    return parts


def _count(
    annotations: Annotations, split: str, parts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the manifest has of a split. All but `annotated` and `failed` is of readable videos."""
    outcomes = _outcomes(parts)
    readable = {id: video for id, video in outcomes.items() if 'failed' not in video}
    failed = {id: video['failed'] for id, video in outcomes.items() if 'failed' in video}
    refused = annotations.refused[split]
    videos = annotations.videos[split]
    ids = [*(video.id for video in videos), *refused]
    if len(set(ids)) != len(ids) or set(ids) != {*readable, *failed, *refused}:
        raise ValueError(f'the videos of {split} do not add up; use another --out')
    found = {
        video.id: actions(video, readable[video.id]['seconds'])
        for video in videos
        if video.id in readable
    }
    timed = [(action, readable[id]['seconds']) for id, some in found.items() for action in some]
    return {
        'annotated': len(ids),
        'readable': len(readable),
        'unlabelled': sum(not some for some in found.values()),
        'frames': sum(video['frames'] for video in readable.values()),
        'seconds': round(math.fsum(video['seconds'] for video in readable.values()), 3),
        'actions': len(timed),
        'actions_past_the_end': sum(action.end > seconds for action, seconds in timed),
        'actions_reversed': sum(action.end <= action.start for action, _ in timed),
        'failed': failed | dict(refused),
        'other_times': {id: video['file'] for id, video in readable.items() if 'file' in video},
        'duplicates': list(annotations.duplicates[split]),
    }


def _outcomes(parts: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {id: video for part in parts for id, video in part['videos'].items()}


def _in_several(annotations: Annotations) -> list[str]:
    """Ids that more than one split has, in the annotation's order."""
    times = Counter(
        id
        for split, videos in annotations.videos.items()
        for id in (*(video.id for video in videos), *annotations.refused[split])
    )
    return [id for id, count in times.items() if count > 1]


def _versions(parts: Parts) -> dict[str, str]:
    """Of the packages that made the files; several if they differ."""
    found: dict[str, set[str]] = {}
    for part in (part for some in parts.values() for part in some):
        for package, version in part['versions'].items():
            found.setdefault(package, set()).add(version)
    return {package: ', '.join(sorted(versions)) for package, versions in sorted(found.items())}


def _write(folder: Path, settings: Settings, parts: Parts, texts: Mapping[str, str]) -> None:
    """Writes all that is beside the files of records, dataset_info.json last."""
    work = temporary_path(folder / 'merge')
    with writing(folder):
        remove_left(folder)
        remove_left(folder / 'parts')
        try:
            work.mkdir()
            for name, text in texts.items():
                (work / name).write_text(text, encoding='utf-8')
            _write_indices(work, settings, parts)
            _write_info(work, settings, parts)
            for path in sorted(work.iterdir(), key=lambda path: path.name == _INFO):
                with replacing(folder / path.name) as temporary:
                    path.replace(temporary)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _write_indices(work: Path, settings: Settings, parts: Parts) -> None:
    """Of each readable video the number of its first record, and how many frames it has."""
    for split, some in parts.items():
        videos = [video for video in _outcomes(some).values() if 'failed' not in video]
        frames = np.array([video['frames'] for video in videos], np.int64)
        ends = np.cumsum(count_records(frames, settings.frames_per_record))
        starts = np.concatenate([[0], ends[:-1]]) if videos else ends
        np.save(work / f'{split}.index.npy', np.stack([starts, frames], 1))


def _write_info(work: Path, settings: Settings, parts: Parts) -> None:
    """Writes features.json and dataset_info.json. TFDS has no splits without an example."""
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[part['records'] for part in some],
            num_bytes=sum(part['bytes'] for part in some),
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=work,
                dataset_name=settings.set_name,
                split=split,
                filetype_suffix='array_record',
                template=_TEMPLATE,
            ),
        )
        for split, some in parts.items()
        if any(part['records'] for part in some)
    ]
    info = tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(
            name=settings.set_name,
            version=tfds.core.Version(settings.version),
            data_dir=str(work),
            module_name='',
        ),
        features=features(),
    )
    info.set_file_format('array_record')
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(work)
