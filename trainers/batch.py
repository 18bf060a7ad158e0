"""What a batch on the device holds."""

from collections.abc import Mapping

from jaxtyping import Array

Batch = Mapping[str, Array]


def pixels_of(batch: Batch) -> Array:
    """The images [b, h, w, c] or clips of a batch, uint8."""
    return batch['video'] if 'video' in batch else batch['image']


def labels_of(batch: Batch) -> Array:
    """The labels of a batch [b, most labels], padded with -1."""
    return batch['labels'] if 'labels' in batch else batch['label'][:, None]
