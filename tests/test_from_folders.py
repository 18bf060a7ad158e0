"""Sets made of folders, tar files and JSON lines, and files in them that cannot be read."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from configs import digits
from datasets import from_folders, load_dataset
from datasets.arguments import split_and_path
from datasets.examples import Images
from datasets.geometry import Resize
from datasets.pipeline import Reading, eval_batches, train_batches
from tests.conftest import examples, photo, run_module, run_script
from trainers.classification import Classification
from trainers.experiment import make_experiment
from trainers.state import create_state

ROOT = Path(__file__).parents[1]
NOW = Reading(threads=0, prefetch=0)
LENIENT = Reading(threads=0, prefetch=0, max_unreadable=0.02)


@pytest.fixture(scope='module')
def damaged(tmp_path_factory):
    """A set of folders and a tar file: 12 images of 3 classes, 2 files that are none, and more.

    That is what systems leave behind, and a second split with another class.
    """
    root = tmp_path_factory.mktemp('damaged')
    images = root / 'images'
    for name in ('cat', 'dog'):
        (images / name).mkdir(parents=True)
        for i in range(4):
            (images / name / f'{i}.jpg').write_bytes(photo((40 * i, 90, 200)))
    (images / 'cat' / 'cut.jpg').write_bytes(photo((1, 2, 3), (400, 300))[:1000])
    (images / 'dog' / 'notes.txt').write_text('no image')
    with tarfile.open(images / 'ant.tar', 'w') as archive:
        for name in [*(f'ant/{i}/0.jpg' for i in range(4)), '__MACOSX/ant/0.jpg', 'ant/._0.jpg']:
            member = tarfile.TarInfo(name)
            member.size = len(data := photo((200, len(name), 0)))
            archive.addfile(member, io.BytesIO(data))
    for name in ('.cache', '__MACOSX', 'cat/.thumbs', 'cat/__MACOSX'):
        (images / name).mkdir()
    (images / 'dog' / '.DS_Store').touch()
    (root / 'other' / 'bee').mkdir(parents=True)
    (root / 'other' / 'bee' / '0.jpg').write_bytes(photo((0, 0, 0)))
    paths = [str(images), f'small={root / "other"}']
    run_module('datasets.from_folders', 'imagenet21k', '--images', *paths, f'--out={root}')
    return root


def test_folders_and_tar_files(damaged):
    dataset = load_dataset('imagenet21k', str(damaged))
    assert dataset.label_names == ('ant', 'bee', 'cat', 'dog')
    assert (damaged / 'imagenet21k/1.0.0/vocabulary.txt').read_text() == 'ant\nbee\ncat\ndog\n'
    assert [(x['id'], x['label']) for x in examples(dataset, 'small')] == [('bee/0.jpg', 1)]
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
    batches = eval_batches(Images(dataset, 'full', Resize(8)), batch_size=8, reading=LENIENT)
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
    batches = train_batches(Images(dataset, 'full', Resize(8)), batch_size=7, seed=0, reading=NOW)
    message = (
        r'^2 of \d+ examples could not be read, the last one (cat/cut.jpg|dog/notes.txt) \(.*\); '
        'mend the data, or allow more with --config.reading.max_unreadable$'
    )
    with pytest.raises(OSError, match=message):
        for _ in batches:
            pass


@pytest.mark.slow
def test_evaluation_leaves_unreadable_files_out(damaged, caplog):
    config = digits.get_config('model=mini/7-4at1-fuser,runlocal')
    config.dataset.update(name='imagenet21k', data_dir=str(damaged), split='full')
    config.reading.max_unreadable = 0.01
    config.total_steps, config.schedule.warmup_epochs = 1, 0.0
    experiment = make_experiment(config)
    evaluate = Classification(experiment=experiment, dataset='', split='full', batch_size=8)
    metrics = evaluate(create_state(experiment))
    assert {metric.n for metric in metrics.values()} == {12}
    assert metrics['imagenet21k/full/top5'].value == 1
    assert 'imagenet21k/full: 2 of 14 examples could not be read' in caplog.messages


def test_worker_processes_read_the_same(damaged, tmp_path):
    code = (
        'from absl import app\n'
        'from datasets import load_dataset\n'
        'from datasets.examples import Images\n'
        'from datasets.geometry import InceptionCrop\n'
        'from datasets.pipeline import Reading, eval_batches\n'
        'def main(argv):\n'
        f'    dataset = load_dataset("imagenet21k", {str(damaged)!r})\n'
        '    images = Images(dataset, "full", InceptionCrop(8))\n'
        '    make = lambda n: eval_batches(images, batch_size=5,\n'
        '        reading=Reading(workers=n, max_unreadable=1.0))\n'
        '    pairs = list(zip(make(0), make(1), strict=True))\n'
        '    assert all((a[k] == b[k]).all() for a, b in pairs for k in a)\n'
        '    print(len(pairs), sum(a["unreadable"].sum() for a, _ in pairs))\n'
        'if __name__ == "__main__":\n'
        '    app.run(main)\n'
    )
    assert run_script(tmp_path, code) == '3 2.0\n'


@pytest.fixture
def labelled(tmp_path):
    """Three images, and a function that writes JSON lines of them; all arguments but --labels."""
    images = tmp_path / 'images'
    (images / 'a').mkdir(parents=True)
    for i in range(3):
        (images / 'a' / f'{i}.jpg').write_bytes(photo((80 * i, 0, 0)))

    def lines(*rows, file='labels.jsonl'):
        rows = [x if isinstance(x, str) else json.dumps(x) for x in rows]
        (tmp_path / file).write_text('\n'.join(rows))
        return [f'--images={images}', f'--out={tmp_path}']

    return lines


def test_json_lines(labelled, tmp_path):
    labelled({'image': 'a/1.jpg', 'labels': ['emu', 'dog']}, file='test.jsonl')
    args = labelled(
        {'image': 'a/0.jpg', 'labels': ['dog', 'grass']},
        {'image': 'a/1.jpg', 'labels': []},
        {'image': 'a/2.jpg', 'labels': ['a cat', 7]},
    )
    files = [f'--labels={tmp_path}/labels.jsonl', f'--labels=test={tmp_path}/test.jsonl']
    run_module('datasets.from_folders', 'jft', *args, *files)
    dataset = load_dataset('jft', str(tmp_path))
    assert dataset.label_names == ('7', 'a cat', 'dog', 'emu', 'grass')
    found = {x['id']: x['labels'] for x in examples(dataset, 'train')}
    assert found == {'a/0.jpg': [2, 4], 'a/1.jpg': [], 'a/2.jpg': [1, 0]}
    assert [(x['id'], x['labels']) for x in examples(dataset, 'test')] == [('a/1.jpg', [3, 2])]


IMAGE = 'a/0.jpg'
FORM = 'labels.jsonl:2 is not {"image": "PATH", "labels": ["NAME", ...]}; mend it'


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        ('{"image": ', FORM),
        ({'image': IMAGE}, FORM),
        ({'image': IMAGE, 'labels': 'dog'}, FORM),
        ({'image': 7, 'labels': ['dog']}, FORM),
        *(({'image': 'a/1.jpg', 'labels': [x]}, FORM) for x in (None, True, 1.5, ['dog'])),
        ([1], FORM),
        ('[' * 99_999, FORM),
        ({'image': 'a/9.jpg', 'labels': []}, 'labels.jsonl:2 names a/9.jpg, which is not in '),
        ({'image': IMAGE, 'labels': ['x']}, 'labels.jsonl:2 names a/0.jpg a second time'),
        ({'image': 'a/1.jpg', 'labels': ['']}, "labels.jsonl:2 has the label ''"),
        ({'image': 'a/1.jpg', 'labels': ['a\nb']}, r"labels.jsonl:2 has the label 'a\nb'"),
        ({'image': 'a/1.jpg', 'labels': ['a ']}, "labels.jsonl:2 has the label 'a '; use one line"),
    ],
    ids=range(15),
)
def test_json_lines_that_do_not_fit(labelled, tmp_path, capsys, row, message):
    args = labelled({'image': IMAGE, 'labels': ['dog']}, row)
    assert from_folders.main(['jft', *args, f'--labels={tmp_path}/labels.jsonl']) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1


def test_texts_that_are_not_utf_8_are_told_of_by_name(labelled, tmp_path, capsys):
    args = labelled({'image': IMAGE, 'labels': ['dog']})
    (tmp_path / 'labels.jsonl').write_bytes('{"image": "a/ü.jpg"}'.encode('latin-1'))
    assert from_folders.main(['jft', *args, f'--labels={tmp_path}/labels.jsonl']) == 1
    said = f'error: {tmp_path}/labels.jsonl is no text in UTF-8; save it as such\n'
    assert capsys.readouterr().err == said
    (tmp_path / 'vocabulary.txt').write_bytes(b'\xff')
    with pytest.raises(ValueError, match=r'vocabulary\.txt is no text in UTF-8; save it as such'):
        load_dataset('jft', str(tmp_path))


def test_a_set_of_folders_under_any_name_is_read_as_jft(damaged, tmp_path):
    splits = [f'train={damaged / "other"}', f'test={damaged / "other"}']
    run_module('datasets.from_folders', 'mine', '--images', *splits, f'--out={tmp_path}')
    dataset = load_dataset('jft', str(tmp_path / 'mine'), labels='label')
    assert dataset.label_names == ('bee',)
    assert [x['labels'] for x in examples(dataset, 'test')] == [[0]]


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    given = ['~/a', 'test=~/b', './c=d', '~/e=f', 'g=~nobody-of-this-name/h']
    assert [split_and_path(text) for text in given] == [
        (None, tmp_path / 'a'),
        ('test', tmp_path / 'b'),
        (None, Path('c=d')),
        (None, tmp_path / 'e=f'),
        ('g', Path('~nobody-of-this-name/h')),
    ]
    with pytest.raises(ValueError, match=f'{tmp_path}/none is no folder'):
        from_folders.prepare_classes('jft', from_folders.by_split(['~/none'], 'train'), tmp_path)
    (tmp_path / 'names.txt').write_text('cat\ncat\n')
    with pytest.raises(ValueError, match=f"{tmp_path}/names.txt:2 has 'cat' twice"):
        load_dataset('jft', str(tmp_path), vocabulary='~/names.txt')


def test_splits_that_do_not_fit(labelled, tmp_path, capsys):
    def error(*more):
        assert from_folders.main(['jft', *args, *more]) == 1
        return capsys.readouterr().err

    args, file = labelled(), f'--labels={tmp_path}/labels.jsonl'
    assert 'labels.jsonl has no line; name an image a line' in error(file)
    labelled({'image': IMAGE, 'labels': []})
    assert 'labels.jsonl has no label; give some' in error(file)
    assert "labels.jsonl is a second path of split 'train'; use SPLIT=PATH" in error(file, file)
    assert '--labels has paths below one folder; use --images=DIR' in error(file, '--images=x')


def test_folders_that_do_not_fit(tmp_path, capsys):
    def error(images):
        args = ['imagenet21k', f'--images={images}', f'--out={tmp_path / "out"}']
        assert from_folders.main(args) == 1
        said = capsys.readouterr().err
        assert said.count('\n') == 1
        return said

    assert 'is no folder; name the folder of the images' in error(tmp_path / 'none')
    assert 'holds neither folders nor .tar files' in error(tmp_path)
    (tmp_path / 'cat').mkdir()
    (tmp_path / 'cat' / '.DS_Store').touch()
    assert 'cat holds no images; put some there, or take it away' in error(tmp_path)
    (tmp_path / 'cat' / 'more').mkdir()
    assert "cat holds the folder 'more'; move its images up into the class" in error(tmp_path)
    (tmp_path / 'cat' / 'more').rmdir()
    (tmp_path / 'cat' / '0.jpg').touch()
    (tmp_path / 'cat.tar').touch()
    assert "has two classes 'cat'; keep the folder or the .tar" in error(tmp_path)


def test_tar_files_that_do_not_fit(tmp_path):
    with tarfile.open(tmp_path / 'cat.tar', 'w') as archive:
        for name in ('./cat/0.jpg', '0.jpg'):
            archive.addfile(tarfile.TarInfo(name))
    with tarfile.open(tmp_path / 'dog.tar', 'w') as archive:
        archive.addfile(tarfile.TarInfo('._0.jpg'))
    for name, message in {'cat': 'cat.tar holds 0.jpg twice', 'dog': 'dog.tar holds no im'}.items():
        with pytest.raises(ValueError, match=message):
            list(from_folders.files_of(tmp_path / f'{name}.tar'))


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def test_damaged_tar_files_are_told_of_with_the_member(tmp_path):
    whole = tmp_path / 'whole.tar'
    with tarfile.open(whole, 'w:gz') as archive:
        for name in ('0.jpg', '1.jpg'):
            member = tarfile.TarInfo(name)
            member.size = len(data := np.random.default_rng(0).bytes(99_999))
            archive.addfile(member, io.BytesIO(data))
    packed, plain = whole.read_bytes(), gzip.decompress(whole.read_bytes())
    for name, data, place in (
        ('empty', b'', 'its beginning: file could not be opened'),
        ('text', b'no archive' * 99, 'its beginning: file could not be opened'),
        ('cut', plain[:150_000], '1.jpg: unexpected end of data'),
        ('cut_gz', packed[:150_000], '1.jpg: Compressed file ended before'),
        ('torn_gz', packed[:150_000] + bytes(9) + packed[150_009:], 'its end: CRC check failed'),
    ):
        path = tmp_path / f'{name}.tar'
        path.write_bytes(data)
        refused(path, place)
    for name, target in (('gone', 'none.jpg'), ('loop', '2.jpg')):
        with tarfile.open(tmp_path / f'{name}.tar', 'w') as archive:
            archive.addfile(tarfile.TarInfo('1.jpg'))
            archive.addfile(link('2.jpg', target))
        refused(tmp_path / f'{name}.tar', '2.jpg: ')


def refused(path, place):
    with pytest.raises(ValueError, match=f'{path} cannot be read at {place}') as caught:
        list(from_folders.files_of(path))
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).endswith('; pack it again, or take it away')


def test_a_damaged_tar_file_is_one_line_at_the_terminal(tmp_path, capsys):
    (tmp_path / 'images').mkdir()
    with tarfile.open(tmp_path / 'images' / 'cat.tar', 'w') as archive:
        archive.addfile(link('2.jpg', 'none.jpg'))
    args = ['jft', f'--images={tmp_path / "images"}', f'--out={tmp_path}']
    assert from_folders.main(args) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f'error: {tmp_path}/images/cat.tar cannot be read at 2.jpg: linkname')
    assert not list(tmp_path.glob('jft/1.0.0'))
