"""`jft`: a large weakly labelled set of one's own, in the form of JFT-300M.

JFT-300M is not public. This reads any set with encoded images and, for each, label names or
numbers: one that TFDS prepared as ArrayRecord, or plain ArrayRecord files of tf.train.Examples.
Without one, JFT's own size is known, which is all that a plan of a run needs.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from datasets.arguments import as_path
from datasets.dataset import Dataset, Parts, UnreadSource
from datasets.prepared import (
    EncodedSource,
    Labels,
    RecordExamples,
    TfdsSplits,
    data_root,
    find_version,
)

# Dosovitskiy et al., arXiv:2010.11929, Sec. 4.1; the classes as the TokenLearner paper's parameter
# counts imply them. (Of the test split the size is not known.)
SIZES, CLASSES = {'train': 303_000_000, 'test': 50_000}, 18_291

_FILE = re.compile(r'([^-.]+)[^.]*\.array_record(-\d+-of-\d+)?')
_SHARD = re.compile(r'-(\d+)-of-(\d+)')


def load_jft(
    data_dir: str,
    *,
    image: str = 'image',
    labels: str = 'labels',
    vocabulary: str = '',
    max_labels: int = 32,
) -> Dataset:
    """Opens a set.

    Args:
        data_dir: folder of the set: TFDS's (dataset_info.json, here, in a version below or in
            jft/VERSION), or one of files SPLIT*.array_record*.
        image: name of the feature with the bytes of an image file.
        labels: name of the feature with names (bytes) or numbers, any number of them or one.
        vocabulary: file with the name of each class, a line each; '' is vocabulary.txt in the
            folder, or the names that TFDS knows. Numbers are lines of it, from 0, or, where TFDS
            has names for them, those names.
        max_labels: of one example; batches have room for as many.

    Raises:
        ValueError: if the vocabulary cannot be used, or files are missing.
    """
    if max_labels < 1:
        raise ValueError(f'max_labels={max_labels} leaves no label; use 1 or more')
    root = data_root(data_dir)
    prepared = find_version(root) or find_version(root / 'jft')
    folder = prepared or root
    names = read_vocabulary(as_path(vocabulary) if vocabulary else folder / 'vocabulary.txt')
    if vocabulary and not names:
        raise ValueError(f'vocabulary {vocabulary} is not there; name a file of class names')
    if prepared:
        splits = TfdsSplits(
            prepared, 'jft', image=image, label=labels, several=True, vocabulary=names
        )
        return Dataset('jft', splits.names, 3, Parts(splits), max_labels)
    files = sorted(root.glob('[!.]*.array_record*'))
    if not files:
        return _described(root, max_labels)
    if not names:
        raise ValueError(f'{root} has no vocabulary.txt; write one, a class name a line')
    sources = {
        split: EncodedSource(
            RecordExamples(paths, [image], [labels]),
            f'jft/{split}',
            image=image,
            label=labels,
            id_name=None,
            several=True,
            labels=Labels(names),
        )
        for split, paths in split_files(files).items()
    }
    return Dataset('jft', names, 3, Parts(sources), max_labels)


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Names of the classes; none where there is no such file.

    Raises:
        ValueError: if a name is empty, or there twice, or the file is no text.
    """
    try:
        names = path.read_text(encoding='utf-8').splitlines() if path.is_file() else []
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is no text in UTF-8; save it as such') from error
    seen: set[str] = set()
    for number, name in enumerate(names, 1):
        if not name or name in seen:
            problem = f'has {name!r} twice' if name else 'has an empty line'
            raise ValueError(f'{path}:{number} {problem}; a line is the name of a class')
        seen.add(name)
    return tuple(names)


def split_files(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Files by split: train-00000-of-00002.array_record, train.array_record-00000-of-00002.

    Raises:
        ValueError: if a name is none of a split's file, or shards of a split are missing.
    """
    splits: dict[str, list[Path]] = {}
    for path in files:
        match = _FILE.fullmatch(path.name)
        if not match or not path.is_file():
            raise ValueError(f'{path} is no file SPLIT*.array_record; rename it, or take it away')
        splits.setdefault(match[1], []).append(path)
    for paths in splits.values():
        _check_shards(paths)
    return splits


def _check_shards(paths: Sequence[Path]) -> None:
    """Raises ValueError unless these are one row of shards, or files without such numbers."""
    found = [_SHARD.search(path.name) for path in paths]
    if not any(found):
        return
    rows = {_SHARD.sub(r'-of-\2', path.name) for path in paths}
    numbers, count = {int(m[1]) for m in found if m}, max(int(m[2]) for m in found if m)
    if len(rows) > 1 or len(numbers) < len(paths) or max(numbers) >= count:
        raise ValueError(
            f'{paths[0]} and {paths[-1].name} are not of one row of shards; keep one row a split'
        )
    if len(numbers) < count:
        number = next(i for i in range(count) if i not in numbers)
        name = _SHARD.sub(lambda m: f'-{number:0{len(m[1])}}-of-{m[2]}', paths[0].name)
        others = f' and {count - len(numbers) - 1} more shards' if len(numbers) < count - 1 else ''
        raise ValueError(f'{paths[0].parent} lacks {name}{others}; bring all shards of the split')


def _described(root: Path, max_labels: int) -> Dataset:
    reason = (
        f'{root} holds no set: neither dataset_info.json nor SPLIT*.array_record files; prepare '
        'yours (docs/images.md), or, to try things out: python -m datasets.make_fake jft '
        '--out=runs/fake and --config.dataset.data_dir=runs/fake'
    )
    splits = {split: UnreadSource(size, reason) for split, size in SIZES.items()}
    return Dataset('jft', tuple(map(str, range(CLASSES))), 3, Parts(splits), max_labels)
