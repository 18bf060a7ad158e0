"""Small sets of real videos as people have the large ones on disk: mp4 files and annotations.

`python -m datasets.make_fake` writes them. Names of files, columns and ids are the official ones;
the videos show moving digits in colour, and their motions are the first classes.
"""

import csv
import json
import shlex
import string
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from datasets.digits import load_digits
from datasets.moving_digits import MOTIONS, Motion, draw_frame, draw_motions, draw_path
from datasets.video_sets import VIDEO_SETS

SHAPE = (72, 96)
_NONE = 8  # number of AViD's video that is labelled 'none'


@dataclass(frozen=True)
class Format:
    """What the videos of a set are like.

    Attributes:
        splits: names; the first is to train on.
        seconds: of a video, least and most.
        letters: of an id.
        id_length: in letters.
    """

    splits: tuple[str, str]
    seconds: tuple[int, int]
    letters: str
    id_length: int


class Fake(NamedTuple):
    """A video that was made.

    Attributes:
        id: of the video.
        digit: which one it shows.
        motions: of the digit.
        num_frames: of the video.
    """

    id: str
    digit: int
    motions: list[Motion]
    num_frames: int

    @property
    def label(self) -> str:
        """The name of its only motion."""
        return MOTIONS[self.motions[0].label] if self.motions else 'none'


_YOUTUBE = Format(
    ('train', 'val'), (2, 3), string.ascii_letters + string.digits + '-_', id_length=11
)
FAKES: Mapping[str, Format] = {
    'kinetics400': _YOUTUBE,
    'kinetics600': _YOUTUBE,
    'charades': Format(
        ('train', 'test'), (6, 10), string.ascii_uppercase + string.digits, id_length=5
    ),
    'avid': Format(('train', 'val'), (2, 3), string.ascii_lowercase, id_length=8),
}


def make_fake_videos(name: str, out: Path, examples: int = 64) -> Path:
    """Writes the fake of a video set, whole or not at all; its folder.

    Args:
        name: of the set.
        out: folder to write `name` in.
        examples: to train on; the other split has a quarter of them.

    Raises:
        ValueError: if it is there already, or there are not as many digits.
    """
    if not 16 <= examples <= 4000:
        raise ValueError(f'--examples={examples} is not possible; use 16 to 4000 for videos')
    folder, known = out / name, FAKES[name]
    if folder.exists():
        raise ValueError(f'{folder} is there already; take it away, or write to another folder')
    out.mkdir(parents=True, exist_ok=True)
    ids = _draw_ids(name, examples + examples // 4)
    with tempfile.TemporaryDirectory(dir=out, prefix=f'.{name}-') as place:
        made = Path(place) / name
        (made / 'annotations').mkdir(parents=True)
        for number, split in enumerate(known.splits):
            count = examples // 4 if number else examples
            videos = list(_write_videos(name, made / 'videos', number, ids[:count]))
            _write_annotation(name, made / 'annotations', split, videos)
            ids = ids[count:]
        made.rename(folder)
    return folder


def prepare_command(name: str, folder: Path) -> str:
    """The command that prepares the set in a folder for training."""
    files = [f'{x}={_annotation(name, folder / "annotations", x)}' for x in FAKES[name].splits]
    words = ['python', '-m', 'datasets.prepare', name, '--annotations', *files]
    words += ['--videos', str(folder / 'videos'), '--out', str(folder.parent)]
    if name.startswith('kinetics'):
        words += ['--classes', str(len(MOTIONS))]
    return shlex.join(words)


def _draw_ids(name: str, count: int) -> list[str]:
    """Ids; of Kinetics every seventh begins with '-', as some of YouTube's do."""
    known, rng = FAKES[name], np.random.default_rng(list(name.encode()))
    ids: dict[str, None] = {}
    while len(ids) < count:
        drawn = ''.join(rng.choice(list(known.letters), known.id_length))
        ids['-' + drawn[1:] if '-' in known.letters and len(ids) % 7 == 3 else drawn] = None
    return list(ids)


def _write_videos(name: str, folder: Path, split: int, ids: Sequence[str]) -> Iterator[Fake]:
    digits, fps = load_digits('').split('test' if split else 'train'), VIDEO_SETS[name].fps
    seconds = FAKES[name].seconds
    for number, key in enumerate(ids):
        example = digits[number * len(digits) // len(ids)]  # of all classes
        rng = np.random.default_rng((split, number))
        num_frames = int(rng.integers(*np.multiply(seconds, fps), endpoint=True))
        motions = _draw(name, rng, number, num_frames)
        video = Fake(key, int(example['label']), motions, num_frames)
        path = folder / _file(name, video)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, _frames(rng, example['image'], video), fps)
        yield video


def _draw(name: str, rng: np.random.Generator, number: int, num_frames: int) -> list[Motion]:
    """Motions: of Charades two to four, of every eighth video none; of the others one."""
    if name == 'charades':
        return draw_motions(rng, 0 if number % 8 == 5 else 2 + number % 3, num_frames)
    still = name == 'avid' and number == _NONE
    return [] if still else [Motion(number % len(MOTIONS), 0, num_frames)]


def _frames(rng: np.random.Generator, digit: np.ndarray, video: Fake) -> Iterator[np.ndarray]:
    dark, bright = rng.integers(0, 80, 3), rng.integers(160, 256, 3)
    colors = np.linspace(dark, bright, 256).astype(np.uint8)
    for place in draw_path(rng, video.motions, video.num_frames, SHAPE):
        yield colors[draw_frame(digit, place, SHAPE)]


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int) -> None:
    """Writes frames [72, 96, 3] uint8 as a file with h264."""
    # More threads, and x264's mbtree at this size, give other bytes each time.
    options = {'crf': '23', 'preset': 'veryfast', 'threads': '1', 'x264-params': 'mbtree=0'}
    with av.open(str(path), 'w') as file:
        stream = file.add_stream('libx264', rate=fps, options=options)
        stream.height, stream.width = SHAPE
        stream.pix_fmt = 'yuv420p'
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        file.mux(stream.encode())


def _file(name: str, video: Fake) -> str:
    """The path of a video's file below `videos`."""
    if not name.startswith('kinetics'):
        return f'{video.id}.mp4'
    start, end = _interval(video)
    return f'{video.label}/{video.id}_{start:06}_{end:06}.mp4'


def _interval(video: Fake) -> tuple[int, int]:
    """Which ten seconds of a longer video it would be."""
    start = sum(video.id.encode()) % 300
    return start, start + 10


def _annotation(name: str, folder: Path, split: str) -> Path:
    if name == 'charades':
        return folder / f'Charades_v1_{split}.csv'
    return folder / f'{name}_{split}.{"json" if name == "avid" else "csv"}'


def _write_annotation(name: str, folder: Path, split: str, videos: Sequence[Fake]) -> None:
    path = _annotation(name, folder, split)
    if name == 'avid':
        path.write_text(
            json.dumps({_file(name, video): video.label for video in videos}), encoding='utf-8'
        )
    elif name == 'charades':
        _write_rows(path, map(_charades_row, videos))
        unused = [f'Unused {number}' for number in range(len(MOTIONS), VIDEO_SETS[name].classes)]
        lines = [f'c{i:03} {text}\n' for i, text in enumerate([*MOTIONS, *unused])]
        (folder / 'Charades_v1_classes.txt').write_text(''.join(lines), encoding='utf-8')
    else:
        _write_rows(path, (_kinetics_row(video, split) for video in videos))


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    first, *others = rows
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, first)
        writer.writeheader()
        writer.writerows([first, *others])


def _kinetics_row(video: Fake, split: str) -> dict[str, Any]:
    start, end = _interval(video)
    return {
        'label': video.label,
        'youtube_id': video.id,
        'time_start': start,
        'time_end': end,
        'split': split,
    }


def _charades_row(video: Fake) -> dict[str, Any]:
    fps = VIDEO_SETS['charades'].fps
    names = [MOTIONS[motion.label] for motion in video.motions]
    actions = [motion.action(fps) for motion in video.motions]
    return {
        'id': video.id,
        'subject': f'D{video.digit:03}',
        'scene': 'Canvas',
        'quality': 7,
        'relevance': 7,
        'verified': 'Yes',
        'script': f'A "{video.digit}", drawn by hand, goes: {", ".join(names) or "nowhere"}.',
        'objects': 'digit;canvas',
        'descriptions': ';'.join(f'A digit, and it goes: {name}.' for name in names),
        'actions': ';'.join(f'c{a.label:03} {a.start:.2f} {a.end:.2f}' for a in actions),
        'length': f'{video.num_frames / fps:.2f}',
    }
