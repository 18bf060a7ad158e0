"""Prepared image sets with random access: TFDS's as ArrayRecord, and plain ArrayRecord files.

Nothing here loads TensorFlow.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grain
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from datasets.dataset import Source, Unreadable

# What TFDS's image sets call the name of an example's file.
_NAMES = ('file_name', 'id', 'filename', 'image/file_name', 'image/filename')

Example = dict[str, Any]


class Labels:
    """Classes by number, from their names or numbers.

    Attributes:
        names: of the classes.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def __call__(self, label: bytes | str | int) -> int:
        """The number of a class.

        Raises:
            Unreadable: if there is no such class.
        """
        if isinstance(label, bytes | str):
            name = text(label)
            if name not in self._numbers:
                raise Unreadable(f'the label {name!r} is not in the vocabulary')
            return self._numbers[name]
        if not 0 <= label < len(self.names):
            raise Unreadable(f'the label {label} is none of the {len(self.names)} classes')
        return int(label)


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
            several: whether an example has any number of labels.
            labels: the classes.
        """
        self._examples, self._name, self._labels = examples, name, labels
        self._image, self._label, self._id, self._several = image, label, id_name, several

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        example = self._examples[index]
        made = {
            'id': text(example[self._id]) if self._id else f'{self._name}[{index}]',
            'image': example[self._image],
        }
        if not self._several:
            return made | {'label': self._labels(example[self._label])}
        return made | {'labels': [self._labels(label) for label in example[self._label]]}


class TfdsSplits(Mapping[str, Source]):
    """The splits of a set that TFDS prepared.

    Attributes:
        names: of the classes, where TFDS knows them.
    """

    def __init__(
        self, folder: Path, name: str, *, image: str, label: str, vocabulary: Sequence[str] = ()
    ) -> None:
        """Opens a folder that holds dataset_info.json and features.json.

        Args:
            folder: of one version.
            name: of the set.
            image: name of the feature with the encoded image.
            label: name of the feature with the label or labels.
            vocabulary: names of the classes, instead of TFDS's.

        Raises:
            OSError: if it has no random access.
            ValueError: if it has no such features, or no names of the classes.
        """
        self._builder, self._name, self._image = tfds.builder_from_directory(folder), name, image
        info = self._builder.info
        if info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
            raise OSError(
                f'{folder} holds {info.file_format.value} files, which have no random access; '
                'prepare it again with --file_format=array_record'
            )
        for key in (image, label):
            if key not in info.features:
                known = ', '.join(info.features)
                raise ValueError(f'{folder} has no feature {key!r}; it has {known}')
        feature = info.features[label]
        several = isinstance(feature, tfds.features.Sequence)
        self.names = tuple(vocabulary or getattr(feature, 'feature', feature).names or ())
        if not self.names:
            raise ValueError(f'{folder} does not name its classes; give config.dataset.vocabulary')
        self._open = partial(
            EncodedSource,
            image=image,
            label=label,
            id_name=next((key for key in _NAMES if key in info.features), None),
            several=several,
            labels=Labels(self.names),
        )

    def __getitem__(self, split: str) -> Source:
        if split not in self:
            raise KeyError(split)
        decoders = {self._image: tfds.decode.SkipDecoding()}
        examples = self._builder.as_data_source(split, decoders=decoders)
        return self._open(examples, f'{self._name}/{split}')

    def __contains__(self, split: object) -> bool:
        return split in list(self)

    def __iter__(self) -> Iterator[str]:
        return iter(self._builder.info.splits)

    def __len__(self) -> int:
        return len(self._builder.info.splits)


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
        """
        self._records = grain.sources.ArrayRecordDataSource([str(path) for path in paths])
        self._single, self._needed = tuple(single), (*single, *several)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        features = tf_example_pb2.Example.FromString(self._records[index]).features.feature
        found = {
            key: list(getattr(value, str(value.WhichOneof('kind') or 'int64_list')).value)
            for key, value in features.items()
        }
        for key in self._needed:
            if key not in found:
                raise Unreadable(f'it has no feature {key!r}; it has {", ".join(sorted(found))}')
        for key in self._single:
            if len(found[key]) != 1:
                raise Unreadable(f'it has {len(found[key])} values of {key!r}, not one')
            found[key] = found[key][0]
        return found


def find_version(folder: Path) -> Path | None:
    """The folder of a prepared set's newest version: this one, or one in it; None if none is."""
    if (folder / 'dataset_info.json').is_file():
        return folder
    found = [path.parent for path in folder.glob('*/dataset_info.json')]
    return max(found, key=lambda path: _version(path.name), default=None)


def text(value: bytes | str) -> str:
    """Text of what TFDS gives as bytes, which need not be UTF-8."""
    return value.decode(errors='backslashreplace') if isinstance(value, bytes) else value


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split('.') if part.isdigit())
