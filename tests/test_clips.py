"""Clips of moving digits: which frames, which views, which labels, and in which order."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets import load_dataset
from datasets.clips import Clip, EvalClips, TrainClips, Views
from datasets.dataset import Action, Dataset, Unreadable, Video
from datasets.geometry import CenterCrop, JitterCrop, Resize
from datasets.pipeline import Reading, eval_batches, train_batches

NOW = Reading(threads=0)
FPS = 10


LABEL = (Action(2, 0.0, 9.0),)


class Numbered:
    """Videos of given lengths; the brightness of a frame is its number."""

    def __init__(self, lengths, actions=(), size=(8, 12)):
        self.num_frames = np.array(lengths)
        self._actions, self._size = actions, size

    def __len__(self):
        return len(self.num_frames)

    def read(self, index, frames):
        if self.num_frames[index] == 13:
            raise Unreadable('an unlucky number')
        self.asked = list(frames)
        across = np.arange(self._size[1], dtype=np.uint8)  # beside it the column
        pictures = [
            np.stack([np.full(self._size, n, np.uint8), np.tile(across, (self._size[0], 1))], -1)
            for n in frames
        ]
        return Video(f'v{index}', pictures, np.array(frames) / FPS, tuple(self._actions))


def dataset_of(source, max_labels=None):
    return Dataset('numbered', tuple('abcdef'), 2, {'all': source}, max_labels, videos=True)


def frames_of(video):
    """Numbers of the frames in clips [..., t, h, w, channels]."""
    return video[..., 0, 0, 0].tolist()


def train_clips(source, *clip, max_labels=None, geometry=None):
    clip = Clip(*clip)
    return TrainClips(dataset_of(source, max_labels), 'all', geometry or Resize(8), clip)


def drawn(examples, index, seed=(0,)):
    sample, out = examples.sample(index, seed), np.empty(examples.shape, np.uint8)
    sample.draw(out)
    return sample, out


def test_a_clip_begins_anywhere_and_keeps_its_stride():
    examples, starts = train_clips(Numbered([20], LABEL), 4, 3, 'video'), set()
    for seed in range(300):
        found = frames_of(drawn(examples, 0, (seed,))[1])
        assert np.diff(found).tolist() == [3, 3, 3]
        starts.add(found[0])
    assert starts == set(range(11))  # the last of them ends with frame 19


def test_a_short_video_is_looped_and_each_of_its_frames_read_once():
    source = Numbered([5], LABEL)
    assert frames_of(drawn(train_clips(source, 4, 2, 'video'), 0)[1]) == [0, 2, 4, 1]
    assert source.asked == [0, 1, 2, 4]
    source.num_frames = np.array([1])
    assert frames_of(drawn(train_clips(source, 4, 2, 'video'), 0)[1]) == [0, 0, 0, 0]
    assert source.asked == [0]


def test_a_video_shorter_than_a_tubelet_cannot_be_used():
    dataset, clip = dataset_of(Numbered([1, 2, 3], LABEL)), Clip(4, 2, 'video')
    to_train = TrainClips(dataset, 'all', Resize(8), clip, least_frames=3)
    to_evaluate = EvalClips(dataset, 'all', Resize(8), clip, Views(), least_frames=3)
    for examples in (to_train, to_evaluate):
        for index, found in enumerate(('1 frame', '2 frames')):
            message = f'it has {found}, fewer than the 3 of a tubelet'
            with pytest.raises(Unreadable, match=message):
                examples.sample(index, (0,))
        assert set(np.ravel(frames_of(drawn(examples, 2)[1]))) <= {0, 1, 2}


def test_a_clip_has_the_labels_that_overlap_it_ends_included():
    actions = [Action(3, 0.0, 0.4), Action(1, 1.0, 2.0), Action(3, 0.1, 0.2), Action(5, 3.0, 99.0)]
    examples = train_clips(Numbered([40], actions), 4, 1, 'overlap', max_labels=4)
    seen = {}
    for seed in range(400):
        sample, clip = drawn(examples, 0, (seed,))
        seen[frames_of(clip)[0]] = sample.label
    assert {k: seen[k] for k in (4, 5, 6, 7, 20, 21, 26, 27, 36)} == {
        **{4: [3], 5: [], 6: [], 7: [1], 20: [1], 21: [], 26: [], 27: [5], 36: [5]}
    }
    whole = train_clips(Numbered([40], actions), 4, 1, 'video', max_labels=4)
    assert drawn(whole, 0)[0].label == [1, 3, 5]


def test_a_video_without_label_is_neither_trained_on_nor_scored():
    with pytest.raises(Unreadable, match='it has no label to train on'):
        train_clips(Numbered([9]), 2, 1, 'video').sample(0, (0,))
    late = Numbered([9], [Action(1, 5.0, 6.0)])
    assert train_clips(late, 2, 1, 'video').sample(0, (0,)).label == 1
    with pytest.raises(Unreadable, match='it has no label to train on'):
        train_clips(late, 2, 1, 'overlap').sample(0, (0,))
    assert eval_clips([9], Views()).sample(0, (0,)).label == -1


def test_a_video_with_several_labels_where_each_has_one_cannot_be_used():
    source = Numbered([9], [Action(1, 0.0, 9.0), Action(2, 0.0, 9.0), Action(1, 2.0, 3.0)])
    evaluated = EvalClips(dataset_of(source), 'all', Resize(8), Clip(2, 1, 'video'), Views())
    for examples in (train_clips(source, 2, 1, 'video'), evaluated):
        with pytest.raises(Unreadable, match='it has 2 labels, where each video of the set has'):
            examples.sample(0, (0,))
    twice = Numbered([9], LABEL * 2)
    assert train_clips(twice, 2, 1, 'video').sample(0, (0,)).label == 2


def test_frames_of_other_channels_than_the_set_s_cannot_be_used():
    dataset = Dataset('numbered', tuple('abcdef'), 3, {'all': Numbered([9], LABEL)}, videos=True)
    clips = TrainClips(dataset, 'all', Resize(8), Clip(2, 1, 'video'))
    with pytest.raises(Unreadable, match='its number of channels is 2, that of the dataset 3'):
        drawn(clips, 0)


@pytest.mark.parametrize(
    ('length', 'clips', 'starts'),
    [
        (250, 4, [0, 62, 124, 186]),  # int(linspace(0, 250 - 64, 4)), as in the released code
        (250, 1, [93]),
        (64, 4, [0, 0, 0, 0]),
        (10, 4, [0, 0, 0, 0]),
        (10, 1, [0]),
        (200, None, [0, 64, 128, 136]),
        (128, None, [0, 64]),
        (30, None, [0]),
    ],
)
def test_views_begin_where_the_protocol_says(length, clips, starts):
    assert Views(clips).starts(length, span=64).tolist() == starts


def eval_clips(lengths, views, size=(8, 12), frames=2):
    dataset = dataset_of(Numbered(lengths, size=size))
    return EvalClips(dataset, 'all', CenterCrop(8, share=1.0), Clip(frames, 1, 'overlap'), views)


def test_crops_go_along_the_long_side():
    (batch,) = eval_batches(eval_clips([4], Views(1, 3), (8, 13)), batch_size=1, reading=NOW)
    assert batch['video'].shape == (1, 3, 2, 8, 8, 2)
    assert batch['video'][0, :, 0, 0, 0, 1].tolist() == [0, 3, 5]  # the middle one rounded up
    tall = CenterCrop(8, share=0.5).crops(20, 8, 3)
    assert [(box.top, box.left, box.height) for box in tall] == [(0, 2, 4), (8, 2, 4), (16, 2, 4)]
    with pytest.raises(ValueError, match='3 crops need'):
        EvalClips(dataset_of(Numbered([4])), 'all', Resize(8), Clip(2, 1, 'video'), Views(crops=3))


@pytest.mark.parametrize('shares', [1, 2, 4])
@pytest.mark.parametrize('clips', [1, 3, None])
def test_every_view_of_every_video_comes_once(clips, shares):
    lengths = [9, 2, 13, 1, 30]
    examples = eval_clips(lengths, Views(clips, 2))
    seen = []
    for share in range(shares):
        reading = Reading(threads=0, share=share, shares=shares, max_unreadable=1.0)
        for batch in eval_batches(examples, batch_size=4, reading=reading):
            there = (batch['mask'] + batch['unreadable']) > 0
            rows = zip(batch['video_number'], batch['clip_number'], batch['mask'], strict=True)
            seen += [row for row, real in zip(rows, there, strict=True) if real]
    counts = [len(Views(clips).starts(n, 2)) for n in lengths]
    assert examples.clips_of.tolist() == counts
    assert sorted((v, c) for v, c, _ in seen) == [
        (v, c) for v, n in enumerate(counts) for c in range(n)
    ]
    assert {int(v) for v, _, mask in seen if not mask} == {2}  # the one that cannot be read


def test_scale_jitter_is_that_of_the_recipe():
    geometry = JitterCrop(224)
    boxes = [geometry.box(256, 340, (seed,)) for seed in range(2000)]
    for box in boxes:
        assert 0 <= box.top <= 256 - box.height
        assert 0 <= box.left <= 340 - box.width
    factors = 224 / np.array([(b.height, b.width) for b in boxes])
    assert factors.min() > 0.895
    assert factors.max() < 1.338
    np.testing.assert_allclose(factors.mean(0), (0.9 + 1.33) / 2, atol=0.01)
    assert abs(np.corrcoef(factors.T)[0, 1]) < 0.1  # height and width each have their own
    still = JitterCrop(224, prob_scale_jitter=0.0).box(512, 680, (1,))
    assert (still.height, still.width) == (448, 448)
    for bad, message in [
        ({'scale_min_factor': 2.0}, 'the smaller first'),
        ({'min_resize': 230}, 'a square of 224 does not fit'),
        (
            {'min_resize': 200, 'scale_min_factor': 1.2, 'prob_scale_jitter': 0.5},
            'does not fit min_resize=200 by a factor of 1.0',
        ),
        ({'prob_scale_jitter': 1.5}, 'use 0 to 1'),
    ]:
        with pytest.raises(ValueError, match=message):
            JitterCrop(224, **bad)


def test_bad_clips_and_views_are_refused():
    for bad, message in [
        ((0, 1, 'video'), 'frames=0 is too small'),
        ((2, 0, 'video'), 'stride=0 is too small'),
        ((2, 1, 'clip'), "label_mode='clip' is not known; use one of video, overlap"),
    ]:
        with pytest.raises(ValueError, match=message):
            Clip(*bad)
    for views in [(-1, 1), (0, 1), (1, 0)]:
        with pytest.raises(ValueError, match='are no views'):
            Views(*views)


def test_all_frames_of_a_clip_are_cut_alike_and_clips_differently():
    source = Numbered([30], LABEL, size=(20, 30))
    examples = train_clips(source, 3, 1, 'video', geometry=JitterCrop(8, 12, 0.8, 1.2))
    lefts = set()
    for seed in range(20):
        clip = drawn(examples, 0, (seed,))[1]
        assert (clip[:1, :, :, 1] == clip[..., 1]).all()
        lefts.add(int(clip[0, 0, 0, 1]))
    assert len(lefts) > 5


RUN = """
import sys, time
from absl import app
from datasets import load_dataset
from datasets.clips import Clip, TrainClips
from datasets.geometry import JitterCrop
from datasets.pipeline import Reading, train_batches
def main(argv):
    workers, start, steps = map(int, argv[1:4])
    digits = load_dataset('moving_digits')
    examples = TrainClips(digits, 'test', JitterCrop(32, 40), Clip(4, 2, 'video'))
    batches = train_batches(examples, batch_size=48, seed=1, start_step=start,
                            reading=Reading(workers=workers))
    for step, batch in zip(range(start, steps), batches):
        print(step, ' '.join(batch['id']), batch['video'].sum(), flush=True)
if __name__ == '__main__':
    app.run(main)
"""


@pytest.mark.slow
def test_a_kill_in_mid_epoch_with_worker_processes_changes_no_sample(tmp_path):
    """1,000 videos in batches of 48: 24 batches are an epoch and a bit."""
    (tmp_path / 'run.py').write_text(RUN)

    def start(*args):
        env = os.environ | {'PYTHONPATH': str(Path(__file__).parents[1])}
        command = [sys.executable, tmp_path / 'run.py', *map(str, args)]
        return subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    with start(0, 0, 24) as whole:
        expected = whole.stdout.read().splitlines()
    with start(2, 0, 24) as killed:
        lines = [killed.stdout.readline().rstrip() for _ in range(7)]
        os.killpg(killed.pid, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    with start(3, 7, 24) as resumed:  # of another number of workers, as it may be
        lines += resumed.stdout.read().splitlines()
    assert len(expected) == 24
    assert lines == expected
    ids = [name for line in expected for name in re.findall(r'mnist5k/\d+', line)]
    assert len(set(ids[:1000])) == 1000


def test_train_batches_of_clips_have_the_contract_s_types():
    digits = load_dataset('moving_digits', several=True)
    examples = TrainClips(digits, 'test', Resize(32), Clip(4, 2, 'overlap'))
    batch = next(train_batches(examples, batch_size=6, seed=0, reading=NOW))
    assert batch['video'].shape == (6, 4, 32, 32, 1)
    assert batch['video'].dtype == np.uint8
    assert batch['labels'].shape == (6, 3)
    assert batch['mask'].tolist() == [1] * 6
