"""The files of a prepared video set, each with a partial manifest beside it.

A file with a partial manifest is whole: the manifest is written last. So what was stopped at any
point goes on with the files that have none, and one file knows nothing of the others.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tqdm import tqdm

from datasets.prepare.annotations import Annotated
from datasets.prepare.decode import Decoded, decode_video
from datasets.prepare.files import Files, other_file
from datasets.prepare.isolate import Failure, run_isolated
from datasets.prepare.records import WRITER_OPTIONS, records
from datasets.prepare.replacing import replacing

PACKAGES = ('av', 'pillow')  # which make the bytes

# What a partial manifest has, and of which type.
_PART = {
    **{'settings': dict, 'split': str, 'file': str, 'records': int, 'bytes': int, 'sha256': str},
    **{'versions': dict, 'videos': dict},
}


@dataclass(frozen=True)
class Settings:
    """What a prepared set depends on besides the videos and their annotation.

    Attributes:
        name: of the set: kinetics400, ...
        fps: frames a second.
        short_side: pixels.
        quality: of the JPEG files, 1 to 100.
        videos_per_file: annotated videos in a file, at most.
        annotations: `file`, `split` that all of it is of, and `sha256` of each file.
        frames_per_record: at most.
        version: of the form of the records.
    """

    name: str
    fps: int
    short_side: int
    quality: int
    videos_per_file: int
    annotations: Sequence[Mapping[str, str | None]]
    frames_per_record: int = 16
    version: str = '1.0.0'

    @property
    def set_name(self) -> str:
        """Of the set on the disk."""
        return f'{self.name}_{self.fps}fps'


@dataclass(frozen=True)
class Shard:
    """The videos of one file.

    Attributes:
        set_name: of the set on the disk.
        split: of the set.
        number: of the file in its split, from 0.
        count: of the split's files.
        videos: in the order of the annotation.
        paths: where the videos lie, or why they cannot be found; () while that is not known.
    """

    set_name: str
    split: str
    number: int
    count: int
    videos: tuple[Annotated, ...]
    paths: tuple[Path | Failure, ...] = ()

    @property
    def _place(self) -> str:
        return f'{self.number:05}-of-{self.count:05}'

    @property
    def file(self) -> str:
        """Name of the file of records, as TFDS has it."""
        return f'{self.set_name}-{self.split}.array_record-{self._place}'

    @property
    def part(self) -> str:
        """Path of the partial manifest below the set's folder."""
        return f'parts/{self.split}-{self._place}.json'


def plan(videos: Mapping[str, Sequence[Annotated]], settings: Settings) -> list[Shard]:
    """All files of a set, of its videos by split."""
    shards = []
    for split, of_split in videos.items():
        starts = range(0, len(of_split), settings.videos_per_file)
        shards += [
            Shard(
                settings.set_name,
                split,
                number,
                len(starts),
                tuple(of_split[start : start + settings.videos_per_file]),
            )
            for number, start in enumerate(starts)
        ]
    return shards


def find_videos(shards: Sequence[Shard], files: Files) -> list[Shard]:
    """The same shards, with the paths of their videos."""

    def find(video: Annotated) -> Path | Failure:
        try:
            return files.find(video)
        except ValueError as error:
            return Failure(str(error))

    return [replace(shard, paths=tuple(map(find, shard.videos))) for shard in shards]


def as_json(value: Any) -> str:
    """A file of JSON, for people too."""
    return json.dumps(value, indent=1, ensure_ascii=False) + '\n'


def read_json(path: Path) -> Any:
    """What a file of JSON has; None if it is not there, or damaged."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (FileNotFoundError, ValueError):
        return None


def read_partial(path: Path) -> dict[str, Any] | None:
    """A partial manifest; None if it is not there, or damaged."""
    part = read_json(path)
    if not isinstance(part, dict) or not _PART.keys() <= part.keys():
        return None
    if not all(isinstance(part[key], kind) for key, kind in _PART.items()):
        return None
    return part if all(map(_is_described, part['videos'].values())) else None


def _is_described(video: Any) -> bool:
    return isinstance(video, dict) and ('failed' in video or {'frames', 'seconds'} <= video.keys())


def check_parts(folder: Path, shards: Sequence[Shard], settings: Settings) -> None:
    """Checks that no partial manifest is there that is not of these files.

    Raises:
        ValueError: if there is one.
    """
    known = {folder / shard.part for shard in shards}
    for path in sorted({*folder.glob('parts/[!.]*.json')} - known):
        if part := read_partial(path):
            check_settings(path, part['settings'], settings)
        raise ValueError(
            f'{path} is damaged or of other videos; take it away, or use another --out'
        )


def read_part(folder: Path, shard: Shard, settings: Settings) -> dict[str, Any] | None:
    """The partial manifest of a file; None if the file is to be written.

    That is so if one of the two is not there or damaged.

    Raises:
        ValueError: if it is of other settings, another annotation or other videos.
    """
    path, file = folder / shard.part, folder / shard.file
    part = read_partial(path)
    if part is None:
        return None
    check_settings(path, part['settings'], settings)
    if list(part['videos']) != [video.id for video in shard.videos]:
        raise ValueError(
            f'{path} is of other videos or in another order; give the annotation files in the same '
            'order, or use another --out'
        )
    return part if file.exists() and file.stat().st_size == part['bytes'] else None


def check_settings(path: Path, found: Mapping[str, Any], settings: Settings) -> None:
    """Checks that what is there was made with these settings, from this annotation.

    Raises:
        ValueError: if not.
    """
    here = asdict(settings)
    other = [key for key in sorted({*found, *here}) if found.get(key) != here.get(key)]
    if other == ['annotations']:
        raise ValueError(f'{path} was made from other annotation files; use another --out')
    if other:
        values = ', '.join(f'{key}={found.get(key)}' for key in other if key != 'annotations')
        raise ValueError(f'{path} was made with {values}; use the same, or another --out')


def prepare_shards(
    folder: Path,
    shards: Sequence[Shard],
    settings: Settings,
    *,
    processes: int,
    timeout: float,
    decode: Callable[..., Any] = decode_video,
) -> None:
    """Writes files, each with its partial manifest.

    Args:
        folder: of the set.
        shards: with the paths of their videos.
        settings: of the set.
        processes: in how many to decode.
        timeout: of one video, seconds.
        decode: in the place of `decode_video`.

    Raises:
        OSError: if a file cannot be written, or a video not be read for no fault of its own.
    """
    paths = [path for shard in shards for path in shard.paths]
    call = partial(
        decode, fps=settings.fps, short_side=settings.short_side, quality=settings.quality
    )
    results = run_isolated(call, paths, processes=processes, timeout=timeout)
    with contextlib.closing(results):
        bar = tqdm(results, total=len(paths), unit='video', disable=None)
        outcomes = iter(bar)
        for shard in shards:
            videos = write_shard(folder, shard, settings, outcomes)['videos']
            failed = sum('failed' in video for video in videos.values())
            bar.write(f'{shard.file}: {len(videos)} videos, {failed} failed')


def write_shard(
    folder: Path, shard: Shard, settings: Settings, results: Iterator[Decoded | Failure]
) -> dict[str, Any]:
    """Writes one file and its partial manifest.

    Args:
        folder: of the set.
        shard: with the paths of its videos.
        settings: of the set.
        results: what the videos became, from the shard's first one on.

    Returns:
        The partial manifest.

    Raises:
        OSError: if a file cannot be written.
    """
    part = {'settings': asdict(settings), **_write_records(folder, shard, settings, results)}
    with replacing(folder / shard.part) as temporary:
        temporary.write_text(as_json(part), encoding='utf-8')
    return part


def _write_records(
    folder: Path, shard: Shard, settings: Settings, results: Iterator[Decoded | Failure]
) -> dict[str, Any]:
    """Writes one file; what is its own in its partial manifest."""
    videos: dict[str, dict[str, Any]] = {}
    count = 0
    with replacing(folder / shard.file) as temporary:
        writer = ArrayRecordWriter(str(temporary), WRITER_OPTIONS)
        try:
            for video, path in zip(shard.videos, shard.paths, strict=True):
                result = next(results)
                videos[video.id] = about = _describe(video, path, result)
                if 'failed' in about:
                    continue
                for record in records(video, result, settings.frames_per_record):
                    writer.write(record)
                    count += 1
                if not writer.ok():  # else it would tell of it only at the end
                    break
        finally:
            writer.close()
        sizes = _check_file(temporary, count)
    return {
        'split': shard.split,
        'file': shard.file,
        'records': count,
        **sizes,
        'versions': {name: version(name) for name in PACKAGES},
        'videos': videos,
    }


def _describe(video: Annotated, path: Path | Failure, result: Decoded | Failure) -> dict[str, Any]:
    """What the partial manifest has of a video."""
    if isinstance(result, Failure):
        return {'failed': result.reason}
    try:
        other = other_file(path, video.id, result.duration)
    except ValueError as error:
        return {'failed': str(error)}
    return {
        'frames': len(result.frames),
        'seconds': result.duration,
        'height': result.height,
        'width': result.width,
        **({'file': other} if other else {}),
    }


def _check_file(path: Path, count: int) -> dict[str, Any]:
    """Size and hash of a file that has so many records."""
    reader = ArrayRecordReader(str(path))
    found = reader.num_records()
    reader.close()
    if found != count:
        raise OSError(f'it has {found} records of {count}')
    with path.open('rb') as file:
        sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
    return {'bytes': path.stat().st_size, 'sha256': sha256}
