"""Sets on the disk: those that TFDS prepared, plain ArrayRecord files, and folders of images."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from configs import digits
from datasets import from_folders, load_dataset, make_fake
from datasets.geometry import Resize
from datasets.images import IMAGE_SETS
from datasets.pipeline import Reading, eval_batches, train_batches
from tests.conftest import run_module
from trainers.classification import Classification
from trainers.experiment import make_experiment
from trainers.state import create_state

ROOT = Path(__file__).parents[1]
NOW = Reading(threads=0, prefetch=0)
LENIENT = Reading(threads=0, prefetch=0, max_unreadable=0.01)


def examples(dataset, split):
    source = dataset.split(split)
    return [source[i] for i in range(len(source))]


def test_a_prepared_set(fakes):
    dataset = load_dataset('imagenet2012', str(fakes))
    assert {name: len(dataset.split(name)) for name in dataset.splits} == {
        'train': 160,
        'validation': 40,
    }
    assert (len(dataset.label_names), dataset.label_names[0]) == (1000, 'n01440764')
    found = examples(dataset, 'train')
    assert np.bincount([x['label'] for x in found]).tolist() == [16] * 10
    assert len({x['id'] for x in found}) == 160
    image = Image.open(io.BytesIO(found[0]['image']))
    assert image.format == 'JPEG'
    assert image.mode == 'RGB'


def test_parts_of_a_split(fakes):
    dataset = load_dataset('imagenet2012', str(fakes))
    whole = examples(dataset, 'train')
    assert examples(dataset, 'train[:10]') == whole[:10]
    assert examples(dataset, 'train[150:]') == whole[150:]
    assert examples(dataset, 'train[3:5]') == whole[3:5]


@pytest.mark.parametrize(
    ('split', 'message'),
    [
        ('test', "no split 'test'; use one of train, validation"),
        ('test[:5]', r"no split 'test\[:5\]'; use one of train, validation"),
        ('train[5', r"no split 'train\[5'; use one of train, validation"),
        ('train[:2000000]', r"split 'train\[:2000000\]' is no part of .* examples"),
        ('train[7:7]', r"split 'train\[7:7\]' is no part of .* examples"),
    ],
)
@pytest.mark.parametrize('there', [True, False])
def test_splits_that_are_not_there(fakes, tmp_path, split, message, there):
    dataset = load_dataset('imagenet2012', str(fakes if there else tmp_path))
    with pytest.raises(ValueError, match=message) as caught:
        dataset.split(split)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', IMAGE_SETS)
def test_a_missing_set_has_sizes_and_says_how_it_is_prepared(tmp_path, name):
    dataset, known = load_dataset(name, str(tmp_path)), IMAGE_SETS[name]
    assert len(dataset.label_names) == known.classes
    assert {split: len(dataset.split(split)) for split in dataset.splits} == known.sizes
    with pytest.raises(OSError, match=f'^{name} is not in {tmp_path}; prepare it: ') as caught:
        dataset.split(next(iter(known.sizes)))[0]
    message = str(caught.value)
    if name != 'imagenet21k':
        assert f'tfds build {name} --data_dir={tmp_path} --file_format=array_record' in message
    for file in known.by_hand.split(' and ') if known.by_hand else ():
        assert file in message
        assert f'in {tmp_path}/downloads/manual' in message


def test_the_default_folder_is_that_of_tfds(fakes, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(fakes))
    assert len(load_dataset('dtd').split('validation')) == 40


def test_the_newest_version_is_read(fakes, tmp_path):
    (old,) = (fakes / 'dtd').iterdir()
    for version in ('3.0.9', '3.0.10', '2.9.9'):
        shutil.copytree(old, tmp_path / 'dtd' / version)
    for version in ('3.0.9', '2.9.9'):
        (tmp_path / 'dtd' / version / 'features.json').unlink()  # cannot be opened
    assert len(load_dataset('dtd', str(tmp_path)).split('train')) == 160


def test_files_without_random_access_are_refused(fakes, tmp_path):
    shutil.copytree(fakes / 'dtd', tmp_path / 'dtd')
    (path,) = tmp_path.glob('dtd/*/dataset_info.json')
    path.write_text(path.read_text().replace('"array_record"', '"tfrecord"'))
    hint = 'holds tfrecord files, which have no random access; .* --file_format=array_record'
    with pytest.raises(OSError, match=hint):
        load_dataset('dtd', str(tmp_path))


def test_reading_loads_no_tensorflow(fakes):
    code = (
        'import sys\n'
        'from datasets import load_dataset\n'
        'from datasets.geometry import Resize\n'
        'from datasets.pipeline import eval_batches\n'
        'for name in ("dtd", "jft"):\n'
        f'    dataset = load_dataset(name, {str(fakes)!r})\n'
        '    assert len(list(eval_batches(dataset, "test", Resize(8), batch_size=16))) == 3\n'
        'print("tensorflow" in sys.modules)\n'
    )
    run = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.stdout == 'False\n', run.stderr[-2000:]


def test_a_fake_is_not_written_over(fakes, tmp_path, capsys):
    assert make_fake.main(['dtd', f'--out={fakes}']) == 1
    assert 'is there already; take it away' in capsys.readouterr().err
    assert make_fake.main(['dtd', f'--out={tmp_path}', '--examples=5000']) == 1
    assert '--examples=5000 is not possible; use 40 to 4000' in capsys.readouterr().err


# Plain ArrayRecord files.


def record(images, labels=()):
    """A tf.train.Example; without `labels` where these are None."""
    example = tf_example_pb2.Example()
    example.features.feature['image'].bytes_list.value.extend(images)
    if labels is not None:
        feature = example.features.feature['labels']
        numbers = all(isinstance(label, int) for label in labels)
        (feature.int64_list if numbers else feature.bytes_list).value.extend(labels)
    return example.SerializeToString()


def write(path, records):
    writer = ArrayRecordWriter(str(path), 'group_size:1')
    for one in records:
        writer.write(one)
    writer.close()


@pytest.fixture
def plain(fakes, tmp_path):
    """The fake `jft` as plain files: labels by name to train on, and by number to test on."""
    dataset = load_dataset('jft', str(fakes))
    names = [name.encode() for name in dataset.label_names]
    (tmp_path / 'vocabulary.txt').write_text('\n'.join(dataset.label_names) + '\n')
    train = [
        record([x['image']], [names[i] for i in x['labels']]) for x in examples(dataset, 'train')
    ]
    write(tmp_path / 'train-00000-of-00002.array_record', train[:100])
    write(tmp_path / 'train-00001-of-00002.array_record', train[100:])
    test = [record([x['image']], x['labels']) for x in examples(dataset, 'test')]
    write(tmp_path / 'test.array_record', test)
    return tmp_path


def test_both_forms_of_jft_are_the_same_examples(fakes, plain):
    prepared, own = load_dataset('jft', str(fakes)), load_dataset('jft', str(plain))
    assert own.label_names == prepared.label_names
    assert max(len(x['labels']) for x in examples(own, 'train')) == 5
    for split, size in {'train': 160, 'test': 40}.items():
        for dataset in (prepared, own):
            assert len(dataset.split(split)) == size
        for a, b in zip(examples(prepared, split), examples(own, split), strict=True):
            assert (a['image'], a['labels']) == (b['image'], b['labels'])
    batch = next(train_batches(own, 'train', Resize(8), batch_size=4, seed=0, reading=NOW))
    assert batch['labels'].shape == (4, 32)
    assert batch['mask'].all()


def test_examples_that_do_not_fit_are_told_of(plain):
    image = examples(load_dataset('jft', str(plain)), 'test')[0]['image']
    write(
        plain / 'odd.array_record',
        [
            record([image], [1, 2, 3]),
            record([image], [b'1', b'zebra']),
            record([image], [18_291]),
            record([image], [b'\xff']),
            record([image], [0, 1, 2, 3]),
            record([], [1]),
            record([image, image], [1]),
            record([image], None),
            record([image[:500]], [1]),
            record([image], []),
        ],
    )
    dataset = load_dataset('jft', str(plain), max_labels=3)
    (batch,) = eval_batches(dataset, 'odd', Resize(8), batch_size=12, reading=LENIENT)
    errors = [
        '',
        "the label 'zebra' is not in the vocabulary",
        'the label 18291 is none of the 18291 classes',
        r"the label '\\xff' is not in the vocabulary",
        '4 labels are more than config.dataset.max_labels=3',
        "it has 0 values of 'image', not one",
        "it has 2 values of 'image', not one",
        "it has no feature 'labels'; it has image",
        'damaged PNG file: image file is truncated',
        '',
    ]
    assert batch['error'][:10].tolist() == errors
    assert batch['mask'].tolist() == [1, *[0] * 8, 1, 0, 0]
    assert batch['unreadable'].tolist() == [0, *[1] * 8, 0, 0, 0]
    assert batch['labels'][:2].tolist() == [[1, 2, 3], [-1, -1, -1]]
    assert (batch['labels'][9] == -1).all()
    assert not batch['image'][1:9].any()
    assert batch['id'][1] == 'jft/odd[1]'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('cat\ndog\ncat\n', "vocabulary.txt:3 has 'cat' twice; a line is the name of a class"),
        ('cat\n\ndog\n', 'vocabulary.txt:2 has an empty line'),
        (None, 'has no vocabulary.txt; write one, a class name a line'),
    ],
)
def test_vocabularies_that_cannot_be_used(plain, text, message):
    path = plain / 'vocabulary.txt'
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_dataset('jft', str(plain))


def test_settings_of_jft_that_are_not_possible(fakes, tmp_path):
    with pytest.raises(ValueError, match='vocabulary /none is not there; name a file'):
        load_dataset('jft', str(fakes), vocabulary='/none')
    with pytest.raises(ValueError, match='max_labels=0 leaves no label'):
        load_dataset('jft', str(fakes), max_labels=0)
    with pytest.raises(ValueError, match=r"has no feature 'picture'; it has .*image"):
        load_dataset('jft', str(fakes), image='picture')
    missing = load_dataset('jft', str(tmp_path))
    assert len(missing.split('train')) == 303_000_000
    with pytest.raises(OSError, match=f'{tmp_path} holds no set'):
        missing.split('train')[0]


# Folders.


def photo(color, size=(48, 40)):
    file = io.BytesIO()
    Image.new('RGB', size, color).save(file, 'JPEG')
    return file.getvalue()


@pytest.fixture(scope='module')
def damaged(tmp_path_factory):
    """A set of folders and a tar file: 12 images of 3 classes, and 2 files that are none."""
    root = tmp_path_factory.mktemp('damaged')
    images = root / 'images'
    for name in ('cat', 'dog'):
        (images / name).mkdir(parents=True)
        for i in range(4):
            (images / name / f'{i}.jpg').write_bytes(photo((40 * i, 90, 200)))
    (images / 'cat' / 'cut.jpg').write_bytes(photo((1, 2, 3), (400, 300))[:1000])
    (images / 'dog' / 'notes.txt').write_text('no image')
    with tarfile.open(images / 'ant.tar', 'w') as archive:
        for i in range(4):
            member = tarfile.TarInfo(f'ant/{i}/0.jpg')
            member.size = len(data := photo((200, 40 * i, 0)))
            archive.addfile(member, io.BytesIO(data))
    run_module('datasets.from_folders', 'imagenet21k', f'--images={images}', f'--out={root}')
    return root


def test_folders_and_tar_files(damaged):
    dataset = load_dataset('imagenet21k', str(damaged))
    assert dataset.label_names == ('ant', 'cat', 'dog')
    assert (damaged / 'imagenet21k/1.0.0/vocabulary.txt').read_text() == 'ant\ncat\ndog\n'
    found = {x['id']: x for x in examples(dataset, 'full')}
    assert len(found) == 14
    for name, example in found.items():
        folder, _, file = name.partition('/')
        assert file.count('/') == (folder == 'ant')
        assert dataset.label_names[example['label']] == folder
        if folder != 'ant':
            assert example['image'] == (damaged / 'images' / folder / file).read_bytes()


def test_unreadable_files_are_masked_counted_and_told_of(damaged, caplog):
    dataset = load_dataset('imagenet21k', str(damaged))
    batches = eval_batches(dataset, 'full', Resize(8), batch_size=8, reading=LENIENT)
    batch = {key: np.concatenate(x) for key, x in merged(batches).items()}
    bad = {
        'cat/cut.jpg': 'damaged JPEG file: Premature end of JPEG file',
        'dog/notes.txt': 'this is no file of BMP, GIF, JPEG, PNG, WEBP',
    }
    unreadable = batch['unreadable'] == 1
    assert dict(zip(batch['id'][unreadable], batch['error'][unreadable], strict=True)) == bad
    assert not batch['mask'][unreadable].any()
    assert (batch['label'][unreadable] == -1).all()
    assert (batch['mask'].sum(), batch['unreadable'].sum()) == (12, 2)
    for name, error in bad.items():
        assert f'cannot be read, left out: {name}: {error}' in caplog.messages


def merged(batches):
    whole = list(batches)
    return {key: [batch[key] for batch in whole] for key in whole[0]}


def test_too_many_unreadable_files_end_the_run(damaged):
    dataset = load_dataset('imagenet21k', str(damaged))
    batches = train_batches(dataset, 'full', Resize(8), batch_size=7, seed=0, reading=NOW)
    message = (
        r'^2 of \d+ examples could not be read, the last one (cat/cut.jpg|dog/notes.txt) \(.*\); '
        'mend the data, or allow more with --config.reading.max_unreadable$'
    )
    with pytest.raises(OSError, match=message):
        for _ in batches:
            pass


def test_evaluation_leaves_unreadable_files_out(damaged, caplog):
    config = digits.get_config('model=mini/7-4at1-fuser,runlocal')
    config.dataset.update(name='imagenet21k', data_dir=str(damaged), split='full')
    config.reading.max_unreadable = 0.01
    config.total_steps, config.schedule.warmup_epochs = 1, 0.0
    experiment = make_experiment(config)
    evaluate = Classification(experiment=experiment, split='full', batch_size=8)
    metrics = evaluate(create_state(experiment))
    assert {metric.n for metric in metrics.values()} == {12}
    assert metrics['imagenet21k/full/top5'].value == 1
    assert 'imagenet21k/full: 2 of 14 examples could not be read' in caplog.messages


def test_worker_processes_read_the_same(damaged, tmp_path):
    code = (
        'from absl import app\n'
        'from datasets import load_dataset\n'
        'from datasets.geometry import InceptionCrop\n'
        'from datasets.pipeline import Reading, eval_batches\n'
        'def main(argv):\n'
        f'    dataset = load_dataset("imagenet21k", {str(damaged)!r})\n'
        '    make = lambda n: eval_batches(dataset, "full", InceptionCrop(8), batch_size=5,\n'
        '        reading=Reading(workers=n, max_unreadable=1.0))\n'
        '    pairs = list(zip(make(0), make(1), strict=True))\n'
        '    assert all((a[k] == b[k]).all() for a, b in pairs for k in a)\n'
        '    print(len(pairs), sum(a["unreadable"].sum() for a, _ in pairs))\n'
        'if __name__ == "__main__":\n'
        '    app.run(main)\n'
    )
    (tmp_path / 'read.py').write_text(code)
    run = subprocess.run(
        [sys.executable, tmp_path / 'read.py'],
        env=os.environ | {'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.stdout == '3 2.0\n', run.stderr[-2000:]


@pytest.fixture
def labelled(tmp_path):
    """Three images, and a function that writes JSON lines of them."""
    images = tmp_path / 'images'
    (images / 'a').mkdir(parents=True)
    for i in range(3):
        (images / 'a' / f'{i}.jpg').write_bytes(photo((80 * i, 0, 0)))

    def lines(*rows):
        path = tmp_path / 'labels.jsonl'
        path.write_text('\n'.join(x if isinstance(x, str) else json.dumps(x) for x in rows))
        return [f'--images={images}', f'--labels={path}', f'--out={tmp_path}']

    return lines


def test_json_lines(labelled, tmp_path):
    args = labelled(
        {'image': 'a/0.jpg', 'labels': ['dog', 'grass']},
        {'image': 'a/1.jpg', 'labels': []},
        {'image': 'a/2.jpg', 'labels': ['a cat', 7]},
    )
    run_module('datasets.from_folders', 'jft', *args)
    dataset = load_dataset('jft', str(tmp_path))
    assert dataset.label_names == ('7', 'a cat', 'dog', 'grass')
    found = {x['id']: x['labels'] for x in examples(dataset, 'train')}
    assert found == {'a/0.jpg': [2, 3], 'a/1.jpg': [], 'a/2.jpg': [1, 0]}


IMAGE = 'a/0.jpg'


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        ('{"image": ', 'labels.jsonl:2 is not {"image": ..., "labels": [...]}'),
        ({'image': IMAGE}, 'labels.jsonl:2 is not {"image": ..., "labels": [...]}'),
        (
            {'image': IMAGE, 'labels': 'dog'},
            'labels.jsonl:2 is not {"image": ..., "labels": [...]}',
        ),
        ([1], 'labels.jsonl:2 is not {"image": ..., "labels": [...]}'),
        ({'image': 'a/9.jpg', 'labels': []}, 'labels.jsonl:2 names a/9.jpg, which is not in '),
        ({'image': IMAGE, 'labels': ['x']}, 'labels.jsonl:2 names a/0.jpg a second time'),
        ({'image': 'a/1.jpg', 'labels': ['']}, "labels.jsonl:2 has the label ''"),
        ({'image': 'a/1.jpg', 'labels': ['a\nb']}, r"labels.jsonl:2 has the label 'a\nb'"),
    ],
    ids=range(8),
)
def test_json_lines_that_do_not_fit(labelled, capsys, row, message):
    args = labelled({'image': IMAGE, 'labels': ['dog']}, row)
    assert from_folders.main(['jft', *args]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1


def test_folders_that_do_not_fit(tmp_path, capsys):
    def error(images):
        args = ['imagenet21k', f'--images={images}', f'--out={tmp_path / "out"}']
        assert from_folders.main(args) == 1
        return capsys.readouterr().err

    assert 'is no folder; name the folder of the images' in error(tmp_path / 'none')
    assert 'holds neither folders nor .tar files' in error(tmp_path)
    (tmp_path / 'cat').mkdir()
    (tmp_path / 'cat.tar').touch()
    assert "has two classes 'cat'; keep the folder or the .tar" in error(tmp_path)


def test_missing_examples_cannot_be_read(tmp_path):
    with pytest.raises(OSError, match='dtd is not in'):
        next(eval_batches(load_dataset('dtd', str(tmp_path)), 'train', Resize(8), batch_size=2))
