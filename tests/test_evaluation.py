"""Evaluators on small prepared sets, and few-shot regression against a direct solution."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits
from tests.test_train import on
from trainers.classification import Classification, top_hits
from trainers.construct import UserError
from trainers.evaluate import evaluate
from trainers.evaluators import Evaluators, make_evaluators
from trainers.experiment import make_experiment
from trainers.fewshot import (
    SEEDS,
    STRENGTHS,
    Features,
    FewShot,
    choose_shots,
    choose_strength,
    in_order,
    transfer,
)
from trainers.state import create_state


def test_top_hits():
    logits = jnp.array([[0, 1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1, 1], [7, 0, 6, 0, 5, 0, 4]])
    single = [[6, 2, 1], [0, 4, 5], [0, 1, 5]]
    expected = [[(1, 1), (0, 1), (0, 0)], [(1, 1), (0, 1), (0, 0)], [(1, 1), (0, 1), (0, 0)]]
    for row, labels, hits in zip(logits, single, expected, strict=True):
        found = top_hits(jnp.stack([row] * 3), jnp.array(labels)[:, None])
        assert list(zip(*map(np.ndarray.tolist, map(np.asarray, found)), strict=True)) == hits
    several = jnp.array([[0, 6, -1], [5, -1, -1], [-1, -1, -1]])
    top1, top5 = top_hits(logits, several)
    assert (top1.tolist(), top5.tolist()) == ([1, 0, 0], [1, 0, 0])
    two = top_hits(jnp.array([[0.0, 1.0]]), jnp.array([[0]]))
    assert [float(x[0]) for x in two] == [0, 1]


@pytest.fixture(scope='module')
def trained(fakes):
    """A tiny model of ImageNet, its random weights favouring the ten classes that are there."""
    config = digits.get_config('model=mini/7-4at1-fuser,runlocal')
    config.dataset.update(name='imagenet2012', data_dir=str(fakes))
    config.evaluators.test.split = 'validation'
    config.total_steps, config.schedule.warmup_epochs = 1, 0.0
    experiment = on(make_experiment(config), 1)
    state = create_state(experiment)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape).astype('f'), state.params)
    params['head']['bias'] += 10 * (jnp.arange(1000) < 10)
    return experiment, dataclasses.replace(state, params=params)


def predicted(experiment, state, dataset, split, geometry=None):
    """Logits, features and the whole split as one batch."""
    size = len(dataset.split(split))
    (batch,) = experiment.eval_batches(dataset, split, size, geometry)
    logits, mutable = experiment.apply(
        state.variables,
        experiment.preprocess(jnp.asarray(batch['image'])),
        mutable=['intermediates'],
    )
    (features,) = mutable['intermediates']['pre_logits']
    return np.asarray(logits), np.asarray(features), batch


@pytest.mark.parametrize('batch_size', [7, 64])
def test_real_accuracy_counts_any_label_and_leaves_out_images_without(trained, batch_size):
    experiment, state = trained
    evaluate = Classification(
        experiment=experiment,
        dataset='imagenet2012_real',
        split='validation',
        batch_size=batch_size,
    )
    metrics = evaluate(state)
    logits, _, batch = predicted(experiment, state, evaluate.dataset, 'validation')
    labels = [{label for label in row if label >= 0} for row in batch['labels'].tolist()]
    assert sorted({len(row) for row in labels}) == [0, 1, 2]
    pairs = [(np.argsort(-x), row) for x, row in zip(logits, labels, strict=True) if row]
    top1 = np.mean([x[0] in row for x, row in pairs])
    top5 = np.mean([bool(row & set(x[:5])) for x, row in pairs])
    assert 0 < top1 < top5 < 1
    assert set(metrics) == {f'imagenet2012_real/validation/{name}' for name in ('top1', 'top5')}
    for name, value in (('top1', top1), ('top5', top5)):
        metric = metrics[f'imagenet2012_real/validation/{name}']
        assert metric.n == len(pairs) == 38
        assert metric.value == pytest.approx(value, abs=1e-6)


def test_classification_of_one_label_and_the_loss(trained):
    experiment, state = trained
    metrics = Classification(experiment=experiment, dataset='', split='validation', batch_size=16)(
        state
    )
    logits, _, batch = predicted(experiment, state, experiment.data.dataset, 'validation')
    logits = logits.astype(float)
    shifted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    own = shifted[np.arange(40), batch['label']]
    loss = -(0.9 * own + 0.1 * shifted.mean(-1)).mean()
    expected = {'top1': (logits.argmax(-1) == batch['label']).mean(), 'loss': loss}
    for name, value in expected.items():
        metric = metrics[f'imagenet2012/validation/{name}']
        assert metric.n == 40
        assert metric.value == pytest.approx(value, rel=1e-5)


@pytest.fixture
def asked(trained, monkeypatch, tmp_path):
    """Evaluates by name at a step; eval.json."""
    experiment, state = trained
    test = Classification(experiment=experiment, dataset='', split='validation', batch_size=40)
    real = Classification(
        experiment=experiment, dataset='imagenet2012_real', split='validation', batch_size=40
    )
    evaluators = Evaluators(
        {'test': test, 'real': real}, {'test': 'always', 'real': 'asked'}, first=test
    )

    def evaluate_at(name, step):
        at = dataclasses.replace(state, step=jnp.asarray(step))
        monkeypatch.setattr('trainers.evaluate.restore_trained', lambda *_: at)
        result = evaluate(experiment, evaluators, tmp_path, name)
        assert json.loads((tmp_path / 'eval.json').read_text()) == result
        return result

    return evaluate_at, tmp_path / 'eval.json'


def test_an_evaluation_keeps_what_others_measured_at_its_step(asked):
    evaluate_at, path = asked
    real = evaluate_at('real', 5)
    assert set(real) == {'step', 'eval_resolution', 'clip', 'fps', 'metrics'}
    metrics = real['metrics'] | evaluate_at('test', 5)['metrics']
    assert len(metrics) > len(real['metrics'])
    both = {**real, 'metrics': metrics}
    assert evaluate_at('test', 5) == both
    own = {'imagenet2012_real/validation/top9': {'value': 0.0, 'n': 1}}  # of other settings
    path.write_text(json.dumps({**both, 'metrics': metrics | own}))
    assert evaluate_at('real', 5) == both
    path.write_text(json.dumps({**both, 'eval_resolution': 100}))
    assert evaluate_at('real', 5) == real
    assert evaluate_at('real', 6) == {**real, 'step': 6}


def test_an_evaluation_file_that_is_damaged_is_begun_anew(asked, caplog):
    evaluate_at, path = asked
    expected = evaluate_at('test', 5)
    for text in ('{', '[]', '{"step": 5, "metrics": 1}'):
        path.write_text(text)
        assert evaluate_at('test', 5) == expected
        assert 'begun anew' in caplog.text
        caplog.clear()


def direct(shots, test, classes, strength):
    """Scores as published, with the constant among the features, in float64."""
    mean, std = np.float64(shots.x).mean(0), np.float64(shots.x).std(0) + 1e-5
    x, seen = (
        np.pad((np.float64(f.x) - mean) / std, ((0, 0), (0, 1)), constant_values=100.0)
        for f in (shots, test)
    )
    y = 2 * np.eye(classes)[shots.labels] - 1
    if len(x) > x.shape[1]:
        return seen @ np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)
    return seen @ x.T @ np.linalg.solve(x @ x.T + strength * np.eye(len(x)), y)


def features(n, d, classes, seed, constant=0):
    """Classes that overlap, in features of very different size."""
    rng = np.random.default_rng(0)
    centers = 0.5 * rng.normal(size=(classes, d))
    mixing = rng.normal(size=(d, d)) * np.exp(-6 * np.arange(d) / d)[:, None]
    rng, labels = np.random.default_rng(seed), np.arange(n) % (classes - 1)  # of one class, none
    x = (centers[labels] + rng.normal(size=(n, d))) @ mixing + 3
    x[:, :constant] = [0.1, 1000.7, 0, -7][:constant]
    return Features(x.astype(np.float32), labels)


@pytest.mark.parametrize(
    ('n', 'd', 'constant'),
    [(90, 24, 0), (20, 48, 0), (48, 48, 0), (49, 48, 0), (90, 24, 4), (20, 48, 4)],
)
def test_transfer_is_the_published_ridge_regression(n, d, constant):
    shots, test = features(n, d, 8, 1, constant), features(400, d, 8, 2, constant)
    accuracies = transfer(shots, test, 8, STRENGTHS)
    assert len(accuracies) == 30
    found, expected = [], []
    for strength, accuracy in zip(STRENGTHS, accuracies, strict=True):
        scores = direct(shots, test, 8, strength)
        best = np.sort(scores)[:, -2:]
        clear = best[:, 1] - best[:, 0] > 1e-3 * np.abs(scores).max()
        assert clear.mean() > 0.9 or strength > 2**12
        found.append(accuracy)
        expected.append((scores.argmax(-1) == test.labels).mean())
    np.testing.assert_allclose(found, expected, atol=1.01 / 400)  # one may be as near
    assert max(found) - min(found) > 0.05


def test_choose_shots():
    labels = np.array([2, 0, 2, 1, 0, 2, 0, 2])
    everything = Features(np.arange(8.0, dtype=np.float32)[:, None], labels)
    first = choose_shots(everything, 2, None)
    assert first.x.ravel().tolist() == [1, 4, 3, 0, 2]  # of class 1 there is one
    assert first.labels.tolist() == [0, 0, 1, 2, 2]
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        rows = [rng.permutation(rows)[:2].tolist() for rows in ([1, 4, 6], [3], [0, 2, 5, 7])]
        assert choose_shots(everything, 2, seed).x.ravel().tolist() == [
            row for own in rows for row in own
        ]


def test_choose_strength():
    accuracies = [[0.1, 0.3, 0.2], [0.1, 0.2, 0.9], [0.5, 0.9, 0.1]]
    assert choose_strength(np.array(accuracies)) == 1  # ranks 0 1 2 of the mean 1/3, 5/3, 1
    assert choose_strength(np.array([[0.1, 0.9], [0.9, 0.1]])) == 0  # the same mean rank
    assert choose_strength(np.array([[0.2, 0.7, 0.7]])) == 2


def test_rows_come_in_the_order_of_the_data():
    """On a pod the rows of one process need not lie next to each other."""
    places = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    rows = np.stack([10 * places, places], 1)
    np.testing.assert_array_equal(in_order(rows)[:, 0], 10 * np.arange(8))


SETS = {'caltech101': ('train[:100]', 'train[100:]'), 'dtd': ('train', 'test')}
SHARE = {'data_dir': '', 'shots': (1, 3), 'share': 0.875, 'batch_size': 32}


def parts(experiment, state, evaluate):
    """Of each set the shots, what is tested, and the number of classes."""
    for name, dataset in evaluate._datasets.items():
        found = []
        for split in SETS[name]:
            _, x, batch = predicted(experiment, state, dataset, split, evaluate._geometry)
            found.append(Features(x, batch['label']))
        yield name, *found, len(dataset.label_names)


@pytest.mark.slow
def test_few_shot_with_fixed_strength(trained):
    experiment, state = trained
    evaluate = FewShot(experiment=experiment, protocol='lsr_fixed', datasets=SETS, **SHARE)
    metrics = evaluate(state)
    assert len(metrics) == 2 * (2 * 4 + 1)
    means = {1: [], 3: []}
    for name, shots, test, classes in parts(experiment, state, evaluate):
        size = {'caltech101': 60, 'dtd': 40}[name]
        for k, of_sets in means.items():
            path = f'fewshot_lsr_fixed/{name}/{SETS[name][1]}/{k}shot'
            values = []
            for seed in SEEDS:
                scores = direct(choose_shots(shots, k, seed), test, classes, 1024.0)
                values.append((scores.argmax(-1) == test.labels).mean())
                assert metrics[f'{path}_seed{seed}'].n == size
                assert metrics[f'{path}_seed{seed}'].value == pytest.approx(values[-1])
            assert metrics[path] == (pytest.approx(np.mean(values)), size)
            of_sets.append(np.mean(values))
    for k, of_sets in means.items():
        assert metrics[f'fewshot_lsr_fixed/mean/{k}shot'] == (pytest.approx(np.mean(of_sets)), 100)
    assert max(metric.value for metric in metrics.values()) > 0.15  # of ten classes


@pytest.mark.slow
def test_few_shot_with_the_strength_of_the_best_rank(trained):
    experiment, state = trained
    evaluate = FewShot(experiment=experiment, protocol='lsr_rank', datasets=SETS, **SHARE)
    metrics = evaluate(state)
    names = {f'{name}/{SETS[name][1]}' for name in SETS} | {'mean', 'l2'}
    assert set(metrics) == {f'fewshot_lsr_rank/{n}/{k}shot' for n in names for k in (1, 3)}
    found = list(parts(experiment, state, evaluate))
    for k in (1, 3):
        chosen = metrics[f'fewshot_lsr_rank/l2/{k}shot'].value
        table = np.array(
            [
                transfer(choose_shots(shots, k, None), test, classes, STRENGTHS)
                for _, shots, test, classes in found
            ]
        )
        best = choose_strength(table)
        assert chosen == STRENGTHS[best]
        for (name, _, test, _), row in zip(found, table, strict=True):
            metric = metrics[f'fewshot_lsr_rank/{name}/{SETS[name][1]}/{k}shot']
            assert metric == (pytest.approx(row[best]), len(test.labels))
        mean = metrics[f'fewshot_lsr_rank/mean/{k}shot']
        assert mean == (pytest.approx(table[:, best].mean()), 100)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'protocol': 'lsr'}, "protocol='lsr' is not known; use one of lsr_fixed, lsr_rank"),
        ({'shots': ()}, 'datasets and shots need at least one each'),
        ({'shots': (0,)}, 'shots=0 is too small'),
        ({'datasets': {'dtd': ('train',)}}, 'dtd needs two splits'),
        ({'datasets': {'dtd': ('train', 'tset')}}, "dataset dtd has no split 'tset'"),
        ({'datasets': {'imagenet2012_real': ('validation',) * 2}}, 'several labels an example'),
    ],
    ids=range(6),
)
def test_few_shot_settings_that_are_not_possible(trained, changes, message):
    settings = {'name': 'fewshot', 'protocol': 'lsr_rank', 'when': 'end', 'datasets': SETS}
    settings |= {**SHARE, **changes}
    evaluators = {**trained[0].evaluators, 'few': settings}
    with pytest.raises(UserError, match=message):
        make_evaluators(dataclasses.replace(trained[0], evaluators=evaluators))


def test_other_classes_cannot_be_evaluated(trained):
    settings = {
        'name': 'classification',
        'dataset': 'dtd',
        'split': 'test',
        'batch_size': 8,
        'when': 'end',
    }
    evaluators = {**trained[0].evaluators, 'other': settings}
    with pytest.raises(UserError, match='dtd has other classes than imagenet2012'):
        make_evaluators(dataclasses.replace(trained[0], evaluators=evaluators))
