"""The official annotation files of video sets, and the files that their videos are found in."""

import json
import os

import pytest

from datasets.prepare.annotations import Named, read_annotations
from datasets.prepare.files import Files

HEADER = 'label,youtube_id,time_start,time_end,split'
CHARADES = 'id,subject,objects,actions,length'


@pytest.fixture
def write(tmp_path):
    """Writes lines or pairs of JSON to a file, and gives its path."""

    def write(name, *lines):
        path = tmp_path / name
        if name.endswith('.json'):
            pairs = ', '.join(f'{json.dumps(key)}: {json.dumps(value)}' for key, value in lines)
            lines = ['{' + pairs + '}']
        path.write_text('\n'.join(lines), 'utf-8')
        return str(path)

    return write


def ids(annotations, split):
    return [video.id for video in annotations.videos[split]]


def test_kinetics(write):
    file = write(
        'all.csv',
        '\ufeffsplit,is_cc,time_end,time_start,youtube_id,label',
        'train,0,27,17,--6bJUbfpnQ,"eating ""soup"", hot"',
        'validate,1,13.0,3.0,abcdefghijk,déjà vu',
        'test,1,10,0,ABCDEFGHIJK,Déjà vu',
        'validation,1,11,1,_bcdefghijk,déjà vu',
    )
    found = read_annotations('kinetics400', [file], classes=3)
    assert found.single_label
    assert found.vocabulary == ('Déjà vu', 'déjà vu', 'eating "soup", hot')
    assert ids(found, 'train') == ['--6bJUbfpnQ_000017_000027']
    assert ids(found, 'val') == ['abcdefghijk_000003_000013', '_bcdefghijk_000001_000011']
    assert found.videos['test'][0].label == 'Déjà vu'
    assert found.files[0][:2] == ('all.csv', None)
    assert len(found.files[0][2]) == 64


def test_kinetics_without_labels_or_splits(write):
    train = write('a.csv', HEADER, 'x,abcdefghijk,1,11,train')
    test = write('b.csv', 'youtube_id,time_start,time_end', 'bbcdefghijk,1,11')
    found = read_annotations('kinetics600', [train, f'test={test}'], classes=1)
    assert found.videos['test'][0].label is None
    assert [file[:2] for file in found.files] == [('a.csv', 'train'), ('b.csv', 'test')]
    with pytest.raises(ValueError, match=r'b.csv does not say which split it is of; use SPLIT='):
        read_annotations('kinetics600', [train, test], classes=1)
    with pytest.raises(ValueError, match=r'a.csv:2 is of the split train; do not call it val'):
        read_annotations('kinetics600', [f'validate={train}'], classes=1)


def test_charades(write):
    row = '{},X,"a;b, c",{},30'
    lines = [
        row.format('46GP8', 'c092 11.90 21.20;c147 0.00 12.60'),
        row.format('NONE0', ''),
        row.format('LATE0', 'c001 20.00 99.00;c001 7.10 3.00'),
        row.format('CODE0', 'c157 0.00 1.00'),
        row.format('TEXT0', 'c001 0.00'),
    ]
    file = write('Charades_v1_train.csv', CHARADES, *lines)
    other = write('mine.csv', CHARADES, *lines[:1])
    found = read_annotations('charades', [file, f'test={other}'])
    assert not found.single_label
    assert (found.vocabulary[0], found.vocabulary[-1]) == ('c000', 'c156')
    assert [video.actions for video in found.videos['train']] == [
        (Named('c092', 11.9, 21.2), Named('c147', 0.0, 12.6)),
        (),
        (Named('c001', 20.0, 99.0), Named('c001', 7.1, 3.0)),
    ]
    assert found.refused['train'] == {
        'CODE0': "its action 'c157 0.00 1.00' is none of c000 to c156",
        'TEXT0': "its action 'c001 0.00' is not CLASS START END",
    }
    assert ids(found, 'test') == ['46GP8']


def test_avid(write, caplog):
    train = write('avid_train.json', ('a.mp4', 'none'), ('B.mp4', 'jump, run'), ('b.mp4', ''))
    val = write('avid_val.json', ('c', 'wave'))
    found = read_annotations('avid', [train, val])
    assert found.vocabulary == ('jump, run', 'none', 'wave')
    assert (ids(found, 'train'), ids(found, 'val')) == (['a', 'B'], ['c'])
    assert found.refused == {'train': {'b': 'its label is empty'}, 'val': {}}
    said = ['annotations have 3 labels, avid has 887; give all annotation files']
    assert caplog.messages == said
    read_annotations('avid', [train, val], classes=3)
    assert caplog.messages == said


def test_rows_of_one_video(write):
    lines = [
        'x,abcdefghijk,1,11,train',
        'x,abcdefghijk,1,11,train',  # the same
        'x,bbcdefghijk,1,11,train',
        'y,bbcdefghijk,1,11,train',  # another label
        'x,cbcdefghijk,1,11,train',
        'x,cbcdefghijk,2,12,train',  # another clip
    ]
    found = read_annotations('kinetics400', [write('a.csv', HEADER, *lines)], classes=2)
    clips = ['cbcdefghijk_000001_000011', 'cbcdefghijk_000002_000012']
    assert ids(found, 'train') == ['abcdefghijk_000001_000011', *clips]
    assert found.duplicates == {'train': ('abcdefghijk_000001_000011',)}
    assert found.refused == {'train': {'bbcdefghijk_000001_000011': 'annotated twice, differently'}}
    pairs = [('a.mp4', 'x'), ('b.mp4', 'x'), ('a.mp4', 'x'), ('b.mp4', 'y')]
    found = read_annotations('avid', [write('avid_train.json', *pairs)], classes=2)
    assert (ids(found, 'train'), found.duplicates) == (['a'], {'train': ('a',)})
    assert found.refused == {'train': {'b': 'annotated twice, differently'}}


def test_ids_that_are_no_file_names(write):
    bad = ['../../x', 'a/b', 'a\\b', 'a\0b', '.', '..', '']
    pairs = [*((name, 'x') for name in bad), ('-a.mp4', 'x'), ('-A.mp4', 'x')]
    found = read_annotations('avid', [write('avid_train.json', *pairs)], classes=1)
    assert found.refused['train'] == dict.fromkeys(bad, 'its id is no file name')
    assert ids(found, 'train') == ['-a', '-A']
    found = read_annotations('kinetics400', [write('a.csv', HEADER, 'x,../../x,1,2,val')], 1)
    assert found.refused['val'] == {'../../x_000001_000002': 'its id is no file name'}


@pytest.mark.parametrize(
    ('name', 'lines', 'message'),
    [
        ('a.csv', ['label,youtube_id,split'], 'a.csv has no column time_start, time_end; give an'),
        ('a.csv', [''], 'a.csv has no column youtube_id, time_start, time_end'),
        ('a.csv', [HEADER], 'a.csv has no video'),
        ('a.csv', [HEADER, 'x,a,1,2'], 'a.csv:2 has fewer columns than the header'),
        ('a.csv', [HEADER, 'x,a,one,2,train'], "a.csv:2 has the time 'one'; use seconds"),
        ('a.csv', [HEADER, 'x,a,1,2,dev'], "a.csv:2 has the split 'dev'; use one of train"),
        ('a.csv', [HEADER, '" x",a,1,2,train'], "a.csv:2 has the label ' x'; use one line"),
        ('a.csv', [HEADER, '"x\ny",a,1,2,train'], r"a.csv:3 has the label 'x\ny'; use one line"),
        ('a.csv', [HEADER, '"x"y,a,1,2,train'], 'a.csv:2 is no CSV'),
        ('avid_val.json', [('a', ' x')], "avid_val.json: 'a' has the label ' x'; use one line"),
        ('avid_val.json', [('a', 3)], 'avid_val.json is not {"NAME.mp4": "LABEL"}'),
        ('avid_val.json', [('a', {'b': 'c'})], 'avid_val.json is not {"NAME.mp4": "LABEL"}'),
        ('avid_val.json', [], 'avid_val.json has no video; give another file'),
        ('mine.json', [('a', 'b')], 'mine.json does not say which split it is of; use SPLIT='),
        ('Charades_v1_test.csv', ['id,length'], 'Charades_v1_test.csv has no column actions'),
    ],
)
def test_files_that_do_not_fit(write, name, lines, message):
    kind = {'a.csv': 'kinetics400', 'Charades_v1_test.csv': 'charades'}.get(name, 'avid')
    with pytest.raises(ValueError, match=r'^[^\n]*$') as error:
        read_annotations(kind, [write(name, *lines)])
    assert message in str(error.value)


def test_what_is_given_does_not_fit(write, tmp_path):
    def error(name, *files, classes=None):
        with pytest.raises(ValueError, match=r'^[^\n]*$') as error:
            read_annotations(name, files, classes)
        return str(error.value)

    (tmp_path / 'x.csv').write_bytes(b'\xff\xfe')
    (tmp_path / 'x.json').write_text('{"a": ')
    file = write('a.csv', HEADER, *(f'{x},abcdefghij{x},1,2,train' for x in range(8)))
    assert 'x.csv is no text in UTF-8' in error('kinetics400', str(tmp_path / 'x.csv'))
    assert 'x.json is no JSON: ' in error('avid', f'val={tmp_path / "x.json"}')
    assert 'none.csv cannot be read: No such file' in error('avid', f'{tmp_path}/none.csv')
    assert 'a.csv is given a second time' in error('kinetics400', file, f'train={file}')
    assert "no set 'kinetics'; use one of kinetics400" in error('kinetics', file)
    assert 'names no split of charades; use train, test' in error('charades', f'val={file}')
    assert error('kinetics400', file) == (
        'annotations have 8 labels, kinetics400 has 400; give all annotation files, or --classes=8'
    )
    assert 'annotations have 8 labels, not 7; ' in error('kinetics600', file, classes=7)
    assert '157 labels, not 7' in error(
        'charades', 'test=' + write('b.csv', CHARADES, 'a,,,,'), classes=7
    )


@pytest.fixture
def find(write, tmp_path):
    """Annotates two clips of one YouTube id and one of another, and finds them among files."""
    lines = ['wash car,-aA_,1,11,train', 'wash car,-aA_,2,12,train', 'wash dog,-AA_,1,11,val']
    annotations = read_annotations('kinetics400', [write('a.csv', HEADER, *lines)], classes=2)

    def find(*paths):
        for path in (tmp_path / 'videos' / path for path in paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        files = Files(tmp_path / 'videos', annotations)
        return [answer(files, x) for split in ('train', 'val') for x in annotations.videos[split]]

    def answer(files, video):
        try:
            return str(files.find(video).relative_to(tmp_path / 'videos'))
        except ValueError as error:
            return error.args[0]

    return find


MISSING = 'its file is missing'


@pytest.mark.parametrize(
    ('first', 'second', 'other'),
    [
        ('-aA__000001_000011.mp4', '-aA__000002_000012.mkv', '-AA__000001_000011.WEBM'),
        ('wash car/-aA__000001_000011.mp4', 'wash_car/-aA__000002_000012.avi', MISSING),
        ('train/-aA__000001_000011.mp4', MISSING, 'val/wash dog/-AA__000001_000011.mov'),
        ('-aA__000001_000011.mp4', '-aA_.mp4', '-AA__000003_000013.mp4'),  # other times
    ],
)
def test_layouts(find, first, second, other):
    noise = ['-aa__000001_000011.mp4', '-AA__000001_000011.mp4.part', '.x/-AA__000001_000011.mp4']
    paths = [path for path in (first, second, other) if path != MISSING]
    assert find(*paths, *noise) == [first, second, other]


def test_several_files(find):
    one, two, other = '-aA__000001_000011.mp4', '-aA__000002_000012.mp4', '-AA__000001_000011.mp4'
    paths = [f'{a}/{one}' for a in ('train', 'test')] + [f'{a}/{two}' for a in ('wash_car', 'x')]
    assert find(*paths, f'a/{other}', f'b/{other}') == [
        f'train/{one}',
        f'wash_car/{two}',
        f'several files: a/{other}, b/{other}',
    ]


def test_a_file_is_of_one_video(find):
    other = '-aA__000007_000017.mp4'
    assert find(other) == [
        f'its file {other} is also that of train -aA__000002_000012',
        f'its file {other} is also that of train -aA__000001_000011',
        MISSING,
    ]
    assert find('-aA__000009_000019.mp4')[0] == (
        'several files: -aA__000007_000017.mp4, -aA__000009_000019.mp4'
    )


def test_links(find, tmp_path):
    clip = '-aA__000001_000011.mp4'
    (tmp_path / 'else').mkdir()
    (tmp_path / 'else' / clip).touch()
    (tmp_path / 'videos' / 'a').mkdir(parents=True)
    os.symlink(tmp_path / 'videos', tmp_path / 'videos' / 'a' / 'loop')
    os.symlink(tmp_path / 'else', tmp_path / 'videos' / 'a' / 'train')
    os.symlink(tmp_path / 'else' / clip, tmp_path / 'videos' / clip)
    os.symlink('nowhere.mp4', tmp_path / 'videos' / '-AA__000001_000011.mp4')
    assert find() == [f'a/train/{clip}', MISSING, MISSING]


def test_charades_frames_and_avid_names(write, tmp_path):
    root = tmp_path / 'videos'
    (root / 'rgb' / 'AAAAA').mkdir(parents=True)
    (root / 'rgb' / 'AAAAA' / 'AAAAA-000001.jpg').touch()
    (root / 'BBBBB').mkdir()
    (root / 'BBBBB' / 'BBBBB.mp4').touch()
    rows = [f'{id},,,,' for id in ('AAAAA', 'BBBBB')]
    found = read_annotations('charades', [write('Charades_v1_test.csv', CHARADES, *rows)])
    files = Files(root, found)
    paths = [files.find(video) for video in found.videos['test']]
    assert paths == [root / 'rgb' / 'AAAAA', root / 'BBBBB' / 'BBBBB.mp4']
    found = read_annotations('avid', [write('avid_val.json', ('BBBBB.mp4', 'x'))], classes=1)
    assert Files(root, found).find(found.videos['val'][0]) == paths[1]
    with pytest.raises(ValueError, match='none is no folder; name the folder of the videos'):
        Files(root / 'none', found)
