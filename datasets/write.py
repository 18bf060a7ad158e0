"""Writes image sets as TFDS does: ArrayRecord files with dataset_info.json and features.json."""

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# TensorFlow, which TFDS writes with, would log what it does without.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')


def write_set(
    root: Path,
    name: str,
    version: str,
    features: Any,
    splits: Mapping[str, Iterable[tuple[str, Mapping[str, Any]]]],
) -> Path:
    """Writes a set, whole or not at all.

    Args:
        root: folder of prepared sets.
        name: of the set.
        version: such as '1.0.0'.
        features: tfds.features.FeaturesDict.
        splits: examples by split, each with a key of its own; keys give the order on the disk.

    Returns:
        The folder, root/name/version.

    Raises:
        ValueError: if the folder is there already, or two examples of a split have the same key.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_builders import adhoc_builder
    from tensorflow_datasets.core.shuffle import DuplicatedKeysError

    folder = root / name / version
    if folder.exists():
        raise ValueError(f'{folder} is there already; take it away, or write to another folder')
    logging.getLogger('absl').setLevel(logging.CRITICAL)  # its errors would show whole examples
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        adhoc_builder.store_as_tfds_dataset(
            name,
            version,
            data_dir=root,
            features=features,
            split_datasets=dict(splits),
            file_format='array_record',
        )
    except AssertionError as error:
        if not isinstance(error.__context__, DuplicatedKeysError):
            raise
        raise ValueError(
            f'{name}: two examples of a split have the same key; give each its own'
        ) from error
    return folder
