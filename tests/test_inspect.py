import json
import shutil

import cv2
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from datasets import inspect, load_dataset
from datasets.fake_videos import make_fake_videos
from datasets.prepare.__main__ import main as prepare


@pytest.fixture(scope='module')
def kinetics(tmp_path_factory):
    """32 videos to train on, of which two have no file, and eight others."""
    root = tmp_path_factory.mktemp('kinetics')
    made = make_fake_videos('kinetics400', root, 32)
    for path in sorted(made.glob('videos/left/*.mp4'))[:2]:
        path.unlink()
    files = [str(made / 'annotations' / f'kinetics400_{x}.csv') for x in ('train', 'val')]
    where = ['--annotations', *files, f'--videos={made}/videos', f'--out={root}']
    assert prepare(['kinetics400', *where, '--classes=8', '--processes=1']) == 0
    return root / 'kinetics400_25fps'


@pytest.fixture(scope='module')
def charades(tmp_path_factory):
    root = tmp_path_factory.mktemp('charades')
    made = make_fake_videos('charades', root, 16)
    where = [f'--videos={made}/videos', f'--out={root}', '--processes=1']
    files = sorted(map(str, made.glob('annotations/Charades_v1_t*.csv')))
    assert prepare(['charades', '--annotations', *files, *where]) == 0
    return root / 'charades_12fps'


def run(capsys, *args):
    status = inspect.main(list(map(str, args)))
    out = capsys.readouterr()
    return status, out.out.splitlines(), out.err


def between(lines, first, last):
    return lines[lines.index(first) + 1 : lines.index(last)]


def test_the_numbers_are_those_of_the_set(kinetics, tmp_path, capsys):
    sheet = tmp_path / 'sheet.png'
    status, lines, _ = run(capsys, kinetics, f'--sheet={sheet}', '--clips=3')
    assert (status, lines[-1]) == (0, f'picture: {sheet}')
    manifest = json.loads((kinetics / '1.0.0' / 'manifest.json').read_text())
    for file in manifest['annotations']:
        assert any(file['file'] in line and file['sha256'] in line for line in lines)
    found = between(lines, 'train', 'val')
    split = manifest['splits']['train']
    assert found[0].startswith(f'  annotated 32, readable {32 - len(split["failed"])}, ')
    assert f'frames {split["frames"]:,}, ' in found[0]
    assert split['failed']
    assert found[1] == f'  failed: {len(split["failed"])} x its file is missing'
    seconds = load_dataset('kinetics400', str(kinetics.parent)).split('train').num_frames / 25
    assert found[2] == (
        f'  {seconds.sum() / 3600:.2f} hours; a video lasts {seconds.min():.1f} to '
        f'{seconds.max():.1f} s, the median {np.median(seconds):.1f} s'
    )
    assert found[3:5] == [
        f'  labels, of all {split["readable"]} videos:',
        '    a video has 1 to 1, 1.00 on average',
    ]
    assert f'fewest: left ({4 - len(split["failed"])}), ' in found[6]
    assert found[7] == '    classes without any: 0'


def test_classes_without_videos_are_named(charades, tmp_path, capsys):
    lines = run(capsys, charades, f'--sheet={tmp_path / "x.png"}')[1]
    test = lines[lines.index('test') :]
    source = load_dataset('charades', str(charades.parent)).split('test')
    each = [{a.label for a in source.read(i, [0]).actions} for i in range(len(source))]
    none = sorted(set(range(157)) - set.union(*each))
    shown = ', '.join(f'c{i:03}' for i in none[:10])
    assert f'    classes without any: {len(none)} ({shown}, ...)' in test
    assert f'{np.mean([len(x) for x in each]):.2f} on average' in ''.join(test)


def test_where_there_are_many_a_sample_tells_of_the_labels(kinetics):
    prepared = inspect.open_set(kinetics)
    lines = [list(inspect.describe(prepared, seed, sample=6)) for seed in (0, 0, 1)]
    assert '  labels, of a random sample of 6 videos:' in lines[0]
    assert lines[0] == lines[1] != lines[2]


@pytest.mark.slow
def test_the_picture_shows_videos_of_all_splits(kinetics, tmp_path, capsys):
    pictures = []
    for name, seed in [('a', 0), ('b', 0), ('c', 1)]:
        path = tmp_path / f'{name}.png'
        assert run(capsys, kinetics, f'--sheet={path}', '--clips=2', f'--seed={seed}')[0] == 0
        pictures.append(cv2.imread(str(path)))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert np.any(pictures[0] != pictures[2])
    prepared = inspect.open_set(kinetics)
    figure = inspect.draw_sheet(prepared, 16, 0)
    titles = [axis.get_title(loc='left') for axis in figure.axes[:: inspect.FRAMES]]
    assert len(set(titles)) == 16
    assert {title.split()[0] for title in titles} == {'train', 'val'}
    assert len(inspect.draw_sheet(prepared, 64, 0).axes) == inspect.FRAMES * sum(
        len(source) for source in prepared.splits.values()
    )


def test_frames_are_shown_with_the_actions_of_their_time(charades):
    prepared = inspect.open_set(charades)
    figure = inspect.draw_sheet(prepared, 64, 0)
    source = prepared.splits['train']
    videos = {x.id: x for x in (source.read(i, [0]) for i in range(len(source)))}
    rows = np.reshape(figure.axes, (-1, inspect.FRAMES))
    shown = {row[0].get_title(loc='left').split(':')[0]: row for row in rows}
    for name, video in videos.items():
        for axis in shown[f'train {name}']:
            seconds, _, names = axis.get_xlabel().partition(' s')
            now = {f'c{a.label:03}' for a in video.actions if a.start <= float(seconds) <= a.end}
            assert set(names.split()) == now
    assert any(row[0].get_title(loc='left').endswith('no label') for row in rows)


@pytest.mark.slow
def test_damaged_records_are_told_of(kinetics, tmp_path, capsys):
    folder = tmp_path / 'set'
    shutil.copytree(kinetics, folder)
    (path,) = folder.glob('*/*-val.array_record-*')
    writer = ArrayRecordWriter(str(path), 'group_size:1,uncompressed')
    index = np.load(next(folder.glob('*/val.index.npy')))
    for _ in range(-(-index[:, 1] // 16).sum()):
        writer.write(b'?')
    writer.close()
    status, lines, error = run(capsys, folder, f'--sheet={tmp_path / "x.png"}', '--clips=64')
    assert lines[-2] == (
        f'    {len(index)} cannot be read; the first is video 0: its record is no tf.train.Example'
    )
    assert (status, error) == (0, '')
    prepared = inspect.open_set(folder)
    figure = inspect.draw_sheet(prepared, 64, 0)
    titles = [axis.get_title(loc='left') for axis in figure.axes[:: inspect.FRAMES]]
    said = 'cannot be read: its record is no tf.train.Example'
    refused = [f'val video {i} {said}' for i in range(len(index))]
    assert sorted(title for title in titles if said in title) == refused
    assert sum(title.startswith('train ') for title in titles) == len(prepared.splits['train'])


def test_what_is_no_prepared_video_set_is_one_line(kinetics, tmp_path, capsys):
    assert run(capsys, tmp_path) == (
        1,
        [],
        f'error: {tmp_path} holds no prepared set; name the folder of one\n',
    )
    shutil.copytree(kinetics, tmp_path / 'set')
    (tmp_path / 'set' / '1.0.0' / 'dataset_info.json').unlink()
    for folder in ('set', 'set/1.0.0'):
        assert 'is not complete; go on with' in run(capsys, tmp_path / folder)[2]
    image_set = tmp_path / 'image' / '1.0.0'
    image_set.mkdir(parents=True)
    (image_set / 'dataset_info.json').write_text('{}')
    assert 'has no manifest.json; name a set of' in run(capsys, image_set)[2]
    assert 'use --clips=1 to 64' in run(capsys, kinetics, '--clips=0')[2]
    assert 'No such file' in run(capsys, kinetics, '--sheet=/nowhere/x.png')[2]
