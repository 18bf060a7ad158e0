"""What the trainer does with videos: every mode, and what it refuses."""

import json
from itertools import pairwise

import av
import jax
import numpy as np
import pytest
from jax import export as jax_export
from ml_collections import ConfigDict
from PIL import Image, ImageSequence
from safetensors.numpy import load_file

from benchmarks.paper_tables import read_run
from configs import moving_digits
from datasets.files import SPLIT, open_files
from trainers.checkpoints import restore_trained
from trainers.construct import UserError
from trainers.evaluators import make_evaluators
from trainers.experiment import make_experiment
from trainers.export import export
from trainers.predict import predict, predict_files, to_channels
from trainers.train import train
from trainers.visualize import visualize, visualize_export

pytestmark = pytest.mark.slow


def small(several=False, **changes):
    config = moving_digits.get_config('several' if several else None)
    config.update({'total_steps': 2, 'batch_size': 16, **changes})
    config.schedule.warmup_epochs = 0.0
    config.model.spec = 'ViViT-mini/16x2-2at2'
    config.dataset.resolution = 32
    config.clip.frames = 4
    config.eval_every_epochs = 0.0
    config.evaluators.multiview.update(clips=2, crops=1)
    return make_experiment(config)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    workdir, experiment = tmp_path_factory.mktemp('videos'), small()
    results = train(experiment, make_evaluators(experiment), workdir)
    return experiment, workdir, results


def test_metrics_name_the_view(trained):
    metrics = trained[2]['metrics']
    assert metrics['moving_digits/test/top1@1x1_center']['n'] == 1000
    assert {name for name in metrics if '@1x1' in name} == {
        f'moving_digits/test/{name}@1x1_center' for name in ('top1', 'top5', 'loss')
    }
    assert metrics['moving_digits/test/top1@2x1_probs']['n'] == 1000


def test_several_labels_train_and_evaluate(tmp_path):
    experiment = small(several=True, mixup=0.2)
    results = train(experiment, make_evaluators(experiment), tmp_path)
    metrics = results['metrics']
    assert metrics['moving_digits/test/top1@1x1_center']['n'] == 1000
    assert {name for name in metrics if '2x1_' in name} == {
        f'moving_digits/test/{name}@2x1_{of}'
        for name in ('map', 'wap')
        for of in ('max', 'logits', 'probs')
    }
    assert 0.2 < metrics['moving_digits/test/map@2x1_max']['value'] < 0.5  # near 2 of 8, by chance


@pytest.fixture(scope='module')
def exported(trained):
    return export(*trained[:2])


def test_the_export_takes_clips_and_predicts_the_same(trained, exported, tmp_path):
    experiment, workdir, _ = trained
    evaluators, folder = make_evaluators(experiment), exported
    lines = predict(experiment, evaluators, workdir).read_text().splitlines()
    assert {path.name for path in folder.iterdir()} == {
        *('model.safetensors', 'program.jax_export', 'labels.txt')
    }
    batch = next(experiment.eval_batches(evaluators.first.dataset, 'test', 8))
    data = bytearray((folder / 'program.jax_export').read_bytes())
    program = jax_export.deserialize(data)
    logits = program.call(load_file(folder / 'model.safetensors'), batch['video'][:, 0])
    names = (folder / 'labels.txt').read_text().splitlines()
    for line, own in zip(map(json.loads, lines[:8]), np.asarray(logits), strict=True):
        best = max(line['predicted'], key=line['predicted'].get)
        np.testing.assert_allclose(
            line['predicted'][best], jax.nn.softmax(own)[names.index(best)], rtol=1e-4
        )
    with pytest.raises(UserError, match='is of a model of videos; predict with --workdir'):
        next(predict_files(folder / 'model.safetensors', [tmp_path / 'any.png']))


def film(path, frames, fps):
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=fps, options={'crf': '4'})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = 'yuv420p'
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, 'rgb24')))
        container.mux(stream.encode())


def test_video_files_are_drawn_as_the_split_would_be(trained, exported, tmp_path):
    experiment = trained[0]
    dataset, path = experiment.data.dataset, tmp_path / 'seven.mp4'
    video = dataset.split('test').read(7, range(32))
    film(path, [np.repeat(frame, 3, axis=-1) for frame in video.frames], dataset.fps)
    opened = open_files([path], dataset.label_names, videos=True, fps=dataset.fps)
    found, split = (experiment.eval_examples(*of) for of in ((opened, SPLIT), (dataset, 'test')))
    pixels = [np.empty(examples.shape, np.uint8) for examples in (found, split)]
    for out, examples, row in zip(pixels, (found, split), (0, 7), strict=True):
        examples.sample(row, (0,)).draw(out)
    assert pixels[1].std() > 20
    assert np.abs(to_channels(pixels[0], 1).astype(int) - pixels[1]).mean() < 3  # two codecs

    weights = exported / 'model.safetensors'
    gif = visualize_export(weights, [path, path], tmp_path, layer='2', tokens=1)
    assert {file.name for file in tmp_path.glob('attention_maps*')} == {
        f'attention_maps_of_files.{ending}' for ending in ('gif', 'mp4', 'png')
    }
    with Image.open(gif) as animation:
        assert animation.n_frames == 4


def test_maps_are_drawn_over_the_frames_of_clips(trained):
    experiment, workdir, _ = trained
    path = visualize(experiment, make_evaluators(experiment), workdir, count=3)
    with Image.open(path) as gif:
        assert gif.n_frames == 4
        frames = [np.asarray(f.convert('RGB')).astype(int) for f in ImageSequence.Iterator(gif)]
    assert all((np.ptp(frame, axis=-1) > 60).mean() > 0.02 for frame in frames)  # heat over grey
    assert all(np.abs(a - b).max() > 60 for a, b in pairwise(frames))


def test_clips_of_another_length_are_refused(trained):
    config = ConfigDict(trained[0].config)
    config.clip.frames = 8
    with pytest.raises(UserError, match=r'with clip\.frames=4, the config has 8'):
        restore_trained(trained[1], make_experiment(config))


def test_what_is_of_images_is_refused(trained):
    experiment, _, _ = trained
    first = dict(experiment.config['evaluators']['test'])
    fewshot = {
        **{'name': 'fewshot', 'datasets': {'dtd': ('train', 'test')}, 'data_dir': ''},
        **{'shots': (1,), 'share': 1.0, 'batch_size': 8, 'when': 'end', 'protocol': 'lsr_rank'},
    }
    for other, message in [
        ({**first, 'split': 'train', 'dataset': 'digits'}, 'has other classes'),
        (fewshot, 'few-shot evaluation is of images'),
    ]:
        with pytest.raises(UserError, match=message):
            make_evaluators(small(evaluators={'test': first, 'other': other}))


def test_the_paper_s_tables_read_the_results(trained):
    experiment, workdir, _ = trained
    assert read_run(workdir)['clip'] == (experiment.clip.frames, experiment.clip.stride)
