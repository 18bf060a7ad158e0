"""Pictures of where tokens look: of arrays, of a checkpoint's split, and of any files."""

import av
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageSequence

from configs import digits
from datasets.files import SPLIT, open_files
from tests.test_batch_norm import drawn_state
from tests.test_train import on
from trainers.checkpoints import open_checkpoints
from trainers.construct import UserError
from trainers.evaluators import make_evaluators
from trainers.experiment import make_experiment
from trainers.export import export
from trainers.pictures import animate_maps, draw_maps, write_animation
from trainers.predict import to_channels
from trainers.visualize import choose_maps, visualize, visualize_export

GREEN = np.array([20, 200, 20], np.uint8)


def saved(config, workdir):
    """An experiment with a checkpoint of any values."""
    experiment = on(make_experiment(config), 1)
    with open_checkpoints(workdir, experiment) as checkpoints:
        checkpoints.save(0, drawn_state(experiment))
        checkpoints.finish()
    return experiment, make_evaluators(experiment), workdir


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    config = digits.get_config('model=mini/14-2at1')
    return saved(config, tmp_path_factory.mktemp('images'))


def rendered(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def written(path):
    return np.asarray(Image.open(path).convert('RGB')).astype(int)


def texts(figure):
    return [text.get_text() for text in figure.texts]


def corner_maps(b, t, s):
    """Each token looks at a corner of its own: down the left side, then the right one."""
    maps = np.zeros((b, t, s, 2, 2), np.float32)
    for k in range(s):
        maps[:, :, k, k % 2, k // 2] = 1 + k
    return maps


def test_a_map_is_bright_where_its_token_looks():
    pixels = np.broadcast_to(GREEN, (2, 16, 16, 3))
    figure = draw_maps(pixels, corner_maps(2, 1, 2), ['cat', 'a $5 dog'], title='title')
    assert {'title', 'input', 'token 1', 'token 2', 'cat', 'a $5 dog'} <= set(texts(figure))
    picture = rendered(figure)
    top, left = (int(x[0]) for x in np.where((picture == GREEN).all(axis=-1)))
    assert (picture[top : top + 104, left : left + 104] == GREEN).all()  # pixel for pixel
    for k in range(2):
        token = picture[top : top + 104, left + (k + 1) * 110 :][:, :104].sum(axis=-1)
        corners = [token[4, 4], token[99, 4]]
        assert corners[k] > corners[1 - k] + 200
        assert token[4, 99] == token[99, 99] == corners[1 - k]  # least, on a scale of its own


def test_maps_cover_no_more_than_their_cells():
    pixels = np.zeros((1, 20, 20, 1), np.uint8)
    whole = rendered(draw_maps(pixels, corner_maps(1, 1, 1) + 1, ['']))
    part = rendered(draw_maps(pixels, corner_maps(1, 1, 1) + 1, [''], cell=(1, 8, 8)))
    assert whole.shape == part.shape
    blank = (part == 0).all(axis=-1).sum() - (whole == 0).all(axis=-1).sum()
    assert blank / 104**2 > 0.2  # the last 4 rows and columns of 20


def test_a_clip_is_a_block_whose_columns_are_frames():
    clips = np.zeros((2, 16, 8, 8, 1), np.uint8)
    clips[:, 8:] = 255
    figure = draw_maps(clips, corner_maps(2, 4, 2), ['one', 'two'], title='title')
    assert {'one', 'two', 'frame 1', 'frame 16', 'title; 8 of 16 frames'} <= set(texts(figure))
    assert 'frame 2' not in texts(figure)
    first, second = (axes.images[0].get_array() for axes in figure.axes[:2])
    np.testing.assert_array_equal(first, second)
    assert first.shape == (3 * 82 - 6, 8 * 82 - 6, 3)
    shown = first[4, 4::82].mean(axis=-1)
    np.testing.assert_array_equal(shown, [0] * 4 + [255] * 4)


def test_both_animations_show_the_same(tmp_path):
    clips = np.zeros((1, 4, 9, 15, 3), np.uint8)
    for k in range(4):
        clips[:, k, :, : 3 * k] = 255
    frames = list(animate_maps(clips, corner_maps(1, 2, 3), ['a'], title='t'))
    assert len(frames) == 4
    assert not any(length % 2 for length in frames[0].shape[:2])
    files = tmp_path / 'a.gif', tmp_path / 'a.mp4'
    write_animation(frames, 5, *files)
    with Image.open(files[0]) as gif:
        assert gif.info['duration'] == 200
        moved = [np.asarray(f.convert('RGB')).astype(int) for f in ImageSequence.Iterator(gif)]
    with av.open(str(files[1])) as film:
        stream = film.streams.video[0]
        assert (stream.average_rate, stream.codec_context.pix_fmt) == (5, 'yuv420p')
        filmed = [frame.to_ndarray(format='rgb24').astype(int) for frame in film.decode(stream)]
    for made, *others in zip(frames, moved, filmed, strict=True):
        assert all(np.abs(made - other).mean() < 4 for other in others)
    assert np.abs(frames[0].astype(int) - frames[3]).mean() > 4


@pytest.mark.parametrize(
    ('pixels', 'maps', 'captions', 'message'),
    [
        ((2, 8, 8), (2, 1, 2, 2, 2), 2, 'are not'),
        ((2, 8, 8, 3), (3, 1, 2, 2, 2), 2, '2 examples, 3 maps and 2 captions'),
        ((2, 8, 8, 3), (2, 2, 2, 2, 2), 2, 'maps of 2 times'),
    ],
)
def test_arrays_that_do_not_fit_are_refused(pixels, maps, captions, message):
    with pytest.raises(ValueError, match=message):
        draw_maps(np.zeros(pixels, np.uint8), np.zeros(maps), [''] * captions)


def test_any_layer_and_its_first_tokens_are_chosen():
    maps = {1: np.zeros((2, 1, 3, 4, 4)), 4: np.ones((2, 1, 5, 4, 4))}
    for layer, tokens, shape, what in (
        (None, None, (2, 1, 3, 4, 4), 'the 3 tokens of layer 1'),
        ('4', 2, (2, 1, 2, 4, 4), 'the first 2 of 5 tokens of layer 4'),
        ('4', 5, (2, 1, 5, 4, 4), 'the 5 tokens of layer 4'),
    ):
        chosen, said = choose_maps(maps, layer, tokens)
        assert (chosen.shape, said) == (shape, what)
        assert (chosen == (layer == '4')).all()
    for wrong, message in (
        (('0', None), r'--layer=0 has no maps; use one of 1, 4'),
        ((None, 4), r'--tokens=4 of layer 1, which has 3; use 1 to 3'),
        (('4', 0), r'--tokens=0'),
    ):
        with pytest.raises(UserError, match=message):
            choose_maps(maps, *wrong)


def test_files_are_drawn_as_the_split_would_be(images, tmp_path):
    experiment, evaluators, workdir = images
    split = experiment.eval_examples(experiment.data.dataset, 'test')
    expected = np.empty((2, *split.shape), np.uint8)
    files = [tmp_path / 'a 1.png', tmp_path / '<b>.png']
    for out, file, row in zip(expected, files, (3, 500), strict=True):
        split.sample(row, (0,)).draw(out)
        Image.fromarray(out[..., 0]).save(file)
    dataset = open_files(files, experiment.data.dataset.label_names, videos=False)
    examples = experiment.eval_examples(dataset, SPLIT)
    pixels = np.empty((2, *examples.shape), np.uint8)
    for out, row in zip(pixels, range(2), strict=True):
        sample = examples.sample(row, (0,))
        sample.draw(out)
        assert (sample.id, sample.label) == (files[row].name, -1)
    np.testing.assert_array_equal(to_channels(pixels, 1), expected)

    of_split = visualize(experiment, evaluators, workdir, count=1).read_bytes()
    drawn = written(visualize(experiment, evaluators, workdir, files, layer='1', tokens=1))
    assert (workdir / 'attention_maps.png').read_bytes() == of_split
    assert (np.ptp(drawn, axis=-1) > 60).mean() > 0.02  # heat over the digits, which are grey
    weights = export(experiment, workdir) / 'model.safetensors'
    exported = visualize_export(weights, files, tmp_path, tokens=1)
    np.testing.assert_array_equal(written(exported), drawn)


def test_files_that_cannot_be_drawn_are_told_of(images, tmp_path):
    text, still, half = (tmp_path / name for name in ('a.txt', 'b.png', 'c.png'))
    text.write_text('no picture')
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(still)
    half.write_bytes(still.read_bytes()[:2000])
    for file, message in (
        (tmp_path / 'none.png', r'none\.png cannot be read: No such file.*; name files'),
        (text, r'a\.txt is no image to use: '),
        (half, r'example c\.png cannot be read: damaged PNG'),
    ):
        with pytest.raises(UserError, match=message):
            visualize(*images, [file])
    for file, fps, message in (
        (still, 12, r'b\.png is no video to use: not a video file'),
        (tmp_path / 'none.mp4', 12, r'none\.mp4 is no video to use: it cannot be read'),
        (still, None, 'no frames a second'),
    ):
        with pytest.raises(ValueError, match=message):
            open_files([file], ['a'], videos=True, fps=fps)
