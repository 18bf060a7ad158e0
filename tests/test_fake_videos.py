import csv
import hashlib
import json
import re

import av
import numpy as np
import pytest

from datasets.fake_videos import FAKES
from datasets.make_fake import main
from datasets.moving_digits import MOTIONS
from datasets.video_sets import VIDEO_SETS


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('videos')
    assert main([*FAKES, f'--out={root}', '--examples=36']) == 0
    return root


def rows(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def decoded(path):
    with av.open(str(path)) as file:
        (stream,) = file.streams
        frames = [frame.to_ndarray(format='rgb24') for frame in file.decode(stream)]
        return float(stream.average_rate), np.stack(frames)


def files(folder):
    return {str(x.relative_to(folder)): x for x in folder.rglob('*') if x.is_file()}


@pytest.mark.parametrize('name', ['kinetics400', 'kinetics600'])
def test_kinetics_is_as_its_files_are(root, name):
    named = {}
    for split, count in [('train', 36), ('val', 9)]:
        found = rows(root / name / 'annotations' / f'{name}_{split}.csv')
        assert len(found) == count
        assert list(found[0]) == ['label', 'youtube_id', 'time_start', 'time_end', 'split']
        assert {row['label'] for row in found} == set(MOTIONS)
        for row in found:
            assert row['split'] == split
            assert re.fullmatch(r'[\w-]{11}', row['youtube_id'])
            start, end = int(row['time_start']), int(row['time_end'])
            named[f'{row["label"]}/{row["youtube_id"]}_{start:06}_{end:06}.mp4'] = row
    assert named.keys() == files(root / name / 'videos').keys()
    assert any(row['youtube_id'][0] == '-' for row in named.values())


def test_charades_is_as_its_files_are(root):
    folder = root / 'charades' / 'annotations'
    found = [row for x in ('train', 'test') for row in rows(folder / f'Charades_v1_{x}.csv')]
    columns = (
        'id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length'
    )
    assert list(found[0]) == columns.split(',')
    assert {f'{row["id"]}.mp4' for row in found} == files(root / 'charades' / 'videos').keys()
    assert {',', '"'} <= set(found[0]['script'])
    assert any(row['actions'] == '' for row in found)
    for row in found:
        for action in filter(None, row['actions'].split(';')):
            assert re.fullmatch(r'c00[0-7] \d\.\d\d \d\.\d\d', action)
            start, end = map(float, action.split()[1:])
            assert 0 <= start < end <= float(row['length'])
    classes = (folder / 'Charades_v1_classes.txt').read_text().splitlines()
    assert [line.split()[0] for line in classes] == [f'c{i:03}' for i in range(157)]
    assert classes[5] == 'c005 clockwise'


def test_avid_is_as_its_files_are(root):
    folder = root / 'avid' / 'annotations'
    found = [json.loads((folder / f'avid_{x}.json').read_text()) for x in ('train', 'val')]
    assert (found[0] | found[1]).keys() == files(root / 'avid' / 'videos').keys()
    assert all(re.fullmatch(r'[a-z]{8}\.mp4', name) for part in found for name in part)
    assert [list(part.values()).count('none') for part in found] == [1, 1]
    assert set(found[0].values()) == {*MOTIONS, 'none'}


@pytest.mark.parametrize('name', FAKES)
def test_files_are_colour_videos_of_a_moving_digit(root, name):
    known = FAKES[name]
    path = sorted(files(root / name / 'videos').items())[0][1]
    rate, frames = decoded(path)
    assert rate == VIDEO_SETS[name].fps
    assert frames.shape[1:] == (72, 96, 3)
    assert known.seconds[0] * rate <= len(frames) <= known.seconds[1] * rate
    assert np.ptp(frames.mean((0, 1, 2))) > 5
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 100


def test_the_length_of_charades_is_that_of_the_video(root):
    folder = root / 'charades'
    row = rows(folder / 'annotations' / 'Charades_v1_test.csv')[0]
    rate, frames = decoded(folder / 'videos' / f'{row["id"]}.mp4')
    assert len(frames) / rate == pytest.approx(float(row['length']), abs=0.01)


def test_bytes_are_the_same_each_time(tmp_path):
    hashes = []
    for folder in ('a', 'b'):
        assert main(['avid', f'--out={tmp_path / folder}', '--examples=16']) == 0
        found = files(tmp_path / folder)
        hashes.append({k: hashlib.sha256(x.read_bytes()).digest() for k, x in found.items()})
    assert len(hashes[0]) == 22
    assert hashes[0] == hashes[1]


def test_the_command_that_prepares_is_printed(tmp_path, capsys):
    assert main(['kinetics400', f'--out={tmp_path}', '--examples=16']) == 0
    folder = tmp_path / 'kinetics400'
    assert capsys.readouterr().out.splitlines() == [
        str(folder),
        'python -m datasets.prepare kinetics400 --annotations '
        f'train={folder}/annotations/kinetics400_train.csv '
        f'val={folder}/annotations/kinetics400_val.csv '
        f'--videos {folder}/videos --out {tmp_path} --classes 8',
    ]


def test_what_is_there_stays(tmp_path, capsys):
    (tmp_path / 'avid').mkdir()
    assert main(['avid', f'--out={tmp_path}']) == 1
    assert 'avid is there already; take it away' in capsys.readouterr().err
    assert main(['charades', f'--out={tmp_path}', '--examples=15']) == 1
    assert capsys.readouterr().err == (
        'error: --examples=15 is not possible; use 16 to 4000 for videos\n'
    )
    (tmp_path / 'file').touch()
    assert main(['charades', f'--out={tmp_path / "file"}']) == 1
    assert capsys.readouterr().err.count('\n') == 1
    assert sorted(x.name for x in tmp_path.iterdir()) == ['avid', 'file']
