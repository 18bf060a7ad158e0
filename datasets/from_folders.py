"""Prepares images that lie in folders, or in tar files, one a class: ImageNet-21k, or your own.

    python -m datasets.from_folders imagenet21k --images=DIR --out=ROOT
    python -m datasets.from_folders jft --images=DIR --labels=FILE --out=ROOT

The first takes the class from the folder or tar file (DIR/n01440764/*.JPEG, DIR/n01440764.tar); the
second from a file of JSON lines, {"image": "path below DIR", "labels": ["dog", "grass"]}, with as
many labels as an image has. The files' bytes go in as they are, in ArrayRecord as TFDS writes it,
with `vocabulary.txt`; a file that is no image is told of when it is read.
"""

import argparse
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from datasets.write import write_set

VERSION = '1.0.0'
Item = tuple[str, dict[str, Any]]


def main(argv: list[str] | None = None) -> int:
    """Prepares a set; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('name', help='of the set: imagenet21k, jft')
    parser.add_argument('--images', type=Path, required=True, help='folder of the images')
    parser.add_argument('--labels', type=Path, help='JSON lines of image and labels')
    parser.add_argument('--split', default=None, help='default: full of imagenet21k, else train')
    parser.add_argument('--out', type=Path, required=True, help='folder of prepared sets')
    args = parser.parse_args(argv)
    split = args.split or ('full' if args.name == 'imagenet21k' else 'train')
    try:
        print(prepare(args.name, args.images, args.out, split, args.labels))
    except (OSError, ValueError, tarfile.TarError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


def prepare(name: str, images: Path, out: Path, split: str, labels: Path | None = None) -> Path:
    """Writes a set; its folder.

    Raises:
        ValueError: if there are no images, or the labels do not fit them.
    """
    if not images.is_dir():
        raise ValueError(f'{images} is no folder; name the folder of the images')
    if labels is None:
        classes = sorted(p for p in images.iterdir() if p.is_dir() or p.suffix == '.tar')
        names = [path.stem if path.suffix == '.tar' else path.name for path in classes]
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(f'{images} has two classes {twice[0]!r}; keep the folder or the .tar')
        features, items = image_features(names), _of_classes(classes, names)
    else:
        names = _vocabulary(labels, images)
        features, items = labels_features(names), _of_rows(labels, images)
    if not names:
        raise ValueError(f'{images} holds neither folders nor .tar files; put one a class there')
    folder = write_set(out, name, VERSION, features, {split: items})
    (folder / 'vocabulary.txt').write_text('\n'.join(names) + '\n')
    return folder


def image_features(names: Sequence[str]) -> Any:
    """The features of a set with one label an image."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            'image': tfds.features.Image(),
            'label': tfds.features.ClassLabel(names=list(names)),
            'file_name': tfds.features.Text(),
        }
    )


def labels_features(names: Sequence[str]) -> Any:
    """The features of a set with any number of labels an image."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            'image': tfds.features.Image(),
            'labels': tfds.features.Sequence(tfds.features.ClassLabel(names=list(names))),
            'file_name': tfds.features.Text(),
        }
    )


def _of_classes(classes: Sequence[Path], names: Sequence[str]) -> Iterator[Item]:
    for path, name in zip(classes, names, strict=True):
        for file, data in _files(path):
            key = f'{name}/{file}'
            yield key, {'image': BytesIO(data), 'label': name, 'file_name': key}


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the files of a folder or of a tar file."""
    if path.is_dir():
        for file in sorted(path.iterdir()):
            yield file.name, file.read_bytes()
        return
    with tarfile.open(path) as archive:
        for member in archive:
            if (file := archive.extractfile(member)) is not None:
                yield member.name.removeprefix('./').removeprefix(f'{path.stem}/'), file.read()


def _vocabulary(labels: Path, images: Path) -> list[str]:
    """The names of the classes, once every line was looked at."""
    names: set[str] = set()
    seen: set[int] = set()  # hashes, as there may be very many images
    for where, image, found in _rows(labels):
        if hash(image) in seen:
            raise ValueError(f'{where} names {image} a second time')
        if not (images / image).is_file():
            raise ValueError(f'{where} names {image}, which is not in {images}')
        for label in found:
            if label.splitlines() != [label]:
                raise ValueError(f'{where} has the label {label!r}, which is no line')
        seen.add(hash(image))
        names.update(found)
    return sorted(names)


def _rows(labels: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Of each line where it is, its image and its labels."""
    with labels.open() as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                if not isinstance(row['labels'], list):
                    raise TypeError
                yield f'{labels}:{number}', str(row['image']), [str(x) for x in row['labels']]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f'{labels}:{number} is not {{"image": ..., "labels": [...]}}'
                ) from error


def _of_rows(labels: Path, images: Path) -> Iterator[Item]:
    for _, file, found in _rows(labels):
        data = BytesIO((images / file).read_bytes())
        yield file, {'image': data, 'labels': found, 'file_name': file}


if __name__ == '__main__':
    sys.exit(main())
