"""How many frames of a video a record is to have: what reading a clip takes, with other lengths.

    python -m benchmarks.records [--frames 4 8 16 32 250] [--rounds 20] [--json FILE]

The videos are those of `benchmarks.input`, 10 s each; a record of 250 frames is a whole video. For
each length a set is prepared, and in turn some clips of each are read: 32 frames, every second,
from a random one on. `warm` the files are in the page cache, where reading costs the processor's
time; `cold` they are not, and come from the disk. The rest of a clip's way, decoding, is the same.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import describe, write_json
from benchmarks.films import FPS, FRAMES, films, write_prepared
from datasets.clips import Clip
from datasets.videos import PreparedVideos, open_set

CLIP = Clip(frames=32, stride=2, label_mode='video')


def forget(folder: Path) -> None:
    """Has the system give up what it keeps of the files in memory."""
    for path in folder.glob('*.array_record*'):
        with path.open('rb') as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_clips(source: PreparedVideos, count: int, seed: int) -> float:
    """Milliseconds a clip."""
    rng = np.random.default_rng(seed)
    room = FRAMES - (CLIP.frames - 1) * CLIP.stride
    start = time.perf_counter()
    for _ in range(count):
        places = CLIP.places(int(rng.integers(room)), FRAMES)
        source.read(int(rng.integers(len(source))), places.tolist())
    return 1000 * (time.perf_counter() - start) / count


def bytes_read(source: PreparedVideos, length: int) -> float:
    """Bytes of the records of a clip, on average over where it may begin."""
    size = sum(map(len, source.read(0, list(range(FRAMES))).frames)) / FRAMES
    counts = []
    for start in range(FRAMES - (CLIP.frames - 1) * CLIP.stride):
        records = {place // length for place in CLIP.places(start, FRAMES).tolist()}
        counts.append(sum(min(FRAMES, (k + 1) * length) - k * length for k in records))
    return size * statistics.mean(counts)


def measure(folders: dict[int, Path], rounds: int, clips: int) -> list[dict[str, Any]]:
    """Reads from all sets in turn."""
    sets = {length: open_set(folder) for length, folder in folders.items()}
    taken: dict[tuple[int, str], list[float]] = {}
    for number in range(rounds):
        for length, prepared in sets.items():
            for kind in ('cold', 'warm'):  # the warm one has been read just now
                if kind == 'cold':
                    forget(prepared.folder)
                source = prepared.splits['train']
                taken.setdefault((length, kind), []).append(read_clips(source, clips, number))
    return [
        {
            'frames_per_record': length,
            'mb_read': bytes_read(prepared.splits['train'], length) / 1e6,
            **{f'{kind}_ms': statistics.median(taken[length, kind]) for kind in ('warm', 'cold')},
        }
        for length, prepared in sets.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--frames', type=int, nargs='+', default=[4, 8, 16, 32, 250])
    parser.add_argument('--videos', type=int, default=16)
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    about = describe('array_record')
    made = [(f'{number:05}', number, frames) for number, frames in enumerate(films(args.videos))]
    with tempfile.TemporaryDirectory(dir='.') as name:  # /tmp may be no disk
        folders = {}
        for length in args.frames:
            folders[length] = Path(name) / str(length) / f'kinetics400_{FPS}fps' / '1.0.0'
            write_prepared(folders[length], made, length)
        rows = measure(folders, args.rounds, clips=args.videos)
    print('frames a record   MB a clip   warm, ms   cold, ms')
    for row in rows:
        print(
            '{frames_per_record:15} {mb_read:11.2f} {warm_ms:10.2f} {cold_ms:10.2f}'.format(**row)
        )
    write_json(args.json, {**about, 'rows': rows})


if __name__ == '__main__':
    main()
