"""Videos to measure with: the frames of a prepared set, and the same ones for tf.data."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from benchmarks.tf_data import bytes_feature, ints_feature
from datasets.prepare.annotations import Annotated, Annotations
from datasets.prepare.decode import Decoded, encode_frame
from datasets.prepare.merge import merge
from datasets.prepare.shards import Settings, plan, write_shard

HEIGHT, WIDTH, FRAMES, FPS = 256, 340, 250, 25  # of the videos: 10 s as Kinetics is prepared
QUALITY = 85


def films(count: int, interval: int | None = None) -> Iterator[list[bytes]]:
    """JPEG files of the frames of different videos, the same ones each time.

    A window moves over a photograph and grows or shrinks; no two show it in the same colours.

    Args:
        count: how many videos.
        interval: of `encode_frame`.
    """
    from sklearn.datasets import load_sample_image

    photographs = [load_sample_image(name) for name in ('china.jpg', 'flower.jpg')]
    rng = np.random.default_rng(0)
    for number in range(count):
        image = photographs[number % 2][:, :: rng.choice([-1, 1]), rng.permutation(3)]
        highest = min(len(image), image.shape[1] * HEIGHT // WIDTH)
        heights = np.linspace(*rng.uniform(200, highest, 2), FRAMES)
        ways = [np.linspace(*rng.random(2), FRAMES) for _ in range(2)]
        frames = (film_frame(image, *place) for place in zip(heights, *ways, strict=True))
        yield [encode_frame(frame, QUALITY, interval) for frame in frames]


def film_frame(image: np.ndarray, height: float, down: float, right: float) -> np.ndarray:
    """A window of a photograph, its place given in shares of the way there is."""
    scale = height / HEIGHT
    top = down * (image.shape[0] - 1 - height)
    left = right * (image.shape[1] - 1 - WIDTH * scale)
    window = np.float32([[scale, 0, left], [0, scale, top]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, window, (WIDTH, HEIGHT), flags=how)


def write_files(folder: Path, count: int) -> Path:
    """Writes the videos as a `kinetics400` of this folder, and as the TFRecord file returned.

    In the latter their JPEG files have no restart markers, which tf.data makes no use of.
    """
    import tensorflow as tf

    made = [(f'{number:05}', number % 400, files) for number, files in enumerate(films(count))]
    write_prepared(folder / f'kinetics400_{FPS}fps' / '1.0.0', made)
    path = folder / 'videos.tfrecord'
    with tf.io.TFRecordWriter(str(path)) as writer:
        for (name, label, _), unmarked in zip(made, films(count, interval=0), strict=True):
            about = {'id': bytes_feature([name.encode()]), 'label': ints_feature([label])}
            files = tf.train.FeatureList(feature=[bytes_feature([file]) for file in unmarked])
            example = tf.train.SequenceExample(
                context=tf.train.Features(feature=about),
                feature_lists=tf.train.FeatureLists(feature_list={'frames': files}),
            )
            writer.write(example.SerializeToString())
    return path


def write_prepared(
    folder: Path,
    made: Sequence[tuple[str, int, list[bytes]]],
    frames_per_record: int = Settings.frames_per_record,
) -> None:
    """Writes videos, by name, label and JPEG files, as `datasets.prepare` does."""
    videos = tuple(Annotated(name, 'train', f'{label:03}') for name, label, _ in made)
    labels = tuple(f'{label:03}' for label in range(400))
    annotations = Annotations(
        'kinetics400', True, labels, {'train': videos}, {'train': {}}, {'train': ()}, ()
    )
    settings = Settings('kinetics400', FPS, HEIGHT, QUALITY, len(made), [], frames_per_record)
    shards = plan(annotations.videos, settings)
    shard = replace(shards[0], paths=tuple(Path(video.id) for video in videos))
    times = tuple(place / FPS for place in range(FRAMES))
    write_shard(
        folder,
        shard,
        settings,
        (Decoded(tuple(files), times, FRAMES / FPS, HEIGHT, WIDTH) for _, _, files in made),
    )
    merge(folder, shards, settings, annotations)
