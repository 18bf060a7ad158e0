"""Losses that are not finite, and disks that are full."""

import contextlib
import dataclasses
import json
import logging
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.conftest import fill, small_disk
from tests.forked import ROOT, one_device
from tests.test_main import CONFIG, results, run
from tests.test_train import make, on
from trainers.classification import Classification
from trainers.evaluators import make_evaluators
from trainers.experiment import Experiment
from trainers.interrupt import Interrupted
from trainers.logs import make_writer
from trainers.sharding import put_batch
from trainers.state import create_state
from trainers.step import make_train_step
from trainers.train import train
from trainers.workdir import record_run

SHORT = (
    '--config.total_steps=30',
    '--config.log_every_steps=10',
    '--config.checkpoint.every_steps=10',
    '--config.eval_every_epochs=0.0',
    '--config.schedule.warmup_epochs=0.0',
)
DIVERGES = (*SHORT, '--config.schedule.learning_rate=1e30', '--config.optimizer.weight_decay=1.0')


@pytest.mark.slow
def test_an_update_that_is_not_finite_leaves_the_state_as_it_was():
    experiment = on(make(), 2)
    step, batches = make_train_step(experiment), experiment.train_batches()
    state, _ = step(create_state(experiment), put_batch(next(batches), experiment.mesh))
    before = jax.tree.map(np.array, state)
    batch = next(batches)
    batch['mask'][:] = 0  # the mean over no example
    after, sums = step(state, put_batch(batch, experiment.mesh))
    for name in ('params', 'mutable', 'opt_state', 'rng'):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    assert (int(after.step), int(after.skipped)) == (2, 1)
    assert {k: float(v) for k, v in sums.items()} == {
        'n': 0,
        'loss': 0,
        'gradient_norm': 0,
        'skipped': 1,
    }
    again, sums = step(after, put_batch(next(batches), experiment.mesh))
    assert (int(again.step), int(again.skipped), int(sums['skipped'])) == (3, 1, 0)
    assert np.isfinite(float(sums['loss']))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    status, _, err = run(CONFIG, f'--workdir={tmp_path}', *DIVERGES)
    assert status == 1
    assert err.count('\n') == 1, err
    assert 'not finite at step 2, the newest checkpoint is of step None' in err
    assert '--config.nonfinite=skip' in err
    found = json.loads((tmp_path / 'nonfinite.json').read_text())
    assert found == {'step': 2, 'ids': make().train_ids(2)}
    assert not [p for p in (tmp_path / 'checkpoints').iterdir() if p.name.isdigit()]


def test_what_an_earlier_part_of_a_run_left_is_taken_away(tmp_path):
    for name in ('results.json', 'eval.json', 'nonfinite.json'):
        (tmp_path / name).write_text('{}')
    record_run(tmp_path, {'seed': 0})
    assert {path.name for path in tmp_path.iterdir()} == {'config.json', 'environment.json'}


@pytest.mark.slow
def test_or_it_is_skipped_and_counted(tmp_path):
    status, out, err = run(CONFIG, f'--workdir={tmp_path}', *DIVERGES, '--config.nonfinite=skip')
    assert status == 0, err
    assert 'no update at steps [2, 3,' in out
    assert results(tmp_path)['skipped_steps'] == 29
    lines = [json.loads(x) for x in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    counts = [x['train/skipped_steps'] for x in lines if 'train/skipped_steps' in x]
    assert counts == [9, 10, 10]


@pytest.mark.slow
def test_a_disk_that_refuses_does_not_end_the_work_and_is_told_of(tmp_path):
    """The limit on the size of files has writes fail as a full disk does."""
    limit = ('prlimit', '--fsize=50000')
    command = [*limit, sys.executable, 'main.py', CONFIG, f'--workdir={tmp_path}', *SHORT]
    done = subprocess.run(command, cwd=ROOT, env=one_device(), capture_output=True, text=True)
    out, err = done.stdout, done.stderr
    assert done.returncode == 1
    assert 'the checkpoint of step 10 could not be saved' in out
    assert 'step 30  digits/test/' in out  # the work went on
    assert err.splitlines()[-1].startswith('error: the state of step 30 is not on the disk')


def test_a_disk_too_small_is_told_of_before_training(tmp_path):
    with small_disk(tmp_path / 'disk', '4m') as disk:
        status, out, err = run(CONFIG, f'--workdir={disk}', *SHORT)
        assert status == 1
        assert err.startswith('error: the checkpoints take up to 0.010 GB more, and ')
        assert 'step 10' not in out
        (disk / 'ballast').write_bytes(bytes(100_000))
        assert run(CONFIG, f'--workdir={disk}', *SHORT, '--config.checkpoint.keep=1')[0] == 1


def make_short(total_steps, **changes):
    """A run that is evaluated after each four steps, and its evaluators."""
    changes = {'batch_size': 1000, 'log_every_steps': 1, **changes}
    experiment = on(make(total_steps=total_steps, **changes), 1)
    experiment = dataclasses.replace(experiment, eval_every_steps=4)
    return experiment, make_evaluators(experiment)


def evaluated(workdir):
    lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    return [line['step'] for line in lines if 'digits/test/top1' in line]


@pytest.mark.slow
def test_an_evaluation_that_a_stop_leaves_out_is_made_by_the_next_start(tmp_path, caplog):
    experiment, evaluators = make_short(8)

    def stop_after_three(record):
        if record.getMessage().startswith('step 3 '):
            signal.raise_signal(signal.SIGTERM)
        return True

    caplog.set_level(logging.INFO)
    logger = logging.getLogger('trainers.train')
    logger.addFilter(stop_after_three)
    with pytest.raises(Interrupted):
        train(experiment, evaluators, tmp_path)
    logger.removeFilter(stop_after_three)
    assert evaluated(tmp_path) == []
    train(experiment, evaluators, tmp_path)
    assert evaluated(tmp_path) == [4, 8]


@pytest.mark.slow
def test_an_evaluation_that_fails_costs_no_step_and_one_that_was_made_is_not_repeated(
    tmp_path, monkeypatch, caplog
):
    experiment, evaluators = make_short(9, **{'checkpoint.every_steps': 4})
    evaluate, failing = Classification.__call__, [4, 8]

    def fail_once(self, state, workdir=None):
        if int(state.step) in failing:
            failing.remove(int(state.step))
            raise OSError('the data are gone')
        return evaluate(self, state, workdir)

    monkeypatch.setattr(Classification, '__call__', fail_once)
    caplog.set_level(logging.INFO)
    for evaluations in ([], [4]):
        with pytest.raises(OSError, match='the data are gone'):
            train(experiment, evaluators, tmp_path)
        assert evaluated(tmp_path) == evaluations
    train(experiment, evaluators, tmp_path)
    assert evaluated(tmp_path) == [4, 8, 9]
    assert re.findall(r'training .* from step (\d)', caplog.text) == ['0', '4', '8']


@pytest.mark.slow
def test_nothing_is_read_beyond_the_last_step(tmp_path, monkeypatch):
    experiment, evaluators = make_short(2)
    read, batches = [], Experiment.train_batches

    def noting(self, start):
        for batch in batches(self, start):
            read.append(batch)
            yield batch

    monkeypatch.setattr(Experiment, 'train_batches', noting)
    first = train(experiment, evaluators, tmp_path)
    assert len(read) == 2
    monkeypatch.delattr(Experiment, '_train_examples')
    (tmp_path / 'results.json').unlink()
    again = train(experiment, evaluators, tmp_path)
    assert (len(read), again['metrics']) == (2, first['metrics'])


def test_metrics_that_find_no_room_are_written_when_there_is_some(tmp_path, caplog):
    with small_disk(tmp_path / 'disk', '64k') as disk:
        with contextlib.closing(make_writer(disk, 0)) as writer:
            fill(disk / 'ballast')
            for step in range(200):
                writer.write_scalars(step, {'train/loss': 1.0})
            writer.flush()
            assert 'metrics cannot be written' in caplog.text
            (disk / 'ballast').unlink()
            writer.flush()
        lines = (disk / 'metrics.jsonl').read_text().splitlines()
        assert [json.loads(line)['step'] for line in lines] == list(range(200))
