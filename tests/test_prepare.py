"""From real videos and an annotation to a prepared set: whole, shared out, killed, out of room."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from datasets.inspect import describe
from datasets.prepare.__main__ import main
from datasets.prepare.replacing import remove_left, replacing
from datasets.videos import load_videos, open_set
from tests.conftest import fill, run_script, small_disk
from tests.test_decode import encode

ROOT = Path(__file__).parents[1]
LABELS = ('"air" guitar, solo', "l'été", 'zumba')
IDS = {  # by split; the last one of `train` takes a while
    'train': ['-aaaaaaaaa0', '-AAAAAAAAA0', '_b', *(f'video{i}' for i in range(6)), 'slow'],
    'val': ['-v', 'v2'],
}
FAILED = {
    'train': {
        'both_000001_000011': 'its file is missing',
        'missing_000001_000011': 'its file is missing',
        '../../x_000001_000011': 'its id is no file name',
        'twice_000001_000011': 'annotated twice, differently',
    },
    'val': {
        'both_000001_000011': 'its file is missing',
        'empty_000001_000011': 'the file is empty',
        'cut_000001_000011': 'not a video file, or one that is cut off before its index',
    },
}


def row(name, split, label=LABELS[0]):
    quoted = label.replace('"', '""')
    return f'"{quoted}",{name},1,11,{split}'


@pytest.fixture(scope='module')
def kinetics(tmp_path_factory):
    """A folder with 12 videos, others that cannot be used, and the annotation of all."""
    root = tmp_path_factory.mktemp('kinetics')
    (root / 'videos').mkdir()
    rows = ['label,youtube_id,time_start,time_end,split']
    for split, ids in IDS.items():
        for i, name in enumerate(ids):
            rows.append(row(name, split, LABELS[i % 3]))
            size = (640, 480) if name == 'slow' else (48, 32)
            encode(root / 'videos' / f'{name}_000001_000011.mp4', n=10 + 15 * i, size=size)
    rows += [row('-v', 'val')]  # a second time
    rows += [row('both', split) for split in IDS]
    rows += [row(name, 'train') for name in ('missing', '../../x', 'twice')]
    rows += [row('twice', 'train', LABELS[1]), row('empty', 'val'), row('cut', 'val')]
    (root / 'videos' / 'empty_000001_000011.mp4').touch()
    whole = (root / 'videos' / 'slow_000001_000011.mp4').read_bytes()
    (root / 'videos' / 'cut_000001_000011.mp4').write_bytes(whole[: len(whole) // 2])
    (root / 'annotations.csv').write_text('\n'.join(rows) + '\n')
    return root


def flags(root, out, *more):
    return [
        'kinetics400',
        f'--annotations={root / "annotations.csv"}',
        f'--videos={root / "videos"}',
        f'--out={out}',
        '--classes=3',
        '--videos_per_file=4',
        '--processes=2',
        *more,
    ]


def error(capsys, *args):
    """The only line of the error that a command ends with."""
    capsys.readouterr()
    assert main(list(args)) == 1
    said = capsys.readouterr().err
    assert said.startswith('error: ')
    assert said.count('\n') == 1, said
    return said


def tree(folder):
    """The bytes of all files."""
    paths = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def same(one, other):
    a, b = tree(one), tree(other)
    assert list(a) == list(b)
    assert [name for name in a if a[name] != b[name]] == []
    return True


@pytest.fixture(scope='module')
def whole(kinetics, tmp_path_factory):
    """What an uninterrupted run makes."""
    out = tmp_path_factory.mktemp('whole')
    assert main(flags(kinetics, out)) == 0
    return out


def version(out):
    return out / 'kinetics400_25fps' / '1.0.0'


def manifest_of(out):
    return json.loads((version(out) / 'manifest.json').read_text())


def test_every_annotated_id_is_readable_or_failed(kinetics, whole, capsys):
    manifest = manifest_of(whole)
    for split, ids in IDS.items():
        found = manifest['splits'][split]
        assert found['annotated'] == len(ids) + len(FAILED[split])
        assert found['readable'] == len(ids)
        assert found['failed'] == FAILED[split]
    assert manifest['splits']['val']['duplicates'] == ['-v_000001_000011']
    assert manifest['in_several_splits'] == ['both_000001_000011']
    assert {'av', 'pillow'} == set(manifest['versions'])
    assert main(flags(kinetics, whole)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith('1.0.0 is finished already')
    assert said[1] == 'train: 14 videos annotated, 10 readable, 4 failed'
    assert said[2] == '  2: its file is missing'
    assert said[-1] == str(version(whole) / 'manifest.json')


def test_the_records(whole):
    dataset = load_videos('kinetics400', str(whole))
    assert dataset.label_names == tuple(sorted(LABELS))
    source, manifest = dataset.splits['train'], manifest_of(whole)['splits']['train']
    assert list(source.num_frames) == [10 + 15 * i for i in range(10)]
    assert source.num_annotated == manifest['annotated'] == 14
    assert manifest['frames'] == sum(source.num_frames)
    assert manifest['seconds'] == pytest.approx(manifest['frames'] / 25)
    for i, name in enumerate(IDS['train']):
        video = source.read(i, [0, int(source.num_frames[i]) - 1])
        assert video.id == f'{name}_000001_000011'
        np.testing.assert_allclose(video.times, [0, (9 + 15 * i) / 25], rtol=1e-6)
        ((label, start, end),) = video.actions
        assert (dataset.label_names[label], start) == (LABELS[i % 3], 0)
        assert end == pytest.approx((10 + 15 * i) / 25)
        assert video.frames[0].startswith(b'\xff\xd8')


def test_actions_are_as_annotated(tmp_path):
    actions = {'AAAAA': 'c001 0.00 0.50;c156 1.25 90.00;c001 0.70 0.20', 'BBBBB': ''}
    rows = ['id,objects,actions', *(f'{id},"a, ""b"";c",{text}' for id, text in actions.items())]
    (tmp_path / 'Charades_v1_test.csv').write_text('\n'.join(rows))
    for name in actions:
        encode(tmp_path / f'{name}.mp4', n=50, size=(48, 32))
    args = [f'--annotations={tmp_path / "Charades_v1_test.csv"}', f'--videos={tmp_path}']
    assert main(['charades', *args, f'--out={tmp_path}', '--processes=1', '--fps=6']) == 0
    source = load_videos('charades', str(tmp_path), fps=6).splits['test']
    found = [np.array(source.read(i, [11]).actions) for i in range(2)]
    np.testing.assert_allclose(found[0], [(1, 0, 0.5), (156, 1.25, 90), (1, 0.7, 0.2)], rtol=1e-6)
    assert found[1].size == 0
    text = (tmp_path / 'charades_6fps' / '1.0.0' / 'manifest.json').read_text()
    counts = json.loads(text)['splits']['test']
    assert {key: counts[key] for key in counts if key.startswith(('actions', 'unl'))} == {
        'unlabelled': 1,
        'actions': 3,
        'actions_past_the_end': 1,
        'actions_reversed': 1,
    }


def test_tfds_reads_it_without_tensorflow(whole, tmp_path):
    code = f"""
import sys
import tensorflow_datasets as tfds
source = tfds.builder_from_directory({str(version(whole))!r}).as_data_source('val')
for example in source:
    print(example['id'].decode(), example['part'], example['num_frames'], len(example['frames']),
          example['labels'][0].decode() == {LABELS[0]!r})
assert not {{'tensorflow', 'jax'}} & set(sys.modules)
"""
    lines = run_script(tmp_path, code).splitlines()
    assert lines == [
        '-v_000001_000011 0 10 10 True',
        'v2_000001_000011 0 25 16 False',
        'v2_000001_000011 1 25 9 False',
    ]


def test_the_manifest_has_the_hashes_of_the_files(whole):
    files = manifest_of(whole)['files']
    paths = sorted(version(whole).glob('*array_record*'))
    assert sorted(file['name'] for file in files) == [path.name for path in paths]
    for file in files:
        data = (version(whole) / file['name']).read_bytes()
        assert file['bytes'] == len(data)
        assert file['sha256'] == hashlib.sha256(data).hexdigest()
    splits = load_videos('kinetics400', str(whole)).splits.values()
    records = sum(-(-source.num_frames // 16).sum() for source in splits)
    assert sum(file['records'] for file in files) == records


def test_files_with_other_times(tmp_path, capsys):
    lengths = {'as_000001_000003': 50, 'moved_000007_000009': 50, 'bare': 70, 'whole': 80}
    (tmp_path / 'videos').mkdir()
    for name, n in lengths.items():
        encode(tmp_path / 'videos' / f'{name}.mp4', n=n, size=(48, 32))
    rows = [f'a,{name.partition("_")[0]},1,3,train' for name in lengths]
    head = 'label,youtube_id,time_start,time_end,split'
    (tmp_path / 'annotations.csv').write_text('\n'.join([head, *rows]))
    args = [x.replace('classes=3', 'classes=1') for x in flags(tmp_path, tmp_path)]
    assert main(args) == 0
    assert '  2 with other times than annotated, see other_times' in capsys.readouterr().out
    found = manifest_of(tmp_path)['splits']['train']
    assert found['other_times'] == {
        'moved_000001_000003': 'moved_000007_000009.mp4',
        'bare_000001_000003': 'bare.mp4',
    }
    assert found['failed'] == {
        'whole_000001_000003': 'its file whole.mp4 lasts 3.2 s, annotated are 2 s'
    }
    part = json.loads((version(tmp_path) / 'parts' / 'train-00000-of-00001.json').read_text())
    assert [video.get('file') for video in part['videos'].values()] == [
        None,
        'moved_000007_000009.mp4',
        'bare.mp4',
        None,
    ]
    prepared = open_set(version(tmp_path))
    assert any(', other_times 2' in line for line in describe(prepared, seed=0))


def start(*args):
    """The program as a process, in a group of its own with its workers."""
    command = [sys.executable, '-m', 'datasets.prepare', *args]
    out = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **out)


@pytest.mark.slow
def test_shards_side_by_side(kinetics, whole, tmp_path):
    args = flags(kinetics, tmp_path)
    processes = [start(*args, f'--shard={i}/3') for i in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert main([*args, '--merge']) == 0
    assert same(whole, tmp_path)


def test_shards_are_merged_to_what_one_run_makes(kinetics, whole, tmp_path, capsys):
    one = flags(kinetics, tmp_path)
    one[-1] = '--processes=1'
    assert main([*one, '--shard=1/2']) == 0
    message = error(capsys, *one, '--merge')
    assert 'lacks 3 of 5 files (kinetics400_25fps-train.array_record-00000-of-00003, ' in message
    assert 'run the same command without --merge, or with each --shard' in message
    with pytest.raises(ValueError, match='is not complete'):
        load_videos('kinetics400', str(tmp_path))
    assert main([*one, '--shard=0/2']) == 0
    assert main([arg for arg in [*one, '--merge'] if 'videos=' not in arg]) == 0
    assert same(whole, tmp_path)
    assert main([*one, '--merge']) == 0
    (version(tmp_path) / 'dataset_info.json').unlink()  # as if the merge had been killed
    assert main(one) == 0
    assert same(whole, tmp_path)


def test_a_part_whose_file_is_damaged_or_gone_is_made_again(kinetics, whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (version(tmp_path) / 'dataset_info.json').unlink()
    first, *_, last = sorted(version(tmp_path).glob('*array_record*'))
    first.unlink()
    last.write_bytes(last.read_bytes()[:-1])
    assert main(flags(kinetics, tmp_path)) == 0
    assert same(whole, tmp_path)


@pytest.mark.slow
def test_what_is_killed_goes_on(kinetics, whole, tmp_path):
    args = flags(kinetics, tmp_path)
    parts = version(tmp_path) / 'parts'
    process = start(*args)
    while process.poll() is None and not list(parts.glob('*.json')):
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 1 <= len(list(parts.glob('*.json'))) < 5
    for attempt in range(20):
        process = start(*args)
        try:
            assert process.wait(timeout=0.5 + 0.2 * attempt if attempt < 19 else None) == 0
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0
    assert same(whole, tmp_path)


@pytest.mark.slow
def test_two_equal_commands_do_not_meet(kinetics, whole, tmp_path):
    args = flags(kinetics, tmp_path)
    for more in ((), ('--merge',)):
        pair = [start(*args, *more) for _ in range(2)]
        assert [process.wait() for process in pair] == [0, 0]
        assert same(whole, tmp_path)
        (version(tmp_path) / 'dataset_info.json').unlink()


def test_only_what_nobody_writes_is_removed(tmp_path):
    process = subprocess.Popen([sys.executable, '-c', ''])
    process.wait()
    here = f'.a.{socket.gethostname()}'
    gone, live = f'{here}.{process.pid}.0.tmp', f'{here}.{os.getpid()}.0.tmp'
    elsewhere, old = '.a.elsewhere.1.0.tmp', '.b.tmp'
    for name in (gone, live, elsewhere, old):
        (tmp_path / name).touch()
    with replacing(tmp_path / 'a') as temporary, replacing(tmp_path / 'a') as other:
        temporary.write_text('a')
        other.write_text('a')
    assert {path.name for path in tmp_path.iterdir()} == {'a', live, elsewhere, old}
    (tmp_path / gone).mkdir()
    remove_left(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {'a', live}


@pytest.mark.parametrize('damage', ['', '{"settings": {', '{"a": 1}', '[1]'])
def test_damaged_manifests(kinetics, whole, tmp_path, capsys, damage):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (version(tmp_path) / 'manifest.json').write_text(damage)
    message = error(capsys, *flags(kinetics, tmp_path))
    assert '/manifest.json is gone or damaged; take dataset_info.json away too and run' in message
    (version(tmp_path) / 'dataset_info.json').unlink()
    other = version(tmp_path) / 'parts' / 'train-00003-of-00004.json'
    other.write_text(damage)
    said = f'{other} is damaged or of other videos; take it away, or use another --out'
    assert said in error(capsys, *flags(kinetics, tmp_path))
    other.unlink()
    (version(tmp_path) / 'parts' / 'train-00001-of-00003.json').write_text(damage)
    assert 'lacks 1 of 5 files' in error(capsys, *flags(kinetics, tmp_path), '--merge')
    assert main(flags(kinetics, tmp_path)) == 0
    assert same(whole, tmp_path)


def test_annotation_files_in_another_order(tmp_path, capsys):
    (tmp_path / 'videos').mkdir()
    for name in 'abcd':
        encode(tmp_path / 'videos' / f'{name}.mp4', n=5, size=(48, 32))
        (tmp_path / f'{name}.json').write_text(f'{{"{name}.mp4": "{name}"}}')
    (tmp_path / 'avid_val.json').write_text('{"d.mp4": "d"}')
    train = [f'train={tmp_path}/{name}.json' for name in 'abc']
    val = f'{tmp_path}/avid_val.json'

    def args(out, *files):
        where = [f'--videos={tmp_path / "videos"}', f'--out={tmp_path / out}', '--processes=1']
        return ['avid', '--annotations', *files, *where, '--classes=4', '--videos_per_file=2']

    assert main([*args('one', *train, val), '--shard=0/1']) == 0
    swapped = [*args('one', train[1], train[0], train[2], val), '--shard=0/1']
    message = error(capsys, *swapped)
    assert 'of other videos or in another order; give the annotation files in the same' in message
    assert main([*args('one', f'val={val}', *train), '--merge']) == 0
    assert main([*args('two', f'val={val}', *train), '--shard=0/2']) == 0
    assert main([*args('two', *train, val), '--shard=1/2']) == 0
    assert main([*args('two', val, *train), '--merge']) == 0
    assert same(tmp_path / 'one', tmp_path / 'two')


def test_what_was_made_otherwise_is_refused(kinetics, whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    other = tmp_path / 'other.csv'
    other.write_text((kinetics / 'annotations.csv').read_text() + '\n')
    args = flags(kinetics, tmp_path)
    elsewhere = [f'--annotations={other}' if 'annot' in arg else arg for arg in args]
    for finished in (True, False):
        if not finished:
            (version(tmp_path) / 'dataset_info.json').unlink()
        before = tree(tmp_path)
        message = error(capsys, *args, '--quality=90')
        assert 'was made with quality=85; use the same, or another --out' in message
        assert 'made with videos_per_file=4' in error(capsys, *args, '--videos_per_file=512')
        assert 'from other annotation files; use another --out' in error(capsys, *elsewhere)
        assert tree(tmp_path) == before


def test_flags_that_cannot_be(kinetics, tmp_path, capsys):
    args = flags(kinetics, tmp_path)
    (tmp_path / 'none').mkdir()
    nowhere = [f'--videos={tmp_path / "none"}' if 'videos=' in arg else arg for arg in args]
    message = error(capsys, *nowhere)
    assert 'none has no file of an annotated video; use another --videos' in message
    without = [arg for arg in args if '--videos=' not in arg]
    for wrong in (
        [*args, '--shard=2/2'],
        [*args, '--fps=0'],
        [*args, '--quality=101'],
        [*args, '--fp=3'],
        without,
    ):
        with pytest.raises(SystemExit):
            main(wrong)
    assert list(tmp_path.iterdir()) == [tmp_path / 'none']
    for flag, reason in {
        '--fps=abc': 'abc is no whole number; use one',
        '--fps=0': '0 is not possible; use 1 or more',
        '--quality=8.5': '8.5 is no whole number; use one',
        '--quality=101': '101 is not possible; use 1 to 100',
    }.items():
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main([*args, flag])
        assert capsys.readouterr().err.endswith(f'{flag.partition("=")[0]}: {reason}\n')


def test_a_set_without_a_readable_video(tmp_path, capsys):
    (tmp_path / 'videos').mkdir()
    (tmp_path / 'videos' / 'a_000001_000011.mp4').touch()
    head = 'label,youtube_id,time_start,time_end,split'
    (tmp_path / 'annotations.csv').write_text(f'{head}\n{row("a", "val")}\n')
    args = [x.replace('classes=3', 'classes=1') for x in flags(tmp_path, tmp_path / 'out')]
    assert 'no video is readable, the first as ' in error(capsys, *args)
    assert not list((tmp_path / 'out').rglob('dataset_info.json'))


def test_a_split_without_a_readable_video_is_in_the_manifest_only(kinetics, tmp_path):
    text = (kinetics / 'annotations.csv').read_text().splitlines()
    rows = [line for line in text if not line.endswith(',val')] + [row('empty', 'val')]
    (tmp_path / 'annotations.csv').write_text('\n'.join(rows))
    (tmp_path / 'videos').symlink_to(kinetics / 'videos')
    out = tmp_path / 'out'
    assert main(flags(tmp_path, out)) == 0
    assert manifest_of(out)['splits']['val']['readable'] == 0
    splits = json.loads((version(out) / 'dataset_info.json').read_text())['splits']
    assert [split['name'] for split in splits] == ['train']
    assert np.load(version(out) / 'val.index.npy').shape == (0, 2)


def test_a_full_disk(kinetics, whole, tmp_path, capsys):
    args = flags(kinetics, tmp_path / 'disk')
    first, second, *_ = [path.stat().st_size for path in sorted(version(whole).glob('*record-*'))]
    with small_disk(tmp_path / 'disk', first + second // 2) as disk:
        message = error(capsys, *args)
        assert '.array_record-00001-of-00003 could not be written: ' in message
        assert 'No space left on device; make room' in message
        files = {path.name for path in version(disk).rglob('*') if path.is_file()}
        first = 'kinetics400_25fps-train.array_record-00000-of-00003'
        assert files == {first, 'train-00000-of-00003.json'}
        subprocess.run(['mount', '-o', 'remount,size=32m', disk], check=True)
        assert main([*args, '--shard=0/1']) == 0
        fill(disk / 'ballast')
        assert 'No space left on device; make room' in error(capsys, *args, '--merge')
        assert not list(disk.rglob('dataset_info.json')) + list(disk.rglob('*.tmp'))
        (disk / 'ballast').unlink()
        assert main(args) == 0
        assert same(whole, disk)


def test_a_disk_that_fails_ends_the_run(kinetics, whole, tmp_path, capsys):
    shutil.copytree(kinetics, tmp_path / 'of')
    sound = tmp_path / 'of' / 'videos' / '_b_000001_000011.mp4'
    aside = sound.rename(tmp_path / 'aside')
    sound.symlink_to('/proc/self/mem')  # where reading is an error of input and output
    args = flags(tmp_path / 'of', tmp_path / 'out')
    message = error(capsys, *args)
    assert '/_b_000001_000011.mp4 could not be decoded: OSError: [Errno 5] Input/output' in message
    sound.unlink()
    aside.rename(sound)
    assert main(args) == 0
    assert same(whole, tmp_path / 'out')


def test_nothing_heavy_is_loaded(tmp_path):
    code = (
        'import sys, datasets.prepare.__main__\n'
        'print({"jax", "grain", "tensorflow", "ml_collections", "apache_beam"} & set(sys.modules))'
    )
    assert run_script(tmp_path, code) == 'set()\n'
