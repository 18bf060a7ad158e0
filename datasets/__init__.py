"""Data: from what is on disk, or in memory, to batches of numpy arrays."""

from collections.abc import Callable

from datasets.dataset import Dataset
from datasets.digits import load_digits
from datasets.imagenet import load_imagenet

# Name -> function from the data directory ('' where the data come with a package).
DATASETS: dict[str, Callable[[str], Dataset]] = {
    'digits': load_digits,
    'imagenet2012': load_imagenet,
}


def load_dataset(name: str, data_dir: str = '') -> Dataset:
    """Loads a dataset by its name.

    Raises:
        ValueError: if the name is not registered.
    """
    if name not in DATASETS:
        raise ValueError(f'dataset {name!r} is not known; use one of {", ".join(sorted(DATASETS))}')
    return DATASETS[name](data_dir)
