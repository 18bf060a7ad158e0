"""`imagenet2012`: 1,281,167 images to train on and 50,000 to validate on, in 1,000 classes.

Sizes and labels are known without the data, which is all that a plan of a run needs.
"""

from importlib import resources
from typing import Any

from datasets.dataset import Dataset

SIZES = {'train': 1_281_167, 'validation': 50_000}


class UnreadSource:
    """A split of known size whose examples cannot be read."""

    def __init__(self, size: int, reason: str) -> None:
        self._size, self._reason = size, reason

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises OSError, always."""
        raise OSError(self._reason)


def load_imagenet(data_dir: str) -> Dataset:
    """Describes ImageNet; its images are not read yet, wherever they lie."""
    del data_dir
    # As in TFDS, whose order of the classes is that of their names in WordNet.
    folder = resources.files('tensorflow_datasets') / 'datasets' / 'imagenet2012'
    names = tuple((folder / 'labels.txt').read_text().split())
    reason = 'imagenet2012 can be planned with, but not read yet; use --mode=plan or :runlocal'
    return Dataset(
        name='imagenet2012',
        label_names=names,
        channels=3,
        splits={split: UnreadSource(size, reason) for split, size in SIZES.items()},
    )
