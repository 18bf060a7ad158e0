"""Videos in several views: what is merged and counted, on any machine, and the files of it."""

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
from trainers.multiview import MultiView
from trainers.state import abstract_state
from trainers.train import train
from trainers.video_scores import REDUCTIONS_OF_SEVERAL, VideoScores, measure


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
    evaluator = make_evaluators(experiment)['multiview']
    evaluator._reductions = REDUCTIONS_OF_SEVERAL  # all that there are
    return experiment, evaluator, state


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
    np.testing.assert_allclose(found.merged['logits'][2], logits.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.merged['max'][2], logits.max(0), atol=1e-5)
    probs = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_allclose(found.merged['probs'][2], probs.mean(0), atol=1e-6)
    metrics = evaluator(state, tmp_path)
    counts = {k.rpartition('/')[2]: v for k, v in metrics.items() if k.endswith('4x3')}
    assert counts == {
        **{'annotated@4x3': (15, 10), 'readable@4x3': (11, 10), 'scored@4x3': (10, 10)},
        'classes@4x3': (8, 10),
    }
    assert metrics['moving_digits/test/top1_strict@4x3_probs'].n == 14
    with np.load(tmp_path / 'scores_moving_digits_test_4x3.npz') as file:
        kept = {key: file[key] for key in file.files}
    assert kept['labels'].tolist() == [0, 1, 2, 3, 5, 6, 7, 0, 2, -1, 4]
    assert kept['ids'].tolist() == list(found.ids)
    assert kept['label_names'].tolist() == list(evaluator.dataset.label_names)
    assert kept['step'] == 0
    merged = {name: kept[name] for name in REDUCTIONS_OF_SEVERAL}
    again = VideoScores(kept['ids'], kept['labels'][:, None], merged, int(kept['annotated']))
    again = measure(again, '4x3', evaluator.dataset.label_names)
    assert metrics == {f'moving_digits/test/{name}': metric for name, metric in again.items()}
    assert {path.suffix for path in tmp_path.iterdir()} == {'.npz', '.csv'}


@pytest.mark.parametrize('devices', [2, 8])
def test_several_devices_give_the_scores_of_one(alone, devices):
    expected = alone[1].gather(alone[2])
    _, evaluator, state = faulty(devices)
    found = evaluator.gather(state)
    assert found.ids == expected.ids
    np.testing.assert_array_equal(found.labels, expected.labels)
    for name, values in expected.merged.items():
        np.testing.assert_allclose(found.merged[name], values, atol=1e-5)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'clips': 0}, '0 clips and 1 crops are no views; use 1 or more'),
        ({'crops': 0}, '4 clips and 0 crops are no views'),
        ({'batch_size': 9}, 'batch_size=9 cannot be cut into the 8 parts'),
        ({'split': 'val'}, "no split 'val'; use one of train, test"),
        ({'dataset': 'digits'}, 'digits has other classes than moving_digits'),
        ({'crops': 3}, "3 crops need config.eval_geometry.name='center_crop'"),
    ],
    ids=str,
)
def test_what_cannot_be_evaluated_is_refused(changes, message):
    config = configured()
    config.eval_geometry = {'name': 'resize', 'share': 1.0}
    config.evaluators.multiview.update({**VIEWS, 'crops': 1, **changes})
    with pytest.raises(UserError, match=message):
        make_evaluators(make_experiment(config))


def test_two_evaluators_of_the_same_views_are_refused():
    config = configured()
    config.eval_geometry = {'name': 'center_crop', 'share': 1.0}
    config.evaluators.multiview.update(clips=1, crops=1)
    assert set(make_evaluators(make_experiment(config))) == {'test', 'multiview'}
    config.evaluators.again = config.evaluators.multiview
    with pytest.raises(UserError, match=r'metrics of the same name; .* different splits or views'):
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


@pytest.mark.slow
def test_a_run_ends_with_all_views_and_they_are_evaluated_on_their_own(trained):
    experiment, workdir, metrics = trained
    assert len(single(metrics)) == 3
    assert len(metrics) == 3 + 14
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


@pytest.mark.slow
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
    assert len(found) == 14
