import numpy as np
import pytest

from datasets import load_dataset
from datasets.moving_digits import MOTIONS, Motion, draw_motions, draw_path

ONE = load_dataset('moving_digits')
SEVERAL = load_dataset('moving_digits', several=True)
FORMS = pytest.mark.parametrize('dataset', [ONE, SEVERAL], ids=['one', 'several'])


def whole(source, index):
    return source.read(index, range(source.num_frames[index]))


def path(motions, num_frames=32, seed=0):
    return draw_path(np.random.default_rng(seed), motions, num_frames, (64, 64))


def centres(places):
    """Of the digit, x and y, and how large it is."""
    scales = places[:, 0, 0]
    return np.column_stack([places[:, :, 2] + 13.5 * scales[:, None], scales])


@FORMS
def test_a_frame_is_the_same_whichever_are_asked_for(dataset):
    source = dataset.split('test')
    everything = whole(source, 5)
    asked = [7, 3, 3, 31]
    some = source.read(5, asked)
    assert some[3] == everything[3] == whole(source, 5)[3]
    np.testing.assert_array_equal(some.times, np.array(asked) / 12)
    np.testing.assert_array_equal(some.frames, [everything.frames[t] for t in asked])
    assert everything.frames[0].shape == (64, 64, 1)
    assert everything.frames[0].dtype == np.uint8
    assert len({frame.tobytes() for frame in everything.frames}) > 16


@FORMS
def test_splits_have_digits_and_paths_of_their_own(dataset):
    read = {
        split: [source.read(i, [0]) for i in range(len(source))]
        for split, source in dataset.splits.items()
    }
    assert {split: len(videos) for split, videos in read.items()} == {'train': 4000, 'test': 1000}
    assert len({video.id for videos in read.values() for video in videos}) == 5000
    first = [videos[0].frames[0] for videos in read.values()]
    assert np.any(first[0] != first[1])


@pytest.mark.parametrize('label', range(0, len(MOTIONS), 2))
def test_a_motion_backwards_is_its_opposite(label):
    for seed in range(20):
        there, back = (path([Motion(x, 0, 32)], seed=seed) for x in (label, label + 1))
        assert np.ptp(there, axis=0).max() > 0.2
        np.testing.assert_allclose(there[::-1], back, atol=1e-9)


def test_several_motions_backwards_are_their_opposites():
    for seed in range(20):
        motions = draw_motions(np.random.default_rng(seed), 4, 96)
        mirrored = [Motion(label ^ 1, 96 - end, 96 - begin) for label, begin, end in motions]
        np.testing.assert_allclose(path(motions, 96)[::-1], path(mirrored, 96), atol=1e-9)


def test_motions_go_where_their_names_say():
    found = {name: centres(path([Motion(i, 0, 32)])) for i, name in enumerate(MOTIONS)}
    moves = {name: c[-1] - c[0] for name, c in found.items()}
    assert moves['left'][0] < -10 < 10 < moves['right'][0]
    assert moves['up'][1] < -10 < 10 < moves['down'][1]  # y goes down
    assert moves['shrinks'][2] < -0.2 < 0.2 < moves['grows'][2]
    for name, sign in [('clockwise', 1), ('counterclockwise', -1)]:
        (x0, x1), (y0, y1) = np.diff(found[name][:3, :2], axis=0).T
        assert sign * (x0 * y1 - x1 * y0) > 0


def test_digits_stay_on_the_canvas():
    source = SEVERAL.split('test')
    for index in range(0, 200, 3):
        ink = [np.count_nonzero(frame > 99) for frame in whole(source, index).frames]
        assert min(ink) > 10


def test_labels_are_balanced_and_intervals_inside_the_video():
    source = ONE.split('test')
    actions = [source.read(i, [0]).actions for i in range(1000)]
    assert {(a.start, a.end) for (a,) in actions} == {(0, 32 / 12)}
    assert set(np.bincount([a.label for (a,) in actions])) == {125}
    source = SEVERAL.split('test')
    actions = [source.read(i, [0]).actions for i in range(1000)]
    assert {len(found) for found in actions} == {1, 2, 3}
    assert max(map(len, actions)) == SEVERAL.max_labels
    counts = np.bincount([a.label for found in actions for a in found])
    assert len(counts) == 8
    assert counts.min() > 200
    for found in actions:
        assert len({a.label // 2 for a in found}) == len(found)
        assert all(0 <= a.start < a.end - 1.9 and a.end <= 8 for a in found)


def test_a_data_directory_is_refused():
    with pytest.raises(ValueError, match='leave data_dir empty'):
        load_dataset('moving_digits', '/data')
