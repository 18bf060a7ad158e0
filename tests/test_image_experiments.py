"""The image half of the paper end to end, on made sets: real main.py, real files."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file
from scipy.ndimage import zoom

from datasets.fake_images import make_fake_images
from tests.forked import as_users
from tests.forked import run as run_program
from trainers.weights import read_weights

pytestmark = pytest.mark.slow

PRETRAIN = '--config=configs/jft_pretrain.py:runlocal'
FINETUNE = '--config=configs/imagenet_finetune.py:runlocal'


def run(*args):
    """main.py on one CPU device; its output."""
    status, out, err = run_program('main.py', *args, env=as_users())
    assert status == 0, err[-2000:]
    return out + err


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sets')
    for name in ('jft', 'imagenet2012', 'imagenet2012_real', 'caltech101', 'dtd'):
        make_fake_images(name, folder)
    return f'--config.dataset.data_dir={folder}'


@pytest.fixture(scope='module')
def pretrained(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('pretrained')
    run(PRETRAIN, data, f'--workdir={workdir}', '--config.total_steps=700')
    return workdir


@pytest.fixture(scope='module')
def finetuned(data, pretrained, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('finetuned')
    run(FINETUNE, data, f'--workdir={workdir}', f'--config.init_from.path={pretrained}')
    return workdir


def metrics(workdir, file='results.json'):
    return json.loads((workdir / file).read_text())['metrics']


def losses(workdir):
    lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    return [line['train/loss'] for line in lines if 'train/loss' in line]


def test_the_loss_falls(pretrained, finetuned):
    for workdir in (pretrained, finetuned):
        assert losses(workdir)[-1] < 0.6 * losses(workdir)[0]


def test_weights_to_begin_with_beat_none(data, finetuned, tmp_path):
    run(FINETUNE, data, f'--workdir={tmp_path}')
    begun, scratch = (metrics(w)['imagenet2012/validation/top1'] for w in (finetuned, tmp_path))
    assert begun['n'] == scratch['n'] == 500
    assert begun['value'] > scratch['value'] + 0.1


def test_every_weight_is_accounted_for_and_positions_are_resized(data, pretrained, tmp_path):
    table = [FINETUNE, data, '--config.total_steps=1', '--config.schedule.learning_rate=1e-30']
    run(*table, f'--workdir={tmp_path}', f'--config.init_from.path={pretrained}')
    actions = {
        row['path']: row['action']
        for row in json.loads((tmp_path / 'init_from.json').read_text())['parameters']
    }
    assert actions.pop('position_embedding') == 'resized'
    assert {actions.pop('head/kernel'), actions.pop('head/bias')} == {'skipped'}
    assert set(actions.values()) == {'loaded'}
    old, new = (read_weights(w).flat for w in (pretrained, tmp_path))
    for path in actions:
        # Of the new one the averaged parameters, after a step of next to nothing.
        np.testing.assert_allclose(old[path], new[path], rtol=1e-6, err_msg=path)
    grid = old['position_embedding'].reshape(4, 4, -1)
    expected = zoom(grid, (6 / 4, 6 / 4, 1), order=1).reshape(1, 36, -1)
    np.testing.assert_allclose(new['position_embedding'], expected, atol=1e-6)


def test_real_is_over_the_examples_with_labels(data, finetuned):
    run(FINETUNE, data, f'--workdir={finetuned}', '--mode=eval', '--evaluator=real')
    found = metrics(finetuned, 'eval.json')
    top1 = found['imagenet2012_real/validation/top1']
    assert top1['n'] == 500 - 500 // 16
    assert top1['value'] > 0.4


def test_five_shots_recognise_the_digits(data, pretrained):
    for name in ('fewshot', 'fewshot_fixed'):
        run(PRETRAIN, data, f'--workdir={pretrained}', '--mode=eval', f'--evaluator={name}')
        prefix = {'fewshot': 'fewshot_lsr_rank', 'fewshot_fixed': 'fewshot_lsr_fixed'}[name]
        found = metrics(pretrained, 'eval.json')
        sets = [found[f'{prefix}/{s}/test/5shot']['value'] for s in ('caltech101', 'dtd')]
        assert min(sets) >= 0.5
        np.testing.assert_allclose(found[f'{prefix}/mean/5shot']['value'], np.mean(sets))


def test_the_export_runs_without_this_code_and_predicts(data, finetuned, tmp_path):
    run(FINETUNE, data, f'--workdir={finetuned}', '--mode=export')
    folder = finetuned / 'export'
    code = (
        'import sys, jax, numpy as np\n'
        'from jax import export\n'
        'from safetensors.numpy import load_file\n'
        'program = export.deserialize(bytearray(open("program.jax_export", "rb").read()))\n'
        'images = np.load("images.npy")\n'
        'np.save("logits.npy", program.call(load_file("model.safetensors"), images))\n'
        'assert not {"token_learner", "trainers", "datasets", "flax"} & set(sys.modules)\n'
    )
    from datasets import load_dataset
    from datasets.geometry import Resize

    source = load_dataset('imagenet2012', data.partition('=')[2]).split('validation')
    examples = [source[i] for i in range(5)]
    images = np.stack([Resize(48)(e['image'], (0,)) for e in examples])
    np.save(folder / 'images.npy', images)
    command = [sys.executable, '-c', code]
    subprocess.run(command, cwd=folder, env=as_users(), check=True, timeout=120)
    logits = np.load(folder / 'logits.npy')
    run(FINETUNE, data, f'--workdir={finetuned}', '--mode=predict')
    lines = (finetuned / 'predictions_validation.jsonl').read_text().splitlines()
    names = (folder / 'labels.txt').read_text().splitlines()
    for line, own in zip(map(json.loads, lines[:5]), logits, strict=True):
        best = max(line['predicted'], key=line['predicted'].get)
        assert best == names[own.argmax()]
        np.testing.assert_allclose(
            line['predicted'][best], jax.nn.softmax(own)[own.argmax()], rtol=1e-4
        )
    (tmp_path / 'digit.jpg').write_bytes(examples[0]['image'])
    out = run(
        '--mode=predict', f'--weights={folder / "model.safetensors"}', str(tmp_path / 'digit.jpg')
    )
    assert names[logits[0].argmax()] in out.splitlines()[1]
    saved = load_file(folder / 'model.safetensors')
    ours = read_weights(finetuned).flat
    assert saved.keys() == ours.keys() == flatten_dict(ours, sep='/').keys()


def test_an_export_begins_a_run_and_other_classes_are_refused(data, finetuned, tmp_path):
    run(FINETUNE, data, f'--workdir={finetuned}', '--mode=export')
    path = finetuned / 'export'
    once = [FINETUNE, data, '--config.total_steps=1', f'--workdir={tmp_path / "again"}']
    run(*once, f'--config.init_from.path={path}')
    actions = json.loads((tmp_path / 'again' / 'init_from.json').read_text())['parameters']
    assert {row['action'] for row in actions} == {'loaded', 'skipped'}
