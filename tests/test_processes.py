"""Two real processes that train one model: the same result, and no process waits for a dead one."""

import dataclasses
import json
import signal
import socket
import time

import pytest

from tests.test_main import CONFIG, SHORT, results, run, start
from tests.test_train import make, on
from trainers.construct import UserError
from trainers.processes import join_processes, wait_for_coordinator
from trainers.sharding import batch_share, share_of_rows


class Pair:
    """Two processes of one run."""

    def __init__(self, *args):
        with socket.socket() as free:
            free.bind(('localhost', 0))
            address = f'localhost:{free.getsockname()[1]}'
        several = (f'--coordinator_address={address}', '--num_processes=2')
        self.processes = [start(*args, *several, f'--process_id={i}') for i in range(2)]
        self.seen = ''

    def wait_for(self, step):
        for line in self.processes[0].stdout:
            self.seen += line
            if f'step {step} ' in line:
                return

    def end(self):
        """Exit status and errors of both."""
        outputs = [p.communicate(timeout=120) for p in self.processes]
        self.seen += outputs[0][0]
        return [p.returncode for p in self.processes], [err for _, err in outputs]


@pytest.mark.slow
def test_two_processes_are_stopped_killed_and_end_as_one_does(tmp_path):
    alone, together = tmp_path / 'alone', tmp_path / 'together'
    status, _, err = run(CONFIG, f'--workdir={alone}', *SHORT)
    assert status == 0, err
    command = (CONFIG, f'--workdir={together}', *SHORT)

    pair = Pair(*command)
    pair.wait_for(20)
    pair.processes[1].send_signal(signal.SIGTERM)
    status, errors = pair.end()
    assert status == [143, 143], errors
    steps = [int(p.name) for p in (together / 'checkpoints').iterdir() if p.name.isdigit()]
    assert len(steps) == 1
    assert 20 < steps[0] < 50

    pair = Pair(*command)
    pair.wait_for(70)
    pair.processes[1].kill()
    killed = time.monotonic()
    status, errors = pair.end()
    assert time.monotonic() - killed < 60
    assert status[1] == -signal.SIGKILL
    assert status[0] > 0 or status[0] == -signal.SIGABRT, errors
    assert f'from step {steps[0]} to 120' in pair.seen

    pair = Pair(*command)
    status, errors = pair.end()
    assert status == [0, 0], errors
    assert 'from step 50 to 120' in pair.seen
    one, two = results(alone)['metrics'], results(together)['metrics']
    assert one['digits/test/top1']['n'] == two['digits/test/top1']['n'] == 1000
    for name in one:
        assert two[name]['value'] == pytest.approx(one[name]['value'], rel=1e-4, abs=1e-3)
    lines = [json.loads(x) for x in (together / 'metrics.jsonl').read_text().splitlines()]
    logged = [x['step'] for x in lines if 'train/loss' in x]
    assert logged == sorted(set(logged))

    status, _, err = run(CONFIG, f'--workdir={together}', '--mode=eval', *SHORT)
    assert status == 0, err
    again = json.loads((together / 'eval.json').read_text())['metrics']
    assert again['digits/test/loss']['value'] == pytest.approx(two['digits/test/loss']['value'])


def test_some_of_the_flags_are_not_enough():
    with pytest.raises(UserError, match='give all three'):
        join_processes('localhost:1', 2, None)


@pytest.mark.parametrize(
    ('address', 'message'),
    [('localhost:1', 'does not answer'), ('localhost', 'is no HOST:PORT')],
)
def test_a_coordinator_that_cannot_be_reached(address, message):
    with pytest.raises(UserError, match=message):
        wait_for_coordinator(address, timeout_s=0.3)


@pytest.mark.parametrize(
    ('rows', 'shares'),
    [
        ([[0, 1], [2, 3]], [(0, 2), (1, 2)]),
        ([[2, 3], [0, 1]], [(1, 2), (0, 2)]),
        ([[0, 1], [0, 1]], [(0, 1), (0, 1)]),  # that tensor spans
        ([[0, 2], [1, 3], [0, 2], [1, 3]], [(0, 2), (1, 2), (0, 2), (1, 2)]),
        ([[0, 1], [1, 2]], None),
    ],
)
def test_processes_that_hold_the_same_rows_read_the_same_share(rows, shares):
    rows = {process: set(held) for process, held in enumerate(rows)}
    if shares is None:
        with pytest.raises(UserError, match='overlap'):
            share_of_rows(rows, 0)
    else:
        assert [share_of_rows(rows, process) for process in rows] == shares


def test_one_process_reads_all():
    for mesh in ((8, 1, 1), (2, 2, 2)):
        assert batch_share(on(make(), *mesh).mesh, 0) == (0, 1)


def test_shares_of_a_batch_are_the_batch():
    experiment, ids = make(), []
    for share in range(2):
        reading = dataclasses.replace(experiment.reading, share=share, shares=2)
        own = dataclasses.replace(experiment, reading=reading)
        ids += [str(i) for i in next(own.train_batches(2))['id']]
    assert sorted(ids) == sorted(experiment.train_ids(3))
    assert len(set(ids)) == 32
