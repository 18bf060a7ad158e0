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
from collections.abc import Iterator, Mapping, Sequence
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
        if twice := {each for each in names if names.count(each) > 1}:
            raise ValueError(
                f'{images} has two classes {min(twice)!r}; keep the folder or the .tar'
            )
        features, items = image_features(names), _of_classes(classes, names)
    else:
        rows = _read_labels(labels, images)
        names = sorted({label for found in rows.values() for label in found})
        features, items = labels_features(names), _of_rows(rows, images)
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


def _read_labels(labels: Path, images: Path) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(labels.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            if not isinstance(row['labels'], list):
                raise TypeError
            image, found = str(row['image']), [str(label) for label in row['labels']]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'{labels}:{number} is not {{"image": ..., "labels": [...]}}'
            ) from error
        if image in rows:
            raise ValueError(f'{labels}:{number} names {image} a second time')
        if not (images / image).is_file():
            raise ValueError(f'{labels}:{number} names {image}, which is not in {images}')
        for label in found:
            if label.splitlines() != [label]:
                raise ValueError(f'{labels}:{number} has the label {label!r}, which is no line')
        rows[image] = found
    return rows


def _of_rows(rows: Mapping[str, list[str]], images: Path) -> Iterator[Item]:
    for file, labels in rows.items():
        data = BytesIO((images / file).read_bytes())
        yield file, {'image': data, 'labels': labels, 'file_name': file}


if __name__ == '__main__':
    sys.exit(main())
