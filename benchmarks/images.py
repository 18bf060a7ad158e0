"""Images for `benchmarks.input`: JPEG files, and tf.data's way from them to batches."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from benchmarks.interleaved import Run, Task, over_batches
from benchmarks.tf_data import as_batches, bytes_feature, ints_feature
from datasets.pipeline import Batch, Reading
from datasets.write import write_set
from trainers.experiment import Experiment

EXAMPLES, BATCH = 256, 64  # by default
HEIGHT, WIDTH = 375, 500  # pixels; ImageNet has no size more often
# Ways to do it with tf.data, and what they ask of `tf_batches`.
OTHERS: dict[str, dict[str, bool]] = {
    'tf.data': {'whole': True},
    'tf.data, uint8': {},
    'tf.data, uint8, averaged': {'antialias': True},
}


def photographs(count: int) -> Iterator[bytes]:
    """Different parts of two photographs as JPEG files, the same ones each time."""
    from sklearn.datasets import load_sample_image

    images = [load_sample_image(name) for name in ('china.jpg', 'flower.jpg')]
    rng = np.random.default_rng(0)
    for number in range(count):
        image = images[number % 2]
        height = int(rng.integers(HEIGHT, len(image) + 1))
        width = height * WIDTH // HEIGHT
        top, left = (
            int(rng.integers(most - n + 1))
            for n, most in zip((height, width), image.shape, strict=False)
        )
        part = image[top : top + height, left : left + width]
        part = cv2.resize(part, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        yield simplejpeg.encode_jpeg(part, quality=90, colorsubsampling='420')


def write_files(folder: Path, count: int) -> Path:
    """Writes the images as an `imagenet2012` of this folder, and as the TFRecord file returned."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    files = {f'{number:05}.JPEG': data for number, data in enumerate(photographs(count))}
    items = [
        (name, {'image': BytesIO(data), 'label': number % 1000, 'file_name': name})
        for number, (name, data) in enumerate(files.items())
    ]
    features = tfds.builder('imagenet2012', data_dir='/nowhere').info.features
    write_set(folder, 'imagenet2012', '5.1.0', features, {'train': items})
    path = folder / 'images.tfrecord'
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, (name, data) in enumerate(files.items()):
            made = {
                'image': bytes_feature([data]),
                'label': ints_feature([number % 1000]),
                'id': bytes_feature([name.encode()]),
            }
            example = tf.train.Example(features=tf.train.Features(feature=made))
            writer.write(example.SerializeToString())
    return path


def tf_batches(
    path: Path,
    experiment: Experiment,
    examples: int,
    cores: int,
    *,
    whole: bool = False,
    antialias: bool = False,
) -> Iterator[Batch]:
    """The same from tf.data; `whole` with flips and scaling, else uint8."""
    import tensorflow as tf

    data, size = experiment.data, experiment.data.resolution
    described = {
        'image': tf.io.FixedLenFeature([], tf.string),
        'label': tf.io.FixedLenFeature([], tf.int64),
        'id': tf.io.FixedLenFeature([], tf.string),
    }

    def read(record: Any) -> Batch:
        example = tf.io.parse_single_example(record, described)
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(example['image']),
            tf.zeros([0, 0, 4]),
            area_range=(experiment.train_geometry.min_area, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], extent[:2]], axis=0)
        image = tf.image.decode_and_crop_jpeg(
            example['image'], window, channels=3, dct_method='INTEGER_ACCURATE'
        )
        image = tf.image.resize(image, (size, size), antialias=antialias)
        if whole:
            image = tf.image.random_flip_left_right(image)
            image = (image / 255.0 - data.mean) / data.std
        else:
            image = tf.cast(image, tf.uint8)
        return {**example, 'image': image}

    records = tf.data.TFRecordDataset(str(path)).shuffle(examples, seed=0).repeat()
    images = records.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return as_batches(images, experiment.batch_size, cores)


def stages(experiment: Experiment) -> dict[str, Run]:
    """Parts of our pipeline for one batch, without threads; each holds those before it."""
    source = experiment.data.dataset.split(experiment.data.split)
    files = [source[i]['image'] for i in range(len(source))]

    each = partial(over_batches, examples=len(files), batch_size=experiment.batch_size)

    def decode(place: int) -> None:
        simplejpeg.decode_jpeg_header(files[place])
        simplejpeg.decode_jpeg(files[place])

    batches = replace(experiment, reading=Reading(threads=0)).train_batches()
    return {
        'read': each(lambda place: source[place]),
        'header, decode': each(decode),
        'header, decode, resize': each(
            lambda place: experiment.train_geometry(files[place], (0, place))
        ),
        'read to batch': lambda: next(batches),
    }


def tasks(experiment: Experiment, path: Path, args: Any) -> Iterator[Task]:
    """Images to train on."""
    with closing(experiment.train_batches()) as ours:
        inputs = {
            name: tf_batches(path, experiment, args.examples, args.cores, **how)
            for name, how in OTHERS.items()
        }
        yield Task(
            f'{experiment.data.resolution} pixels',
            'images',
            {'ours': partial(next, ours), **{k: partial(next, v) for k, v in inputs.items()}},
            stages(experiment),
            calls=args.examples // args.batch,
            count=args.examples,
        )
