"""Small image sets of real digits in the format of the large ones, as they are once prepared.

`python -m datasets.make_fake` writes them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.dataset import Source
from datasets.digits import load_digits
from datasets.images import IMAGE_SETS, ImageSet
from datasets.jft import CLASSES
from datasets.write import write_set

# What several labels say of a digit, as in a weakly labelled set; `jft` has them behind the digits.
KINDS = {
    'even': '02468',
    'odd': '13579',
    'prime': '2357',
    'square': '0149',
    'with a loop': '0689',
    'with a straight stroke': '14579',
    'less than five': '01234',
}
JFT = ImageSet(CLASSES, {'train': 0, 'test': 0}, label='labels')


def make_fake_images(name: str, out: Path, examples: int = 2000) -> Path:
    """Writes the fake of an image set; its folder.

    Args:
        name: of the set.
        out: folder of prepared sets.
        examples: to train on; other splits have a quarter of them.

    Raises:
        ValueError: if it is there already, or there are not as many digits.
    """
    if not 40 <= examples <= 4000:
        raise ValueError(f'--examples={examples} is not possible; use 40 to 4000')
    known = JFT if name == 'jft' else IMAGE_SETS[name]
    features, version = _features(name)
    digits = load_digits('')
    splits = {}
    for split in known.sizes:
        source = digits.split('train' if split in ('train', 'full') else 'test')
        count = examples if split in ('train', 'full') else examples // 4
        splits[split] = _examples(name, features, source, count)
    folder = write_set(out, name, version, features, splits)
    if name == 'jft':
        (folder / 'vocabulary.txt').write_text(
            '\n'.join(features['labels'].feature.names) + '\n', encoding='utf-8'
        )
    return folder


def _features(name: str) -> tuple[Any, str]:
    """The features of the real set, and its version."""
    import tensorflow_datasets as tfds

    if name == 'jft':
        names = [*'0123456789', *KINDS]
        names += [f'unused {number}' for number in range(CLASSES - len(names))]
        labels = tfds.features.Sequence(tfds.features.ClassLabel(names=names))
        return tfds.features.FeaturesDict(
            {'image': tfds.features.Image(), 'labels': labels, 'id': tfds.features.Text()}
        ), '1.0.0'
    if name == 'imagenet21k':
        from datasets.from_folders import image_features

        return image_features([f'n{number:08}' for number in range(IMAGE_SETS[name].classes)]), (
            '1.0.0'
        )
    builder = tfds.builder(name, data_dir='/nowhere')
    return builder.info.features, str(builder.version)


def _examples(
    name: str, features: Any, source: Source, count: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Digits as examples of a set, classes in turn."""
    per_class = len(source) // 10
    classes = min(10, features['label'].num_classes if 'label' in features else 10)
    for number in range(count):
        digit = number % classes
        example = source[digit * per_class + number // classes % per_class]
        key = f'{example["id"].replace("/", "_")}_{number:05}'
        yield key, _example(name, features, example['image'], digit, key)


def _example(name: str, features: Any, pixels: np.ndarray, digit: int, key: str) -> dict[str, Any]:
    import tensorflow_datasets as tfds

    shape = features['image'].shape[:2]
    image, mask = paint(pixels, shape if None not in shape else None, seed=sum(key.encode()))
    made: dict[str, Any] = {'image': image}
    for feature, kind in features.items():
        if feature == 'image':
            continue
        if isinstance(kind, tfds.features.Image):
            made[feature] = mask[..., None]
        elif isinstance(kind, tfds.features.BBoxFeature):
            made[feature] = tfds.features.BBox(ymin=0.0, xmin=0.0, ymax=1.0, xmax=1.0)
        elif isinstance(kind, tfds.features.Sequence):
            made[feature] = several_labels(name, digit, key)
        elif isinstance(kind, tfds.features.ClassLabel):
            made[feature] = digit % kind.num_classes
        else:
            made[feature] = f'{key}.JPEG'
    return made


def several_labels(name: str, digit: int, key: str) -> list[int]:
    """Labels of a digit in a set where an example has any number of them.

    In `imagenet2012_real` every sixteenth has none and every eighth one more, as there.
    """
    if name == 'jft':
        return [digit, *(10 + i for i, of in enumerate(KINDS.values()) if str(digit) in of)]
    number = int(key[-5:])
    return [] if number % 16 == 15 else [digit, *([(digit + 1) % 10] if number % 8 == 7 else [])]


def paint(
    pixels: np.ndarray, size: tuple[int, int] | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """A digit [28, 28, 1] as a photograph would come: in colour and of any size.

    Returns:
        The image [h, w, 3] uint8, and where the digit is, [h, w] uint8 of 0 and 1.
    """
    rng = np.random.default_rng(seed)
    h, w = size or rng.integers(40, 97, 2).tolist()
    side = min(h, w)
    ink = np.zeros((h, w, 1), np.float32)
    top, left = (h - side) // 2, (w - side) // 2
    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR)
    ink[top : top + side, left : left + side, 0] = small / np.float32(255)
    dark, bright = rng.integers(0, 80, 3), rng.integers(160, 256, 3)
    image = (dark + (bright - dark) * ink).astype(np.uint8)
    return image, (ink[..., 0] > 0.5).astype(np.uint8)
