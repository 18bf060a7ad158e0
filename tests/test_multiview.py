"""Videos in several views: what is averaged and counted, on any machine, and the files of it."""

import csv
import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from configs import moving_digits
from datasets.dataset import Dataset, Unreadable
from tests.test_processes import Pair
from trainers.construct import UserError
from trainers.evaluate import evaluate
from trainers.evaluators import make_evaluators
from trainers.experiment import make_experiment
from trainers.metrics import Metric, belongs, count_names
from trainers.multiview import MultiView
from trainers.state import abstract_state
from trainers.train import train
from trainers.video_scores import VideoScores, average_clips, measure, write_scores, write_tables

NAMES = tuple('abcdefg')


def rows(*clips, size=None):
    """A batch of clips (video, clip, logits, probabilities, label), the last place first.

    None as logits is a clip that cannot be read; up to `size` it is filled up with padding.
    """
    blank = [0.0] * len(NAMES)
    filled = [*clips, *[clips[-1]] * ((size or len(clips)) - len(clips))]
    real = np.arange(len(filled)) < len(clips)
    read = np.array([clip[2] is not None for clip in filled])
    batch = {
        'video_number': np.array([clip[0] for clip in filled], np.int32),
        'clip_number': np.array([clip[1] for clip in filled], np.int32),
        'logits': np.array([clip[2] or blank for clip in filled], np.float32),
        'probs': np.array([clip[3] or blank for clip in filled], np.float32),
        'labels': np.array([[clip[4]] for clip in filled], np.int32),
        'place': np.arange(len(filled), dtype=np.int32),
        'mask': np.float32(real & read),
        'unreadable': np.float32(real & ~read),
    }
    return {key: values[::-1] for key, values in batch.items()}


def ones(*places):
    return [float(i in places) for i in range(len(NAMES))]


def test_clips_are_averaged_and_a_video_with_one_that_cannot_be_read_is_left_out():
    batches = [
        rows(
            (0, 0, ones(1), ones(2), 3), (0, 1, ones(1, 4), ones(3), 3), (1, 0, ones(0), ones(), 5)
        ),
        rows((1, 1, None, None, -1), (1, 2, ones(0), ones(0), 5), (2, 0, ones(6), ones(), -1)),
        rows((3, 0, None, None, -1), size=3),
    ]
    clips_of = np.array([2, 3, 1, 1])
    readable, labels, means = average_clips('set/val', batches, clips_of, len(NAMES), 1)
    assert readable.tolist() == [True, False, True, False]
    assert labels[:3].tolist() == [[3], [5], [-1]]
    assert means['logits'].dtype == np.float32
    assert means['logits'][0].tolist() == [0, 1, 0, 0, 0.5, 0, 0]
    assert means['probs'][0].tolist() == [0, 0, 0.5, 0.5, 0, 0, 0]
    assert means['logits'][2].tolist() == ones(6)


@pytest.mark.parametrize('bad', ['missing', 'twice'])
def test_a_clip_that_is_missing_or_comes_twice_is_an_error(bad):
    clips = [(0, k, ones(k), ones(k), 0) for k in range(3)]
    clips = clips[:-1] if bad == 'missing' else [*clips, clips[1]]
    with pytest.raises(RuntimeError, match=r'set/val: 1 of 3 clips were not seen exactly once'):
        average_clips('set/val', [rows(*clips)], np.array([3]), len(NAMES), 1)


# Five classes are likelier than the label of the last video but one; of that before the label's
# score is also that of a class with a lower number.
LOGITS = [ones(0), ones(1), ones(2), ones(1), ones(1, 2), np.arange(7.0), ones(5)]
PROBS = [ones(0), ones(0), ones(2), ones(0), ones(2), np.arange(7.0), ones(5)]
LABELS = [0, 1, 2, 0, 2, 1, -1]


def scores(labels=LABELS, annotated=9):
    means = {'logits': np.float32(LOGITS), 'probs': np.float32(PROBS)}
    labels = np.array(labels, np.int32).reshape(len(LOGITS), -1)
    return VideoScores([f'v{i}' for i in range(len(LOGITS))], labels, means, annotated)


def test_metrics_of_both_reductions_and_the_strict_ones():
    """Of 9 annotated videos 7 can be read and 6 have a label: 8 could have been right."""
    assert measure(scores(), '4x3') == {
        'annotated@4x3': (9.0, 6),
        'readable@4x3': (7.0, 6),
        'scored@4x3': (6.0, 6),
        'top1@4x3_logits': (3 / 6, 6),
        'top1_strict@4x3_logits': (3 / 8, 8),
        'top5@4x3_logits': (5 / 6, 6),
        'top5_strict@4x3_logits': (5 / 8, 8),
        'mean_class@4x3_logits': ((1 / 2 + 1 / 2 + 1 / 2) / 3, 6),
        'top1@4x3_probs': (4 / 6, 6),
        'top1_strict@4x3_probs': (4 / 8, 8),
        'top5@4x3_probs': (5 / 6, 6),
        'top5_strict@4x3_probs': (5 / 8, 8),
        'mean_class@4x3_probs': ((2 / 2 + 0 / 2 + 2 / 2) / 3, 6),
    }


def test_any_of_several_labels_is_right():
    several = [[0, 3], [4, 0], [-1, -1], [2, -1], [5, 2], [0, 1], [-1, -1]]
    found = measure(scores(several), '2x1')
    assert found['top1@2x1_logits'] == (1 / 5, 5)
    assert found['top1@2x1_probs'] == (3 / 5, 5)
    assert found['top1_strict@2x1_logits'] == (1 / 7, 7)
    assert not any(name.startswith('mean_class') for name in found)


def test_without_any_label_there_are_counts_alone():
    found = measure(scores([-1] * 7), '1x1')
    assert found == {
        f'{k}@1x1': (n, 0) for k, n in (('annotated', 9), ('readable', 7), ('scored', 0))
    }


def read_csv(path):
    with path.open(newline='') as file:
        return list(csv.reader(file))


def test_tables_of_classes_and_confusions(tmp_path):
    names = ('a', 'b, "or c"', *NAMES[2:])
    write_tables(tmp_path, 'set_val_4x3', scores(), names)
    header, *classes = read_csv(tmp_path / 'classes_set_val_4x3.csv')
    assert header == ['class', 'videos', 'right', 'top1', 'taken_for', 'times']
    assert classes[:4] == [
        ['a', '2', '1', '0.5', 'b, "or c"', '1'],
        ['b, "or c"', '2', '1', '0.5', 'g', '1'],
        ['c', '2', '1', '0.5', 'b, "or c"', '1'],
        ['d', '0', '0', '', '', '0'],
    ]
    assert len(classes) == 7
    twice = scores([0, 2, 2, 2, 0, 1, -1])
    write_tables(tmp_path, 'set_val_4x3', twice, NAMES)
    assert read_csv(tmp_path / 'confusions_set_val_4x3.csv') == [
        ['label', 'predicted', 'count'],
        *(['c', 'b', '2'], ['a', 'b', '1'], ['b', 'g', '1']),
    ]


def test_scores_of_several_labels_are_written_as_they_are(tmp_path):
    several = [[0, 3], [4, 0], [-1, -1], [2, -1], [5, 2], [0, 1], [-1, -1]]
    write_scores(tmp_path, 'x', scores(several), NAMES, 3)
    assert np.load(tmp_path / 'scores_x.npz')['labels'].tolist() == several


def test_metrics_belong_by_prefix_and_views():
    class Of:
        def __init__(self, prefix, views):
            self.prefix, self.views = prefix, views

    evaluators = [Of('k/val', '1x1'), Of('k/val', '4x3'), Of('k/val2', '4x3'), Of('i/val', '')]
    for name, owner in [
        *(('k/val/top1@1x1_center', 0), ('k/val/top1@4x3_logits', 1), ('k/val/scored@4x3', 1)),
        *(('k/val2/top5@4x3_probs', 2), ('i/val/top1', 3), ('k/val/top1@14x3_logits', None)),
    ]:
        owners = [i for i, evaluator in enumerate(evaluators) if belongs(name, evaluator)]
        assert owners == ([] if owner is None else [owner])
    counted = {
        'i/val/top1': Metric(0.5, 7),
        'k/val/top1@4x3_logits': Metric(0.5, 8),
        'k/val/top1_strict@4x3_logits': Metric(0.4, 10),
        'k/val/scored@4x3': Metric(8.0, 8),
    }
    assert count_names(counted) == {
        **{'i/val/n': 7, 'k/val/n@4x3_logits': 8, 'k/val/n_strict@4x3_logits': 10},
        'k/val/n@4x3': 8,
    }


def test_scores_that_are_not_finite_are_wrong(tmp_path):
    means = np.array([[np.nan] * 7, ones(1), [np.inf, *ones(1)[1:]]], np.float32)
    labels = np.array([[0], [1], [0]], np.int32)
    scores = VideoScores(['a', 'b', 'c'], labels, {'logits': means, 'probs': means}, 3)
    assert measure(scores, '4x3')['top1@4x3_logits'] == Metric(pytest.approx(1 / 3), 3)
    write_tables(tmp_path, 'x', scores, NAMES)
    classes = list(csv.DictReader((tmp_path / 'classes_x.csv').read_text().splitlines()))
    assert [row['right'] for row in classes[:2]] == ['0', '1']
    assert (tmp_path / 'confusions_x.csv').read_text().split() == ['label,predicted,count']


class Faulty:
    """Thirteen videos: one is short, one damaged in the middle, one has no label; two failed."""

    num_annotated = 15

    def __init__(self, videos):
        self._videos, self.num_frames = videos, videos.num_frames[:13].copy()
        self.num_frames[4], self.num_frames[7] = 1, 5

    def __len__(self):
        return 13

    def read(self, index, frames):
        if index == 9 and any(10 < frame < 16 for frame in frames):
            raise Unreadable('it is damaged in the middle')
        video = self._videos.read(index, frames)
        return video._replace(actions=()) if index == 11 else video


VIEWS = {'name': 'multiview', 'dataset': '', 'split': 'test', 'clips': 4, 'crops': 3}
VIEWS |= {'batch_size': 8, 'when': 'end'}


def configured(**changes):
    config = moving_digits.get_config('runlocal')
    config.model.spec, config.dataset.resolution = 'ViViT-mini/16x2', 32
    config.clip.frames = 4
    config.eval_every_epochs = 0.0
    config.evaluators.multiview = VIEWS
    config.update_from_flattened_dict(changes)
    return config


def faulty(devices):
    """An experiment on so many devices, its evaluator, and a state that tells classes apart."""
    config = configured(**{'reading.max_unreadable': 0.002})  # two videos, of more clips
    config.eval_geometry = {'name': 'center_crop', 'share': 0.5}
    experiment = make_experiment(config, devices=jax.devices()[:devices])
    known: Dataset = experiment.data.dataset
    splits = {**known.splits, 'test': Faulty(known.split('test'))}
    data = dataclasses.replace(experiment.data, dataset=dataclasses.replace(known, splits=splits))
    experiment = dataclasses.replace(experiment, data=data)
    rng = np.random.default_rng(0)

    def draw(x):
        values = 0.3 * rng.normal(size=x.shape) if x.dtype == 'f' else np.zeros(x.shape)
        return jax.device_put(values.astype(x.dtype), x.sharding)

    state = jax.tree.map(draw, abstract_state(experiment))
    return experiment, make_evaluators(experiment)['multiview'], state


@pytest.fixture(scope='module')
def alone():
    return faulty(1)


def test_views_are_averaged_and_faults_counted(alone, tmp_path):
    experiment, evaluator, state = alone
    found = evaluator.gather(state)
    assert len(found.ids) == 11  # but for 4 and 9
    batch = next(experiment.eval_batches(evaluator.dataset, 'test', 52, views=evaluator._views))
    assert batch['error'][16].endswith('it has 1 frame, fewer than the 2 of a tubelet')
    assert batch['unreadable'].sum() == 5
    own = batch['video_number'] == 2
    clips = batch['video'][own].reshape(12, 4, 32, 32, 1)
    model = jax.jit(lambda x: experiment.apply(state.variables, experiment.preprocess(x)))
    logits = np.asarray(model(clips))
    assert np.ptp(logits, axis=0).max() > 0.1  # over the views
    np.testing.assert_allclose(found.means['logits'][2], logits.mean(0), atol=1e-5)
    probs = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_allclose(found.means['probs'][2], probs.mean(0), atol=1e-6)
    metrics = evaluator(state, tmp_path)
    counts = {k.rpartition('/')[2]: v for k, v in metrics.items() if k.endswith('4x3')}
    assert counts == {'annotated@4x3': (15, 10), 'readable@4x3': (11, 10), 'scored@4x3': (10, 10)}
    assert metrics['moving_digits/test/top1_strict@4x3_probs'].n == 14
    with np.load(tmp_path / 'scores_moving_digits_test_4x3.npz') as file:
        kept = {key: file[key] for key in file.files}
    assert kept['labels'].tolist() == [0, 1, 2, 3, 5, 6, 7, 0, 2, -1, 4]
    assert kept['ids'].tolist() == list(found.ids)
    assert kept['label_names'].tolist() == list(evaluator.dataset.label_names)
    assert kept['step'] == 0
    means = {name: kept[name] for name in ('logits', 'probs')}
    again = VideoScores(kept['ids'], kept['labels'][:, None], means, int(kept['annotated']))
    again = measure(again, '4x3')
    assert metrics == {f'moving_digits/test/{name}': metric for name, metric in again.items()}
    assert {path.suffix for path in tmp_path.iterdir()} == {'.npz', '.csv'}


@pytest.mark.parametrize('devices', [2, 8])
def test_several_devices_give_the_scores_of_one(alone, devices):
    expected = alone[1].gather(alone[2])
    _, evaluator, state = faulty(devices)
    found = evaluator.gather(state)
    assert found.ids == expected.ids
    np.testing.assert_array_equal(found.labels, expected.labels)
    for name, means in expected.means.items():
        np.testing.assert_allclose(found.means[name], means, atol=1e-5)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'clips': 0}, '0 clips and 1 crops are no views; use 1 or more'),
        ({'crops': 0}, '4 clips and 0 crops are no views'),
        ({'batch_size': 9}, 'batch_size=9 cannot be cut into the 8 parts'),
        ({'split': 'val'}, "no split 'val'; use one of train, test"),
        ({'dataset': 'digits'}, 'digits has other classes than moving_digits'),
        ({'crops': 3}, "3 crops need config.eval_geometry.name='center_crop'"),
        ({'clips': 1, 'crops': 1}, 'metrics of the same name; .* different splits or views'),
    ],
    ids=str,
)
def test_what_cannot_be_evaluated_is_refused(changes, message):
    config = configured()
    config.eval_geometry = {'name': 'resize', 'share': 1.0}
    config.evaluators.multiview.update({**VIEWS, 'crops': 1, **changes})
    with pytest.raises(UserError, match=message):
        make_evaluators(make_experiment(config))


def test_images_have_no_views(alone):
    images = dataclasses.replace(alone[0], clip=None)
    with pytest.raises(ValueError, match='is of videos; leave it out for images'):
        MultiView(
            experiment=images, **{k: v for k, v in VIEWS.items() if k not in ('name', 'when')}
        )


CONFIG = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict({})
"""


def small():
    """Of one step, and two crops of one clip of each video: a process reads only some videos."""
    changes = {'total_steps': 1, 'clip.frames': 2, 'evaluators.test.batch_size': 200}
    changes['schedule.warmup_epochs'] = 0.0
    views = {'crops': 2, 'clips': 1, 'batch_size': 200}
    return configured(**changes, **{f'evaluators.multiview.{k}': v for k, v in views.items()})


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('multiview')
    experiment = make_experiment(small(), devices=jax.devices()[:1])
    results = train(experiment, make_evaluators(experiment), workdir)
    return experiment, workdir, results['metrics']


def single(metrics):
    return {name: metric for name, metric in metrics.items() if name.endswith('@1x1_center')}


def test_a_run_ends_with_all_views_and_they_are_evaluated_on_their_own(trained):
    experiment, workdir, metrics = trained
    assert len(single(metrics)) == 3
    assert len(metrics) == 3 + 13
    assert metrics['moving_digits/test/top1@1x2_logits']['n'] == 1000
    last = json.loads((workdir / 'metrics.jsonl').read_text().splitlines()[-1])
    assert {name for name in last if '/n' in name} == {
        f'moving_digits/test/{name}'
        for name in (
            *('n@1x1_center', 'n@1x2', 'n@1x2_logits', 'n@1x2_probs'),
            *('n_strict@1x2_logits', 'n_strict@1x2_probs'),
        )
    }
    evaluators = make_evaluators(experiment)
    evaluate(experiment, evaluators, workdir, 'test')
    path = workdir / 'scores_moving_digits_test_1x2.npz'
    path.unlink()
    both = evaluate(experiment, evaluators, workdir, 'multiview')
    assert path.exists()
    assert both['metrics'] == metrics
    assert evaluate(experiment, evaluators, workdir, 'test') == both


def test_two_processes_give_the_scores_of_one(trained, tmp_path):
    _, workdir, metrics = trained
    shutil.copytree(workdir, tmp_path / 'run')
    settings = json.loads(small().to_json())
    (tmp_path / 'config.py').write_text(CONFIG.replace('{}', repr(settings)))
    path = tmp_path / 'run' / 'scores_moving_digits_test_1x2.npz'
    with np.load(path) as file:
        expected = {key: file[key] for key in file.files}
    assert np.ptp(expected['logits'], axis=0).min() > 1e-3  # far more than what may differ
    path.unlink()
    (tmp_path / 'run' / 'eval.json').unlink(missing_ok=True)
    config, run = f'--config={tmp_path / "config.py"}', f'--workdir={tmp_path / "run"}'
    status, errors = Pair(config, run, '--mode=eval', '--evaluator=multiview').end()
    assert status == [0, 0], errors
    with np.load(path) as file:
        for key, values in expected.items():
            if key in ('logits', 'probs'):
                np.testing.assert_allclose(file[key], values, atol=1e-5)
            else:
                np.testing.assert_array_equal(file[key], values)
    found = json.loads((tmp_path / 'run' / 'eval.json').read_text())['metrics']
    assert {k: v['n'] for k, v in found.items()} == {
        k: v['n'] for k, v in metrics.items() if k in found
    }
    assert len(found) == 13
