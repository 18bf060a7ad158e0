"""The public image sets, as TFDS prepares them: ImageNet and the few-shot sets of the paper.

Sizes and classes are known without the data, which is all that a plan of a run needs. They are
those of the TFDS catalogue; where the set is there, its own count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from datasets.dataset import Dataset, Parts, UnreadSource
from datasets.prepared import TfdsSplits, data_root, find_version


@dataclass(frozen=True)
class ImageSet:
    """What is known of a set before it is there.

    Attributes:
        classes: how many.
        sizes: examples, by split.
        label: the feature with a label, or a list of them.
        max_labels: of one example; None where each has exactly one.
        by_hand: files that TFDS cannot download.
    """

    classes: int
    sizes: Mapping[str, int]
    label: str = 'label'
    max_labels: int | None = None
    by_hand: str = ''


IMAGE_SETS = {
    'imagenet2012': ImageSet(
        1000,
        {'train': 1_281_167, 'validation': 50_000},
        by_hand='ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar',
    ),
    # Beyer et al., arXiv:2006.07159: the validation images, relabelled.
    'imagenet2012_real': ImageSet(
        1000,
        {'validation': 50_000},
        label='real_label',
        max_labels=16,
        by_hand='ILSVRC2012_img_val.tar',
    ),
    # Not in TFDS; classes and images of the release of 2011, as the public recipes count them.
    'imagenet21k': ImageSet(21_843, {'full': 14_197_122}),
    'caltech101': ImageSet(102, {'train': 3059, 'test': 6084}),
    'caltech_birds2011': ImageSet(200, {'train': 5994, 'test': 5794}),
    'cars196': ImageSet(196, {'train': 8144, 'test': 8041}),
    'cifar100': ImageSet(100, {'train': 50_000, 'test': 10_000}),
    'colorectal_histology': ImageSet(8, {'train': 5000}),
    'dtd': ImageSet(47, {'train': 1880, 'validation': 1880, 'test': 1880}),
    'oxford_iiit_pet': ImageSet(37, {'train': 3680, 'test': 3669}),
    'uc_merced': ImageSet(21, {'train': 2100}),
}


def load_images(name: str, data_dir: str) -> Dataset:
    """Opens a set, or describes one that is not there.

    Args:
        name: of `IMAGE_SETS`.
        data_dir: TFDS's folder; '' is $TFDS_DATA_DIR or ~/tensorflow_datasets.
    """
    known, root = IMAGE_SETS[name], data_root(data_dir)
    folder = find_version(root / name)
    if folder is None:
        return _described(name, known, root)
    several = known.max_labels is not None
    splits = TfdsSplits(folder, name, image='image', label=known.label, several=several)
    return Dataset(name, splits.names, 3, Parts(splits), known.max_labels)


def _described(name: str, known: ImageSet, root: Path) -> Dataset:
    reason = _missing(name, known, root)
    splits = {split: UnreadSource(size, reason) for split, size in known.sizes.items()}
    return Dataset(name, _names(name, known), 3, Parts(splits), known.max_labels)


def _missing(name: str, known: ImageSet, root: Path) -> str:
    command = f'tfds build {name} --data_dir={root} --file_format=array_record'
    if name == 'imagenet21k':
        command = f'python -m datasets.from_folders {name} --images=DIR --out={root}'
    by_hand = f', with {known.by_hand} in {root}/downloads/manual' if known.by_hand else ''
    return (
        f'{name} is not in {root}; prepare it: {command}{by_hand} (or, to try things out: '
        f'python -m datasets.make_fake {name} --out=runs/fake and '
        '--config.dataset.data_dir=runs/fake)'
    )


def _names(name: str, known: ImageSet) -> tuple[str, ...]:
    if not name.startswith('imagenet2012'):
        return tuple(map(str, range(known.classes)))
    # As in TFDS, whose order of the classes is that of their names in WordNet.
    folder = resources.files('tensorflow_datasets') / 'datasets' / 'imagenet2012'
    return tuple((folder / 'labels.txt').read_text(encoding='utf-8').split())
