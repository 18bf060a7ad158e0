"""Shows a prepared video set: its manifest, statistics, and a picture of some of its videos.

    python -m datasets.inspect data/kinetics400_25fps

The picture, a row a video, is written here as <name>.png, or to --sheet=FILE.png.
"""

import argparse
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from datasets.arguments import as_path
from datasets.dataset import Action, Unreadable, Video
from datasets.videos import PreparedSet, PreparedVideos, open_set

# Of a split, whose labels are read: to read all of a large set would take hours.
SAMPLE = 2000
FRAMES = 8
_MOST_CLIPS = 64


def main(argv: list[str] | None = None) -> int:
    """Shows a set; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument('folder', type=as_path, metavar='DIR', help='of the set, or of its version')
    parser.add_argument('--sheet', type=as_path, metavar='FILE.png', help='the picture to write')
    parser.add_argument('--clips', type=int, default=8, help='videos in the picture')
    parser.add_argument('--seed', type=int, default=0, help='which videos are drawn')
    args = parser.parse_args(argv)
    try:
        if not 1 <= args.clips <= _MOST_CLIPS or args.seed < 0:
            raise ValueError(f'use --clips=1 to {_MOST_CLIPS}, and a --seed of 0 or more')
        prepared = open_set(args.folder)
        if prepared is None:
            raise ValueError(f'{args.folder} holds no prepared set; name the folder of one')
        for line in describe(prepared, args.seed):
            print(line)
        sheet = args.sheet or Path(f'{prepared.name}.png')
        draw_sheet(prepared, args.clips, args.seed).savefig(sheet, format='png')
        print(f'picture: {sheet}')
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


def describe(prepared: PreparedSet, seed: int, sample: int = SAMPLE) -> Iterator[str]:
    """Lines that tell of a set.

    Args:
        prepared: the set.
        seed: of the sample.
        sample: of how many videos of a split, at most, the labels are read.
    """
    manifest = prepared.manifest
    settings = {k: v for k, v in manifest.items() if not isinstance(v, dict) and k != 'annotations'}
    yield f'{prepared.name} in {prepared.folder}'
    yield f'  {_listed(settings)}'
    yield f'  made with {_listed(manifest["versions"])}'
    for file in manifest['annotations']:
        split = f'{file["split"]} = ' if file['split'] else ''
        yield f'  annotation: {split}{file["file"]}, sha256 {file["sha256"]}'
    yield f'  vocabulary: {len(prepared.names)} classes, sha256 {manifest["vocabulary"]["sha256"]}'
    for split, counts in manifest['splits'].items():
        yield f'{split}'
        yield f'  {_listed(counts)}'
        reasons = Counter(counts['failed'].values()).most_common()
        yield from (f'  failed: {count} x {reason}' for reason, count in reasons[:10])
        if reasons[10:]:
            yield f'  failed: {sum(count for _, count in reasons[10:])} for other reasons'
        if split in prepared.splits:
            yield from _times(prepared.splits[split], manifest['fps'])
            yield from _labels(prepared.splits[split], prepared.names, seed, sample)


def _listed(values: Mapping[str, Any]) -> str:
    """Values by name, and of what has many how many."""
    counted = {k: len(v) if isinstance(v, dict | list) else v for k, v in values.items()}
    return ', '.join(
        f'{k} {v:,}' if type(v) in (int, float) else f'{k} {v}' for k, v in counted.items()
    )


def _times(source: PreparedVideos, fps: int) -> Iterator[str]:
    seconds = source.num_frames / fps
    least, middle, most = np.quantile(seconds, [0, 0.5, 1])
    yield (
        f'  {seconds.sum() / 3600:,.2f} hours; a video lasts {least:.1f} to {most:.1f} s, '
        f'the median {middle:.1f} s'
    )


def _labels(
    source: PreparedVideos, names: tuple[str, ...], seed: int, sample: int
) -> Iterator[str]:
    rng, count = np.random.default_rng(seed), min(sample, len(source))
    found, damaged = [], []
    for index in np.sort(rng.choice(len(source), count, replace=False)).tolist():
        try:
            found.append({action.label for action in source.read(index, [0]).actions})
        except Unreadable as error:
            damaged.append(f'video {index}: {error}')
    whose = 'all' if count == len(source) else 'a random sample of'
    yield f'  labels, of {whose} {count:,} videos:'
    if damaged:
        yield f'    {len(damaged):,} cannot be read; the first is {damaged[0]}'
    if not found:
        return
    each = [len(labels) for labels in found]
    yield f'    a video has {min(each)} to {max(each)}, {np.mean(each):.2f} on average'
    numbers = np.bincount([x for labels in found for x in labels], minlength=len(names))
    order = np.argsort(-numbers, kind='stable')
    seen = [f'{names[i]} ({numbers[i]:,})' for i in order if numbers[i]]
    unseen = [names[i] for i in order if not numbers[i]]
    yield f'    most videos: {", ".join(seen[:5]) or "no class"}'
    if seen[5:]:
        yield f'    fewest: {", ".join(seen[:4:-1][:5])}'
    shown = ', '.join(unseen[:10]) + (', ...' if unseen[10:] else '')
    yield f'    classes without any: {len(unseen):,}' + (f' ({shown})' if unseen else '')


def draw_sheet(prepared: PreparedSet, clips: int, seed: int) -> Any:
    """Draws videos of any split, each as a row of 8 frames from its first to its last.

    The row of one that is damaged says so.

    Args:
        prepared: the set.
        clips: how many; all where there are fewer.
        seed: which.

    Returns:
        The matplotlib figure.
    """
    from matplotlib.figure import Figure  # slow to load

    places = [(split, i) for split, s in prepared.splits.items() for i in range(len(s))]
    chosen = np.random.default_rng(seed).permutation(len(places))[:clips]
    height = 2.4 * len(chosen)
    figure = Figure(figsize=(2 * FRAMES, height), dpi=100)
    grid = figure.subplots(len(chosen), FRAMES, squeeze=False)
    figure.subplots_adjust(0.01, 0.25 / height, 0.99, 1 - 0.6 / height, wspace=0.05, hspace=0.35)
    for row, (split, index) in zip(grid, [places[i] for i in chosen], strict=True):
        try:
            video, pixels = _read(prepared.splits[split], index)
        except Unreadable as error:
            _caption(row, f'{split} video {index} cannot be read: {error}')
        else:
            _draw_video(row, prepared, split, video, pixels)
    return figure


def _read(source: PreparedVideos, index: int) -> tuple[Video, list[np.ndarray]]:
    """Frames of a video from its first to its last, and their pixels [h, w, 3]."""
    last = int(source.num_frames[index]) - 1
    video = source.read(index, np.linspace(0, last, FRAMES).round().astype(int).tolist())
    try:
        return video, [simplejpeg.decode_jpeg(frame) for frame in video.frames]
    except ValueError as error:
        raise Unreadable(f'{video.id}: damaged JPEG file: {error}') from error


def _caption(row: Any, text: str) -> None:
    """Writes a line or two above a row, and takes its ticks away."""
    lines = textwrap.wrap(text, 230, max_lines=2)
    # A dollar would begin a formula.
    row[0].set_title('\n'.join(lines).replace('$', r'\$'), loc='left', fontsize=9)
    for axis in row:
        axis.set(xticks=[], yticks=[])


def _draw_video(
    row: Any, prepared: PreparedSet, split: str, video: Video, pixels: list[np.ndarray]
) -> None:
    names = prepared.names
    actions = '; '.join(
        f'{names[label]} {start:.1f}-{end:.1f} s' for label, start, end in video.actions
    )
    _caption(row, f'{split} {video.id}: {actions or "no label"}')
    for axis, image, time in zip(row, pixels, video.times, strict=True):
        axis.imshow(image)
        now = [] if prepared.manifest['single_label'] else _now(video.actions, time)
        text = ' '.join([f'{time:.2f} s', *(names[label] for label in now)])
        axis.set_xlabel(textwrap.shorten(text, 32).replace('$', r'\$'), fontsize=8)


def _now(actions: tuple[Action, ...], time: float) -> list[int]:
    return sorted({label for label, start, end in actions if start <= time <= end})


if __name__ == '__main__':
    sys.exit(main())
