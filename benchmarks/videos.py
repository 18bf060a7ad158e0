"""Videos for `benchmarks.input`: prepared sets, and tf.data's way from their frames to clips.

The tf.data side is what a user would write with what TensorFlow offers: whole videos in
tf.train.SequenceExamples, of which the frames of a clip are decoded in `tf.map_fn`.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import simplejpeg

from benchmarks.films import FRAMES
from benchmarks.interleaved import Run, Task, over_batches
from benchmarks.tf_data import as_batches
from datasets.clips import Views
from datasets.dataset import VideoSource
from datasets.geometry import JitterCrop
from datasets.pipeline import Batch, Reading
from trainers.augment import Flip
from trainers.color import Color
from trainers.experiment import Experiment

EXAMPLES, BATCH = 16, 8  # by default
VIEWS = Views(clips=4, crops=3)
# Ways to do it with tf.data, and how much of it.
OTHERS = {'tf.data': True, 'tf.data, decode and crop': False}


def read_tf(path: Path, examples: int) -> Any:
    """A tf.data dataset of videos: their frames, ids and labels, for ever."""
    import tensorflow as tf

    context = {
        'id': tf.io.FixedLenFeature([], tf.string),
        'label': tf.io.FixedLenFeature([], tf.int64),
    }
    frames = {'frames': tf.io.FixedLenSequenceFeature([], tf.string)}

    def parse(record: Any) -> Batch:
        about, lists = tf.io.parse_single_sequence_example(record, context, frames)
        return {**about, **lists}

    videos = tf.data.TFRecordDataset(str(path)).shuffle(examples, seed=0).repeat()
    return videos.map(parse, num_parallel_calls=tf.data.AUTOTUNE)


def tf_clips(
    path: Path, experiment: Experiment, examples: int, cores: int, *, whole: bool
) -> Iterator[Batch]:
    """The same from tf.data; if not `whole`, uint8 crops of the frames as they are."""
    import tensorflow as tf

    clip, size = experiment.clip, experiment.data.resolution

    def read(video: Batch) -> Batch:
        length = tf.shape(video['frames'])[0]
        room = tf.maximum(1, length - (clip.frames - 1) * clip.stride)
        start = tf.random.uniform([], maxval=room, dtype=tf.int32)
        places = (start + tf.range(clip.frames) * clip.stride) % length
        files = tf.ensure_shape(tf.gather(video['frames'], places), [clip.frames])
        pixels = augmented(files, experiment) if whole else cropped(files, size)
        return {'id': video['id'], 'label': video['label'], 'video': pixels}

    clips = read_tf(path, examples).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return as_batches(clips, experiment.batch_size, cores)


def cropped(files: Any, size: int) -> Any:
    """A random square of all frames, of which only that is decoded, [t, size, size, 3] uint8."""
    import tensorflow as tf

    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(files[0]))
    top = tf.random.uniform([], maxval=height - size + 1, dtype=tf.int32)
    left = tf.random.uniform([], maxval=width - size + 1, dtype=tf.int32)
    window = tf.stack([top, left, size, size])
    pixels = tf.map_fn(
        lambda file: tf.image.decode_and_crop_jpeg(file, window, channels=3),
        files,
        fn_output_signature=tf.TensorSpec([None, None, 3], tf.uint8),
    )
    return tf.ensure_shape(pixels, [len(files), size, size, 3])


def decoded(files: Any) -> Any:
    """Whole frames, [t, h, w, 3] uint8."""
    import tensorflow as tf

    return tf.map_fn(
        lambda file: tf.image.decode_jpeg(file, channels=3),
        files,
        fn_output_signature=tf.TensorSpec([None, None, 3], tf.uint8),
    )


def augmented(files: Any, experiment: Experiment) -> Any:
    """What ours and the device do to a clip, in float32: [t, size, size, 3]."""
    import tensorflow as tf

    geometry, data = experiment.train_geometry, experiment.data
    assert isinstance(geometry, JitterCrop)
    pixels = decoded(files)
    sides = tf.cast(tf.shape(pixels)[1:3], tf.float32)
    factors = tf.random.uniform([2], geometry.scale_min_factor, geometry.scale_max_factor)
    sides = sides * factors * geometry.min_resize / tf.reduce_min(sides)
    pixels = tf.image.resize(pixels, tf.cast(tf.round(sides), tf.int32))
    pixels = tf.image.random_crop(pixels, [len(files), data.resolution, data.resolution, 3])
    pixels = pixels / 255.0
    for augment in experiment.preprocess.augmentations:
        if isinstance(augment, Flip):
            pixels = at_random(augment.probability, lambda x: tf.reverse(x, [2]), pixels)
        if isinstance(augment, Color):
            change = partial(change_colors, color=augment)
            pixels = at_random(augment.prob_color_augment, change, pixels)
            pixels = at_random(augment.prob_color_drop, drop_color, pixels)
    return (pixels - data.mean) / data.std


def at_random(probability: float, function: Callable[[Any], Any], pixels: Any) -> Any:
    """The function's result, or with the rest of the probability the pixels as they are."""
    import tensorflow as tf

    return tf.cond(tf.random.uniform([]) < probability, lambda: function(pixels), lambda: pixels)


def change_colors(pixels: Any, color: Color) -> Any:
    """Brightness, saturation, contrast and hue of a clip."""
    import tensorflow as tf

    pixels = tf.image.random_brightness(pixels, color.brightness)
    pixels = tf.image.random_saturation(pixels, *color.saturation)
    pixels = tf.image.random_contrast(pixels, *color.contrast)
    return tf.clip_by_value(tf.image.random_hue(pixels, color.hue), 0.0, 1.0)


def drop_color(pixels: Any) -> Any:
    """A grey clip."""
    import tensorflow as tf

    return tf.repeat(tf.image.rgb_to_grayscale(pixels), 3, axis=-1)


def tf_views(path: Path, experiment: Experiment, examples: int, cores: int) -> Iterator[Batch]:
    """All views of a video a batch from tf.data, [1, views, t, size, size, 3] float32."""
    import tensorflow as tf

    clip, data, size = experiment.clip, experiment.data, experiment.data.resolution
    short = round(size / experiment.eval_geometry.share)

    def read(video: Batch) -> Batch:
        length = tf.shape(video['frames'])[0]
        last = tf.cast(tf.maximum(0, length - clip.span), tf.float32)
        starts = tf.cast(tf.linspace(0.0, last, VIEWS.clips), tf.int32)
        places = (starts[:, None] + tf.range(0, clip.span, clip.stride)) % length
        pixels = decoded(tf.gather(video['frames'], tf.reshape(places, [-1])))
        sides = tf.shape(pixels)[1:3]
        new = tf.cast(tf.round(sides * short / tf.reduce_min(sides)), tf.int32)
        pixels = tf.cond(
            tf.reduce_min(sides) == short,
            lambda: pixels,
            lambda: tf.cast(tf.image.resize(pixels, new), tf.uint8),
        )
        corners = tf.linspace(tf.zeros(2), tf.cast(new - size, tf.float32), VIEWS.crops)
        corners = tf.unstack(tf.cast(tf.math.ceil(corners), tf.int32))
        middle = corners[len(corners) // 2]
        # Along the long side only.
        corners = [tf.where(new > tf.reduce_min(new), corner, middle) for corner in corners]
        crops = [
            tf.image.crop_to_bounding_box(pixels, corner[0], corner[1], size, size)
            for corner in corners
        ]
        views = tf.reshape(tf.stack(crops), [-1, clip.frames, size, size, 3])
        views = (tf.cast(views, tf.float32) / 255.0 - data.mean) / data.std
        return {'id': video['id'], 'label': video['label'], 'video': views}

    videos = read_tf(path, examples).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return as_batches(videos, 1, cores)


def our_views(experiment: Experiment) -> Iterator[Batch]:
    """All views of a video a batch, again and again."""
    data = experiment.data
    while True:
        yield from experiment.eval_batches(data.dataset, data.split, VIEWS.clips, views=VIEWS)


def stages(experiment: Experiment) -> dict[str, Run]:
    """Parts of our way to a clip, for a batch of them, without threads."""
    data, clip = experiment.data, experiment.clip
    source: VideoSource = data.dataset.split(data.split)
    places = clip.places(0, FRAMES).tolist()
    clips = [source.read(number, places).frames for number in range(len(source))]

    each = partial(over_batches, examples=len(source), batch_size=experiment.batch_size)

    def decode(number: int) -> None:
        for file in clips[number]:
            simplejpeg.decode_jpeg_header(file)
            simplejpeg.decode_jpeg(file)

    def cut(number: int) -> None:
        for file in clips[number]:
            experiment.train_geometry(file, (0, number))

    batches = replace(experiment, reading=Reading(threads=0)).train_batches()
    return {
        'read': each(lambda number: source.read(number, places)),
        'header, decode': each(decode),
        'header, decode, resize': each(cut),
        'read to batch': lambda: next(batches),
    }


def tasks(experiment: Experiment, path: Path, args: Any) -> Iterator[Task]:
    """Clips to train on, and the views of videos that are evaluated."""
    shape = 'x'.join(map(str, experiment.input_shape[:-1]))
    given = path, experiment, args.examples, args.cores
    with closing(experiment.train_batches()) as ours:
        inputs = {name: tf_clips(*given, whole=whole) for name, whole in OTHERS.items()}
        yield Task(
            f'clips of {shape}',
            'clips',
            {'ours': partial(next, ours), **{k: partial(next, v) for k, v in inputs.items()}},
            stages(experiment),
            calls=args.examples // args.batch,
            count=args.examples,
        )
        del inputs
    with closing(our_views(experiment)) as ours:
        others = tf_views(*given)
        yield Task(
            f'{VIEWS.clips}x{VIEWS.crops} views of {shape}',
            'views',
            {'ours': partial(next, ours), 'tf.data': partial(next, others)},
            {},
            calls=args.examples,
            count=args.examples * VIEWS.clips * VIEWS.crops,
        )
