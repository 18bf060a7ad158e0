"""Prepares a video set: from a folder of videos and the official annotation to clips' frames.

    python -m datasets.prepare kinetics400 --annotations FILE... --videos=DIR --out=ROOT

Writes ROOT/NAME_<fps>fps/VERSION. What was stopped goes on by the same command. Work is shared by
--shard=0/8 to --shard=7/8, on one machine or many, and finished by --merge; or it is run by Apache
Beam: --beam and after it the flags of the pipeline.

Videos that failed are not tried again, unless dataset_info.json and the partial manifests that name
them (parts/*.json) are taken away. manifest.json has the sha256 of each file of records; of a copy,

    jq -r '.files[] | .sha256 + "  " + .name' manifest.json | sha256sum --check

says whether it is whole.
"""

import argparse
import sys
from pathlib import Path

from datasets.arguments import as_path
from datasets.prepare.annotations import read_annotations
from datasets.prepare.decode import QUALITY, SHORT_SIDE
from datasets.prepare.files import Files
from datasets.prepare.isolate import count_cpus
from datasets.prepare.merge import merge, read_manifest, summary
from datasets.prepare.shards import (
    Settings,
    Shard,
    check_parts,
    find_videos,
    plan,
    prepare_shards,
    read_part,
)
from datasets.video_sets import VIDEO_SETS


def main(argv: list[str] | None = None) -> int:
    """Prepares a set; the exit status."""
    try:
        _prepare(_parse(argv))
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('stopped; the same command goes on', file=sys.stderr)
        return 130
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add('name', choices=VIDEO_SETS)
    add('--annotations', required=True, nargs='+', action='extend', help='[SPLIT=]FILE')
    add('--videos', type=as_path, help='folder of the videos, in any layout')
    add('--out', type=as_path, required=True, help='folder of prepared sets')
    add('--fps', type=_positive, help='frames a second; 25 of Kinetics, else 12')
    add(
        '--short_side',
        type=_positive,
        default=SHORT_SIDE,
        help='pixels; smaller videos stay as they are',
    )
    add('--quality', type=_quality, default=QUALITY, help='of JPEG, 1 to 100')
    add('--classes', type=_positive, help='how many, where a part of the set is annotated')
    add('--videos_per_file', type=_positive, default=512, help='at most')
    add('--processes', type=_positive, help='that decode; as many as CPUs, with --beam 1')
    add('--timeout', type=_positive, default=300, help='of one video, seconds')
    work = parser.add_mutually_exclusive_group()
    work.add_argument('--shard', type=_shard, help='I/N: every N-th file from I, and no --merge')
    work.add_argument('--merge', action='store_true', help='only finish a set')
    work.add_argument('--beam', nargs=argparse.REMAINDER, help='and flags of an Apache Beam runner')
    args = parser.parse_args(argv)
    if args.videos is None and not args.merge:
        parser.error('give the folder of the videos; use --videos=DIR')
    return args


def _positive(text: str) -> int:
    if (number := _whole(text)) < 1:
        raise argparse.ArgumentTypeError(f'{text} is not possible; use 1 or more')
    return number


def _quality(text: str) -> int:
    if not 1 <= (number := _whole(text)) <= 100:
        raise argparse.ArgumentTypeError(f'{text} is not possible; use 1 to 100')
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{text} is no whole number; use one') from error


def _shard(text: str) -> slice:
    number, _, count = text.partition('/')
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f'{text} is no shard; use 0/N to N-1/N')
    return slice(int(number), None, int(count))


def _prepare(args: argparse.Namespace) -> None:
    annotations = read_annotations(args.name, args.annotations, args.classes)
    settings = Settings(
        args.name,
        args.fps or VIDEO_SETS[args.name].fps,
        args.short_side,
        args.quality,
        args.videos_per_file,
        [
            dict(zip(('file', 'split', 'sha256'), file, strict=True))
            for file in sorted(annotations.files, key=lambda file: file[-1])
        ],
    )
    folder = args.out / settings.set_name / settings.version
    if manifest := read_manifest(folder, settings):
        print(f'{folder} is finished already')
    else:
        shards = plan(annotations.videos, settings)
        check_parts(folder, shards, settings)
        if not args.merge:
            found = find_videos(shards, Files(args.videos.resolve(), annotations))
            _work(args, folder, found, settings)
        if args.shard:
            return
        manifest = merge(folder, shards, settings, annotations)
    print(*summary(manifest), folder / 'manifest.json', sep='\n')


def _work(args: argparse.Namespace, folder: Path, shards: list[Shard], settings: Settings) -> None:
    """Writes the files that are this command's and not there yet."""
    if not any(isinstance(path, Path) for shard in shards for path in shard.paths):
        raise ValueError(f'{args.videos} has no file of an annotated video; use another --videos')
    mine = shards[args.shard] if args.shard else shards
    todo = [shard for shard in mine if not read_part(folder, shard, settings)]
    if args.beam is None:
        processes = args.processes or count_cpus()
        prepare_shards(folder, todo, settings, processes=processes, timeout=args.timeout)
    else:
        from datasets.prepare.beam import run_pipeline

        work = {'settings': settings, 'processes': args.processes or 1, 'timeout': args.timeout}
        run_pipeline(args.beam, folder.resolve(), todo, **work)


if __name__ == '__main__':
    sys.exit(main())
