"""What images and videos share of tf.data's way, for `benchmarks.input`."""

from collections.abc import Iterator
from typing import Any

from datasets.pipeline import Batch


def bytes_feature(values: list[bytes]) -> Any:
    """Of a tf.train.Example."""
    import tensorflow as tf

    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def ints_feature(values: list[int]) -> Any:
    """Likewise."""
    import tensorflow as tf

    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def as_batches(examples: Any, batch_size: int, cores: int) -> Iterator[Batch]:
    """The batches of a tf.data dataset on so many cores."""
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = False
    options.threading.private_threadpool_size = cores
    options.threading.max_intra_op_parallelism = 1
    batches = examples.batch(batch_size, drop_remainder=True).prefetch(2).with_options(options)
    return batches.as_numpy_iterator()
