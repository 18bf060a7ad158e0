"""Prepares images that lie in folders, or in tar files, one a class: ImageNet-21k, or your own.

    python -m datasets.from_folders imagenet21k --images=DIR --out=ROOT
    python -m datasets.from_folders jft --images=DIR --labels train=FILE test=FILE --out=ROOT

The first takes the class from the folder or tar file (DIR/n01440764/*.JPEG, DIR/n01440764.tar); the
second from files of JSON lines, {"image": "path below DIR", "labels": ["dog", "grass"]}, with as
many labels as an image has. Splits are SPLIT=DIR or SPLIT=FILE; one without a name is `full` of
imagenet21k, else `train`. All splits have the classes of any.

The dataset `jft` reads sets of its name and, with data_dir=ROOT/NAME, of any other; where they were
made of folders, with labels=label.

The files' bytes go in as they are, in ArrayRecord as TFDS writes it, with `vocabulary.txt`; a file
that is no image is told of when it is read. Of folders and tar files, names that begin with '.' and
__MACOSX are left out.
"""

import argparse
import json
import lzma
import os
import sys
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from datasets.arguments import as_path, split_and_path
from datasets.prepare.files import is_left_out
from datasets.write import write_set

VERSION = '1.0.0'
Item = tuple[str, dict[str, Any]]

# What `tarfile` raises of a damaged file, and where a link leads nowhere or to itself.
_DAMAGE = (
    *(tarfile.TarError, OSError, EOFError, KeyError, RecursionError),
    *(zlib.error, lzma.LZMAError),
)


def main(argv: list[str] | None = None) -> int:
    """Prepares a set; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        'name', help='of the set: imagenet21k or jft, or another, which `jft` reads from OUT/NAME'
    )
    several = {'nargs': '+', 'action': 'extend'}
    parser.add_argument(
        '--images', required=True, **several, help='[SPLIT=]DIR of the classes; with --labels DIR'
    )
    parser.add_argument('--labels', **several, help='[SPLIT=]FILE: JSON lines of image and labels')
    parser.add_argument('--out', type=as_path, required=True, help='folder of prepared sets')
    args = parser.parse_args(argv)
    split = 'full' if args.name == 'imagenet21k' else 'train'
    try:
        if args.labels is None:
            folder = prepare_classes(args.name, by_split(args.images, split), args.out)
        elif len(args.images) == 1:
            labels = by_split(args.labels, split)
            folder = prepare_labelled(args.name, as_path(args.images[0]), labels, args.out)
        else:
            raise ValueError('--labels has paths below one folder; use --images=DIR')
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(folder)
    return 0


def by_split(given: Sequence[str], default: str) -> dict[str, Path]:
    """Paths by split, from SPLIT=PATH or PATH.

    Raises:
        ValueError: if a split has two.
    """
    found: dict[str, Path] = {}
    for value in given:
        named, path = split_and_path(value)
        split = named or default
        if split in found:
            raise ValueError(f'{value} is a second path of split {split!r}; use SPLIT=PATH')
        found[split] = path
    return found


def prepare_classes(name: str, images: Mapping[str, Path], out: Path) -> Path:
    """Writes a set of images with one label each, by split a folder of classes; its folder.

    Raises:
        ValueError: if there are no images, or they cannot be a class's.
    """
    classes = {split: _classes(folder) for split, folder in images.items()}
    names = sorted(set().union(*classes.values()))
    splits = {split: _of_classes(found) for split, found in classes.items()}
    return _write(name, out, names, image_features(names), splits)


def prepare_labelled(name: str, images: Path, labels: Mapping[str, Path], out: Path) -> Path:
    """Writes a set of images with any number of labels, by split a file of them; its folder.

    Raises:
        ValueError: if there are no images, or the labels do not fit them.
    """
    _check_folder(images)
    names = sorted(set().union(*(_vocabulary(file, images) for file in labels.values())))
    if not names:
        raise ValueError(f'{", ".join(map(str, labels.values()))} has no label; give some')
    splits = {split: _of_rows(file, images) for split, file in labels.items()}
    return _write(name, out, names, labels_features(names), splits)


def _write(
    name: str, out: Path, names: Sequence[str], features: Any, splits: Mapping[str, Iterator[Item]]
) -> Path:
    folder = write_set(out, name, VERSION, features, splits)
    (folder / 'vocabulary.txt').write_text('\n'.join(names) + '\n', encoding='utf-8')
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


def _classes(images: Path) -> dict[str, Path]:
    """The folder or tar file of each class, once every folder was looked at."""
    _check_folder(images)
    classes: dict[str, Path] = {}
    for path in sorted(images.iterdir()):
        if is_left_out(path.name) or not (path.is_dir() or path.suffix == '.tar'):
            continue
        name = path.name if path.is_dir() else path.stem
        if name in classes:
            raise ValueError(f'{images} has two classes {name!r}; keep the folder or the .tar')
        _check_name(name, str(images))
        if path.is_dir():
            _listed(path)
        classes[name] = path
    if not classes:
        raise ValueError(f'{images} holds neither folders nor .tar files; put one a class there')
    return classes


def _check_folder(images: Path) -> None:
    if not images.is_dir():
        raise ValueError(f'{images} is no folder; name the folder of the images')


def _check_name(name: str, where: str) -> None:
    """Raises ValueError if TFDS or a vocabulary would read another name."""
    if name.splitlines() != [name] or name.strip() != name:
        raise ValueError(f'{where} has the label {name!r}; use one line without spaces around it')


def _of_classes(classes: Mapping[str, Path]) -> Iterator[Item]:
    for name, path in classes.items():
        for file, data in files_of(path):
            key = f'{name}/{file}'
            yield key, {'image': BytesIO(data), 'label': name, 'file_name': key}


def files_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the files of a class.

    Raises:
        ValueError: if there are none, a folder holds another, or a tar file is damaged or has a
            name twice.
    """
    if not path.is_dir():
        yield from _in_tar(path)
        return
    for name in _listed(path):
        yield name, (path / name).read_bytes()


def _listed(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        found = sorted((x.name, x.is_dir()) for x in entries if not is_left_out(x.name))
    if inner := [name for name, is_folder in found if is_folder]:
        raise ValueError(
            f'{folder} holds the folder {inner[0]!r}; move its images up into the class'
        )
    if not found:
        raise ValueError(f'{folder} holds no images; put some there, or take it away')
    return [name for name, _ in found]


def _in_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    seen: set[str] = set()
    for member, data in _members(path):
        name = member.removeprefix('./').removeprefix(f'{path.stem}/')
        if name in seen:
            raise ValueError(f'{path} holds {name} twice; pack it again')
        seen.add(name)
        yield name, data
    if not seen:
        raise ValueError(f'{path} holds no images; put some there, or take it away')


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names in a tar file and the bytes of these files."""
    place = 'its beginning'
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                place = member.name
                if any(map(is_left_out, place.removeprefix('./').split('/'))):
                    continue
                if file := archive.extractfile(member):
                    yield place, file.read()
            place = 'its end'
            while archive.fileobj.read(2**20):  # to the checksum, which `tarfile` leaves unread
                pass
    except _DAMAGE as error:
        said = error.args[0] if isinstance(error, KeyError) else error  # a KeyError quotes its text
        reason = str(said).partition('\n')[0].rstrip(':')
        raise ValueError(
            f'{path} cannot be read at {place}: {reason}; pack it again, or take it away'
        ) from error


def _vocabulary(labels: Path, images: Path) -> set[str]:
    """The names of the classes, once every line was looked at."""
    names: set[str] = set()
    seen: set[int] = set()  # hashes, as there may be very many images
    for where, image, found in _rows(labels):
        if hash(image) in seen:
            raise ValueError(f'{where} names {image} a second time')
        if not (images / image).is_file():
            raise ValueError(f'{where} names {image}, which is not in {images}')
        for label in found:
            _check_name(label, where)
        seen.add(hash(image))
        names.update(found)
    if not seen:
        raise ValueError(f'{labels} has no line; name an image a line')
    return names


def _rows(labels: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Of each line where it is, its image and its labels."""
    try:
        with labels.open(encoding='utf-8') as file:
            for number, line in enumerate(file, 1):
                where = f'{labels}:{number}'
                yield where, *_row(line, where)
    except UnicodeDecodeError as error:
        raise ValueError(f'{labels} is no text in UTF-8; save it as such') from error


def _row(line: str, where: str) -> tuple[str, list[str]]:
    """The image of a line, and its labels, which are texts or whole numbers."""
    try:
        match json.loads(line):
            case {'image': str(image), 'labels': list(found)} if all(map(_is_label, found)):
                return image, [str(label) for label in found]
    except (ValueError, RecursionError):
        pass
    raise ValueError(f'{where} is not {{"image": "PATH", "labels": ["NAME", ...]}}; mend it')


def _is_label(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _of_rows(labels: Path, images: Path) -> Iterator[Item]:
    for _, file, found in _rows(labels):
        data = BytesIO((images / file).read_bytes())
        yield file, {'image': data, 'labels': found, 'file_name': file}


if __name__ == '__main__':
    sys.exit(main())
