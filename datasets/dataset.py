"""What a dataset is to the rest of the project."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Source(Protocol):
    """Random access to examples.

    An example is a dict: `image` [h, w, channels] uint8, `label` int32, `id` str.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Dataset:
    """Sources by split, and what their labels mean.

    Attributes:
        name: as in the config and in metric names.
        label_names: name of each class, by label.
        channels: of an image.
        splits: name -> source.
    """

    name: str
    label_names: tuple[str, ...]
    channels: int
    splits: Mapping[str, Source]

    def split(self, name: str) -> Source:
        """One split.

        Raises:
            ValueError: if there is none of that name.
        """
        if name not in self.splits:
            known = ', '.join(self.splits)
            raise ValueError(f'dataset {self.name} has no split {name!r}; use one of {known}')
        return self.splits[name]
