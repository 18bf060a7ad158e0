"""Data: from what is on disk, or in memory, to batches of numpy arrays."""

from typing import Any

from datasets.dataset import Dataset


def load_dataset(name: str, data_dir: str = '', **settings: Any) -> Dataset:
    """Loads a dataset of `datasets.registry` by its name; MODULE:OBJECT is for configs only.

    Raises:
        ValueError: if the name is not registered, or the settings are not possible.
    """
    from datasets.registry import DATASETS  # here, as preparing videos needs none of it

    if name not in DATASETS:
        raise ValueError(f'dataset {name!r} is not known; use one of {", ".join(sorted(DATASETS))}')
    return DATASETS[name](data_dir, **settings)
