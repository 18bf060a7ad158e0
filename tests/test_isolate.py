"""Workers that decode, each video at its own risk: crashes, hangs, and what ends a run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datasets.files import SPLIT, open_files
from datasets.prepare.annotations import Annotated
from datasets.prepare.isolate import Failure, run_isolated
from datasets.prepare.shards import Settings, Shard, prepare_shards
from tests.conftest import run_script
from tests.decoders import crash_in_thirds, touch, troubled
from tests.test_decode import encode

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_decoder_that_crashes_or_hangs_costs_one_video(tmp_path):
    names = [
        '0',
        'segfault',
        'killed',
        '1',
        'hangs',
        'exit',
        'once killed',
        '2',
        'missing',
        'once late',
        'bug',
        '3',
    ]
    for name in names:
        if name.isdigit() or name.startswith('once'):
            encode(tmp_path / f'{name}.mp4', n=20, size=(48, 32))
    os.mkfifo(tmp_path / 'hangs.mp4')  # which blocks whoever opens it
    part = prepare_troubled(tmp_path, names)
    assert list(part['videos']) == names
    found = {
        name: video.get('failed', video.get('frames')) for name, video in part['videos'].items()
    }
    assert list(found.values()) == [
        10,
        'the decoder crashed: exit code -11',
        'the decoder crashed: exit code -9',
        10,
        'the decoder took more than 2 s',
        'the decoder crashed: exit code 0',
        10,
        10,
        'its file is missing',
        10,
        r"KeyError: 'two\nlines'",
        10,
    ]


def prepare_troubled(folder, names):
    """Prepares files of these names, 'missing' aside; the partial manifest."""
    videos = tuple(Annotated(name, 'val', 'a') for name in names)
    paths = (folder / f'{name}.mp4' for name in names)
    paths = tuple(Failure('its file is missing') if x.stem == 'missing' else x for x in paths)
    shard = Shard('avid_12fps', 'val', 0, 1, videos, paths)
    settings = Settings('avid', 12, 256, 85, 512, ())
    prepare_shards(folder, [shard], settings, processes=2, timeout=2, decode=troubled)
    return json.loads((folder / shard.part).read_text())


def test_files_of_one_s_own_are_decoded_apart(tmp_path, monkeypatch):
    monkeypatch.setattr('datasets.files.TIMEOUT', 2)
    sound, hangs = tmp_path / 'sound.mp4', tmp_path / 'hangs.mp4'
    encode(sound, n=20, size=(48, 32))
    os.mkfifo(hangs)  # which blocks whoever opens it
    opened = open_files([sound, sound], ['a'], videos=True, fps=12)
    assert opened.split(SPLIT).num_frames.tolist() == [10, 10]
    said = f'^{hangs} is no video to use: the decoder took more than 2 s$'
    with pytest.raises(ValueError, match=said):
        open_files([sound, hangs], ['a'], videos=True, fps=12)
    hangs.unlink()
    hangs.symlink_to('/proc/self/mem')  # where reading is an error of input and output
    with pytest.raises(ValueError, match=r'hangs\.mp4 could not be decoded: OSError: \[Errno 5'):
        open_files([hangs], ['a'], videos=True, fps=12)


def test_what_is_no_fault_of_a_video_ends_the_run(tmp_path):
    encode(tmp_path / '0.mp4', n=20, size=(48, 32))
    said = r'^\S+/memory.mp4 could not be decoded: MemoryError; put that right, or take the file'
    with pytest.raises(OSError, match=said):
        prepare_troubled(tmp_path, ['0', 'memory'])
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ['0.mp4']


@pytest.mark.slow
def test_crashes_leave_other_results_whole():
    found = list(run_isolated(crash_in_thirds, range(30), processes=2, timeout=60))
    assert set(found[::3]) == {Failure('the decoder crashed: exit code -11')}
    assert [len(x) - 1_000_000 for i, x in enumerate(found) if i % 3] == [
        i for i in range(30) if i % 3
    ]


def test_few_results_are_held(tmp_path):
    paths = [str(tmp_path / str(i)) for i in range(40)]
    results = run_isolated(touch, paths, processes=2, timeout=60)
    for number, result in enumerate(results):
        assert result == paths[number]
        time.sleep(0.01)
        assert len(list(tmp_path.iterdir())) <= number + 4


def test_a_worker_that_cannot_start(tmp_path):
    code = (
        'import sys\n'
        'from datasets.prepare.isolate import run_isolated\n'
        'def decode(x): return x\n'
        'if __name__ != "__main__": sys.exit(3)\n'
        'try: next(run_isolated(decode, [1], processes=1, timeout=9))\n'
        'except ChildProcessError as error: print(error)\n'
    )
    said = run_script(tmp_path, code)
    assert said.startswith('a worker process ended before its work: exit code 3; run the same')


def test_a_worker_does_not_outlive_its_parent(tmp_path):
    os.mkfifo(tmp_path / 'hangs.mp4')
    (tmp_path / 'script.py').write_text(
        'from datasets.prepare.isolate import run_isolated\n'
        'def decode(path):\n'
        '    print("started", flush=True)\n'
        '    open(path)\n'
        f'hangs = {str(tmp_path / "hangs.mp4")!r}\n'
        'if __name__ == "__main__":\n'
        '    list(run_isolated(decode, [hangs], processes=1, timeout=99))'
    )
    parent = subprocess.Popen(
        [sys.executable, tmp_path / 'script.py'],
        env=os.environ | {'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout.readline() == b'started\n'
        parent.kill()
        assert parent.stdout.read() == b''  # the worker has it open while it lives
