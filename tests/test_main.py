"""The launcher as a user runs it: real processes, signals, checkpoints and files."""

import json
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main
from tests.conftest import run_script
from tests.forked import Program, one_device
from trainers import processes
from trainers.construct import UserError
from trainers.launch import FLAG_MODES, check_flags, launch_export

ROOT = Path(__file__).parents[1]
CONFIG = '--config=configs/digits.py:model=mini/7-4at1,runlocal'
SHORT = (
    '--config.total_steps=120',
    '--config.log_every_steps=10',
    '--config.checkpoint.every_steps=50',
    '--config.eval_every_epochs=0.4',
)


def start(*args):
    return Program('main.py', *args, env=one_device())


def run(*args):
    process = start(*args)
    out, err = process.communicate()
    return process.returncode, out, err


def stop_at(step, signum, *args):
    """Sends a signal when a step is logged; the exit status and what was printed."""
    process = start(*args)
    seen = ''
    for line in process.stdout:
        seen += line
        if f'step {step} ' in line:
            process.send_signal(signum)
            break
    out, err = process.communicate(timeout=300)
    return process.returncode, seen + out, err


def results(workdir):
    return json.loads((workdir / 'results.json').read_text())


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A workdir of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp('finished')
    status, out, err = run(CONFIG, f'--workdir={workdir}', *SHORT)
    assert status == 0, err
    assert 'step 120' in out
    return workdir


def test_help_starts():
    status, out, _ = run('--help')
    assert status == 0
    assert '--workdir' in out
    assert '<train|eval|predict|visualize|export|plan>' in out


def test_a_stopped_run_goes_on_and_ends_the_same(finished, tmp_path):
    cache = tmp_path / 'cache'
    command = (CONFIG, f'--workdir={tmp_path}', f'--compilation_cache={cache}', *SHORT)
    status, out, err = stop_at(20, signal.SIGTERM, *command)
    assert status == 143, err
    assert 'SIGTERM: saving, then stopping' in out
    status, out, err = stop_at(60, signal.SIGKILL, *command)
    assert status == -signal.SIGKILL, err
    assert 'from step 0' not in out
    status, out, err = stop_at(90, signal.SIGINT, *command)
    assert status == 130, err
    compiled = {p.name for p in cache.glob('*-cache')}
    assert len(compiled) > 5
    status, out, err = run(*command)
    assert status == 0, err
    assert {p.name for p in cache.glob('*-cache')} == compiled
    assert results(tmp_path)['metrics'] == results(finished)['metrics']
    lines = [json.loads(x) for x in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    logged = [x['step'] for x in lines if 'train/loss' in x]
    assert logged == sorted(set(logged))
    assert logged[-1] == 120
    assert [x['step'] for x in lines if 'digits/test/top1' in x] == [50, 100, 120]


@pytest.mark.slow
def test_a_signal_has_steps_profiled(tmp_path):
    status, out, err = stop_at(20, signal.SIGUSR1, CONFIG, f'--workdir={tmp_path}', *SHORT)
    assert status == 0, err
    assert 'profile of 5 steps' in out
    assert list((tmp_path / 'tensorboard' / 'plugins' / 'profile').rglob('*.xplane.pb'))


def test_what_a_finished_run_leaves(finished):
    files = {p.name for p in finished.iterdir()}
    assert {'config.json', 'environment.json', 'results.json', 'metrics.jsonl'} <= files
    assert list((finished / 'tensorboard').glob('events*'))
    found = results(finished)
    assert found['spec'] == 'mini/7-4at1'
    assert (found['dataset'], found['split'], found['resolution']) == ('digits', 'test', 28)
    assert (found['steps'], found['skipped_steps']) == (120, 0)
    top1 = found['metrics']['digits/test/top1']
    assert top1['n'] == 1000
    assert 0.2 < top1['value'] <= found['metrics']['digits/test/top5']['value']
    assert found['params'] == 207_802
    assert 1e-3 < found['gflops'] < 1e-2
    assert found['examples_per_s'] > 0
    assert json.loads((finished / 'config.json').read_text())['total_steps'] == 120
    lines = [json.loads(x) for x in (finished / 'metrics.jsonl').read_text().splitlines()]
    assert all(x['train/data_wait_ms'] >= 0 for x in lines if 'train/loss' in x)


def test_a_finished_run_is_not_trained_again(finished):
    before = results(finished)
    status, out, _ = run(CONFIG, f'--workdir={finished}', *SHORT)
    assert status == 0
    assert 'finished before' in out
    assert results(finished) == before


def test_evaluation_on_its_own(finished):
    status, _, err = run(CONFIG, f'--workdir={finished}', '--mode=eval', '--evaluator=test', *SHORT)
    assert status == 0, err
    evaluated = json.loads((finished / 'eval.json').read_text())
    finished_with = results(finished)
    known = {key: finished_with[key] for key in ('eval_resolution', 'clip', 'fps', 'metrics')}
    assert evaluated == {'step': 120, **known}


def test_predictions_agree_with_the_evaluation(finished):
    status, _, err = run(CONFIG, f'--workdir={finished}', '--mode=predict', *SHORT)
    assert status == 0, err
    lines = (finished / 'predictions_test.jsonl').read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert len({x['id'] for x in found}) == 1000
    hits = [max(x['predicted'], key=x['predicted'].get) == x['labels'][0] for x in found]
    assert np.mean(hits) == results(finished)['metrics']['digits/test/top1']['value']


def test_the_picture_is_drawn(finished):
    status, _, err = run(CONFIG, f'--workdir={finished}', '--mode=visualize', *SHORT)
    assert status == 0, err
    picture = np.asarray(Image.open(finished / 'attention_maps.png').convert('RGB')).astype(int)
    assert min(picture.shape[:2]) > 500
    coloured = np.ptp(picture, axis=-1) > 60
    assert coloured.mean() > 0.02  # heat over the digits, which are grey


def test_log_lines_have_one_form(tmp_path):
    code = (
        'import logging\n'
        'from trainers.terminal import log_to_terminal\n'
        'log_to_terminal()\n'
        'logging.getLogger("trainers.train").info("step 1")\n'
        'logging.getLogger("datasets.pipeline").warning("cannot be read, left out: a")\n'
    )
    lines = run_script(tmp_path, code).splitlines()
    assert [re.sub(r'^\d\d:\d\d:\d\d ', '', line) for line in lines] == [
        'step 1',
        'cannot be read, left out: a',
    ]
    assert all(line[2] == line[5] == ':' for line in lines)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('--config.batch_sise=1',), 'batch_sise is not a known key; did you mean batch_size?'),
        (('--config.batch_size=32.5',), "--config.batch_size=32.5: '32.5' is no whole number"),
        (('--config.schedule.learning_rate=many',), 'many'),
        (
            ('--config.model.spec=B16',),
            '[-SatK[atK...] or -poolGatK[atK...]]',
        ),
        (('--config.model.spec=mini/4-8at7',), 'use 0 to 3'),
        (('--config.model.spec=mini/29',), 'patch 29x29 is larger than the image 28x28'),
        (('--config.model.spec=mini/4-pool2at1',), 'windows do not take a 7x7 grid to 2x2'),
        (('--config.model.spec=mini/4-0at1',), 'asks for 0 tokens'),
        (('--config.model.attention=flash',), 'does not run on a cpu'),
        (('--workdir=/proc/nowhere',), 'cannot be written'),
        (('--workdir=gs://bucket/run',), 'mount the bucket'),
        (('--num_processes=2',), 'give all three'),
        (('--config.checkpoint.keep_every_steps=0',), 'keep_every_steps=0 is too small'),
        (('--mode=eval', '--workdir=EMPTY'), 'holds no checkpoint; train first'),
        (('--config.total_steps=60',), 'past total_steps=60'),
        (('--config.model.spec=mini/7',), "model.spec='mini/7-4at1', the config has 'mini/7'"),
        (('--config.model.pooling=mean',), "model.pooling='sum', the config has 'mean'"),
        (('--config=configs/digit.py',), 'there is no config file configs/digit.py; did you mean'),
        (('--mode=eval', '--evaluator=tset'), 'use one of test'),
        (('--config.checkpoint.every_steps=0',), 'every_steps=0 is too small'),
        (('--config.model.beta=mlp',), 'add -fuser or leave it out'),
    ],
    ids=lambda x: ' '.join(x) if isinstance(x, tuple) else '',
)
def test_bad_input_is_told_in_one_line(finished, tmp_path, args, message):
    args = [a.replace('EMPTY', str(tmp_path)) for a in args]
    before = (finished / 'config.json').read_text()
    status, _, err = run(CONFIG, f'--workdir={finished}', *SHORT, *args)
    assert status == 1
    assert err.startswith('error: ')
    assert err.count('\n') == 1, err
    assert message in err
    assert (finished / 'config.json').read_text() == before


@pytest.mark.parametrize(
    ('mode', 'given', 'message'),
    [
        ('train', {'layer': '1'}, '--layer does nothing in --mode=train; leave it out, or use'),
        ('train', {'evaluator': 'test'}, '--evaluator does nothing in --mode=train; .*=eval$'),
        ('eval', {'topology': 'cpu:8'}, '--topology does nothing in --mode=eval; .*=plan$'),
        ('plan', {'workdir': 'a'}, '--workdir does nothing in --mode=plan; .*=train or eval'),
        ('export', {'num_processes': 2}, '--num_processes does nothing in --mode=export; '),
        ('train', {'files': ['a.png']}, "'a.png' is not a flag; write --flag=value"),
        ('train', {'weights': 'w', 'files': ['a.png']}, '--weights does .*=predict or visualize$'),
        ('predict', {'weights': 'w', 'config': {}}, '--config does nothing beside --weights; '),
        (
            'predict',
            {'weights': 'w', 'tokens': 1},
            '--tokens does nothing in --mode=predict beside --w',
        ),
        ('predict', {'weights': 'w', 'json': 'a'}, '--json does nothing beside --weights; '),
    ],
)
def test_flags_that_do_nothing_are_refused(mode, given, message):
    flags = dict.fromkeys(FLAG_MODES) | given
    with pytest.raises(UserError, match=message):
        check_flags(mode, flags, flags.pop('files', ()))


def test_flags_that_do_something_are_taken():
    for of_weights, source in enumerate(('config', 'weights')):
        for name, modes in FLAG_MODES.items():
            for mode in modes[of_weights]:
                check_flags(mode, dict.fromkeys(FLAG_MODES) | {source: 'a', name: 'a'})
    assert set(FLAG_MODES['config'][0]) == set(main.MODES)
    with pytest.raises(UserError, match='--weights needs files; name them'):
        launch_export('w', 'visualize', [])


@pytest.mark.parametrize('flag', ['--debug', '--debug=1', '--debug=True'])
def test_a_traceback_is_shown_where_it_is_asked_for(flag):
    status, _, err = run(flag)
    assert status == 1
    assert err.startswith('Traceback')
    assert err.splitlines()[-1].startswith('error: --config is missing; name a file')


def test_a_lost_process_ends_this_one_though_the_traceback_is_shown(monkeypatch, capsys):
    def lose(argv):
        raise RuntimeError('Gloo: connection closed by peer')

    left = []
    monkeypatch.setattr(sys, 'argv', ['main.py', '--debug'])
    monkeypatch.setattr(main, 'run', lose)
    monkeypatch.setattr(processes, 'is_multiprocess', lambda: True)
    monkeypatch.setattr(processes, 'leave', left.append)
    assert main.main([]) == processes.LOST_PROCESS
    assert left == [processes.LOST_PROCESS]
    err = capsys.readouterr().err
    assert 'Traceback' in err
    assert 'error: another process has ended' in err


def test_data_that_are_not_there_are_told_of_at_once(tmp_path):
    status, _, err = run(
        '--config=configs/imagenet_finetune.py',
        f'--workdir={tmp_path}',
        f'--config.dataset.data_dir={tmp_path}',
    )
    assert status == 1
    assert err.startswith(f'error: imagenet2012 is not in {tmp_path}; prepare it: tfds build')
    assert 'ILSVRC2012_img_train.tar' in err


@pytest.mark.slow
def test_cropped_pixels_are_logged(tmp_path):
    status, out, err = run(
        '--config=configs/digits.py:model=mini/9-4at1',
        f'--workdir={tmp_path}',
        '--config.total_steps=1',
        '--config.schedule.warmup_epochs=0.0',
    )
    assert status == 0, err
    assert 'the last 1 rows and columns of pixels are cropped' in out
