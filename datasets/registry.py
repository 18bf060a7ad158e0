"""All datasets by name."""

from collections.abc import Callable, Mapping
from functools import partial

from datasets.dataset import Dataset
from datasets.digits import load_digits
from datasets.images import IMAGE_SETS, load_images
from datasets.jft import load_jft
from datasets.moving_digits import load_moving_digits
from datasets.video_sets import VIDEO_SETS
from datasets.videos import load_videos

# Name -> function from the data directory ('' where the data come with a package, or lie in TFDS's
# folder) and settings of its own.
DATASETS: Mapping[str, Callable[..., Dataset]] = {
    'digits': load_digits,
    'jft': load_jft,
    'moving_digits': load_moving_digits,
    **{name: partial(load_images, name) for name in IMAGE_SETS},
    **{name: partial(load_videos, name) for name in VIDEO_SETS},
}
