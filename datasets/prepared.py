"""Prepared image sets with random access: TFDS's as ArrayRecord, and plain ArrayRecord files.

Nothing here loads TensorFlow.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from datasets.arguments import as_path
from datasets.dataset import Source, Unreadable, UnreadSource

# What a record of another kind may raise where TFDS reads it.
_FOREIGN = (DecodeError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

# What TFDS's image sets call the name of an example's file.
_NAMES = ('file_name', 'id', 'filename', 'image/file_name', 'image/filename')

Example = dict[str, Any]


class Labels:
    """Classes by number, from their names or numbers.

    Attributes:
        names: of the classes.
    """

    def __init__(self, names: Sequence[str], numbered: Sequence[str] = ()) -> None:
        """Knows classes.

        Args:
            names: of the classes.
            numbered: what the data's own numbers stand for; without it, for these classes.
        """
        self.names = tuple(names)
        self._numbers = {name: number for number, name in enumerate(self.names)}
        self._numbered = tuple(numbered or names)

    def __call__(self, label: bytes | str | int) -> int:
        """The number of a class.

        Raises:
            Unreadable: if there is no such class.
        """
        if isinstance(label, bytes | str):
            name = text(label)
        elif not isinstance(label, int | np.integer):
            raise Unreadable(f'the label {label} is neither name nor number of a class')
        elif not 0 <= label < len(self._numbered):
            raise Unreadable(f'the label {label} is none of the {len(self._numbered)} classes')
        else:
            name = self._numbered[label]
        if name not in self._numbers:
            raise Unreadable(f'the label {name!r} is not in the vocabulary')
        return self._numbers[name]


class EncodedSource:
    """Examples with the bytes of an image file, a label or a list of them, and an id."""

    def __init__(
        self,
        examples: Any,
        name: str,
        *,
        image: str,
        label: str,
        id_name: str | None,
        several: bool,
        labels: Labels,
    ) -> None:
        """Reads examples.

        Args:
            examples: random access to dicts of features.
            name: of the split, for ids where the examples have none.
            image: name of the feature with the file's bytes.
            label: name of the feature with the label or labels.
            id_name: name of the feature with the id, or None.
            several: whether an example is to have any number of labels; one is a list of one.
            labels: the classes.
        """
        self._examples, self._name, self._labels = examples, name, labels
        self._image, self._label, self._id, self._several = image, label, id_name, several

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        example = self._examples[index]
        image, found = example[self._image], example[self._label]
        if not isinstance(image, bytes):
            raise Unreadable(f'its {self._image!r} is not the bytes of an image file')
        name = example[self._id] if self._id else None
        place = f'{self._name}[{index}]'
        made = {'id': place if name is None else text(name), 'image': image}
        if not self._several:
            return made | {'label': self._labels(found)}
        found = found if isinstance(found, list | np.ndarray) else [found]
        return made | {'labels': [self._labels(label) for label in found]}


class TfdsSplits(Mapping[str, Source]):
    """The splits of a set that TFDS prepared; of one without random access, their sizes.

    Attributes:
        names: of the classes.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        image: str,
        label: str,
        several: bool,
        vocabulary: Sequence[str] = (),
    ) -> None:
        """Opens a folder that holds dataset_info.json and features.json.

        Args:
            folder: of one version.
            name: of the set.
            image: name of the feature with the encoded image.
            label: name of the feature with the label or labels.
            several: whether an example is to have any number of labels.
            vocabulary: names of the classes, in their order, instead of TFDS's; by its names, where
                it has some, TFDS's numbers are looked up.

        Raises:
            ValueError: if it has no such features, or no names of the classes.
        """
        self._builder, self._name, self._image = tfds.builder_from_directory(folder), name, image
        self._folder, info = folder, self._builder.info
        _check_features(folder, info.features, image, label, several)
        own, named = _own_names(info.features[label]), (folder / f'{label}.labels.txt').is_file()
        self.names = tuple(vocabulary) or own
        if not self.names:
            raise ValueError(f'{folder} does not name its classes; give config.dataset.vocabulary')
        self._open = partial(
            EncodedSource,
            image=image,
            label=label,
            id_name=next((key for key in _NAMES if key in info.features), None),
            several=several,
            labels=Labels(self.names, own if named else ()),
        )

    def __getitem__(self, split: str) -> Source:
        if split not in self:
            raise KeyError(split)
        info, raw = self._builder.info, tfds.decode.DeserializeMethod.RAW_BYTES
        if info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
            return UnreadSource(
                info.splits[split].num_examples,
                f'{self._folder} holds {info.file_format.value} files, which have no random '
                'access; prepare it again with --file_format=array_record',
            )
        records = self._builder.as_data_source(split, deserialize_method=raw)
        examples = TfdsExamples(Records(records), info.features, self._image)
        return self._open(examples, f'{self._name}/{split}')

    def __contains__(self, split: object) -> bool:
        return split in list(self)

    def __iter__(self) -> Iterator[str]:
        return iter(self._builder.info.splits)

    def __len__(self) -> int:
        return len(self._builder.info.splits)


def _check_features(
    folder: Path, features: Mapping[str, Any], image: str, label: str, several: bool
) -> None:
    """Raises ValueError if these are not the bytes of an image file and labels."""
    for key in (image, label):
        if key not in features:
            raise ValueError(f'{folder} has no feature {key!r}; it has {", ".join(features)}')
    stored = features[image].get_serialized_info()
    if getattr(stored, 'shape', None) != () or stored.np_dtype != np.object_:
        raise ValueError(f'{folder} has no image files in {image!r}; name another feature')
    shape, kind = features[label].shape, features[label].np_dtype
    if not isinstance(shape, tuple) or len(shape) > 1 or np.dtype(kind).kind not in 'iuO':
        raise ValueError(f'{folder} has no labels in {label!r}; name another feature')
    if shape and not several:
        raise ValueError(f'{folder} has lists of labels in {label!r}, where each is to have one')


def _own_names(feature: Any) -> tuple[str, ...]:
    """Names, or else numbers, of the classes of a feature; none where it does not count them."""
    kind = getattr(feature, 'feature', feature)
    counted = isinstance(kind, tfds.features.ClassLabel) and kind.num_classes
    return tuple(kind.names) if counted else ()


class Records:
    """Records of ArrayRecord files, as bytes."""

    def __init__(self, records: Any) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> bytes:
        try:
            return self._records[index]
        except RuntimeError as error:  # the reader's own, of any kind
            kind = Unreadable if 'Corrupted' in str(error) else OSError
            raise kind(f'its record cannot be read: {error}') from error


class TfdsExamples:
    """Records as TFDS's features have them, but for the image, which stays a file."""

    def __init__(self, records: Records, features: Any, image: str) -> None:
        self._records, self._features = records, features
        self._decoders = {image: tfds.decode.SkipDecoding()}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        record = self._records[index]
        try:
            return self._features.deserialize_example_np(record, decoders=self._decoders)
        except _FOREIGN as error:
            kind = type(error).__name__
            raise Unreadable(f'its record is no example of this set ({kind})') from error


class RecordExamples:
    """The records of ArrayRecord files, each a serialised tf.train.Example."""

    def __init__(
        self, paths: Sequence[Path], single: Sequence[str], several: Sequence[str]
    ) -> None:
        """Opens files.

        Args:
            paths: in the order of the examples.
            single: features that have one value.
            several: features that have any number of values.

        Raises:
            OSError: if they are no ArrayRecord files.
        """
        try:
            records = grain.sources.ArrayRecordDataSource([str(path) for path in paths])
        except RuntimeError as error:
            places = f'{paths[0]} or another file of its split'
            raise OSError(f'{places} cannot be opened: {error}') from error
        self._records = Records(records)
        self._single, self._needed = tuple(single), (*single, *several)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        found = {
            key: list(getattr(value, str(value.WhichOneof('kind') or 'int64_list')).value)
            for key, value in parse_example(self._records[index]).items()
        }
        for key in self._needed:
            if key not in found:
                raise Unreadable(f'it has no feature {key!r}; it has {", ".join(sorted(found))}')
        for key in self._single:
            if len(found[key]) != 1:
                raise Unreadable(f'it has {len(found[key])} values of {key!r}, not one')
            found[key] = found[key][0]
        return found


def parse_example(record: bytes) -> Any:
    """The features of a serialised tf.train.Example, by name.

    Raises:
        Unreadable: if it is none.
    """
    try:
        return tf_example_pb2.Example.FromString(record).features.feature
    except DecodeError as error:
        raise Unreadable('its record is no tf.train.Example') from error


def data_root(data_dir: str) -> Path:
    """TFDS's folder of prepared sets, where no other is given."""
    return as_path(data_dir or os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets'))


def find_version(folder: Path) -> Path | None:
    """The folder of a prepared set's newest version: this one, or one in it; None if none is."""
    if (folder / 'dataset_info.json').is_file():
        return folder
    found = [path.parent for path in folder.glob('*/dataset_info.json')]
    return max(found, key=lambda path: _version(path.name), default=None)


def text(value: bytes | str | int) -> str:
    """Text of what TFDS gives as bytes, which need not be UTF-8, or as a number."""
    return value.decode(errors='backslashreplace') if isinstance(value, bytes) else str(value)


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split('.') if part.isdecimal())
