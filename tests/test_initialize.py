"""Weights to begin with: from a workdir, and in the files of other code bases."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from configs import digits
from token_learner.pretrained import to_augreg, to_huggingface, write_huggingface
from trainers.checkpoints import open_checkpoints
from trainers.construct import UserError
from trainers.experiment import make_experiment
from trainers.initialize import begin
from trainers.state import create_state


def make(model, path='', new=('^head/',), **settings):
    config = digits.get_config(f'model={model},res=28')
    config.model.update(settings)
    config.init_from.path, config.init_from.new = str(path), new
    return make_experiment(config.lock())


def params(state):
    return {k: np.asarray(v) for k, v in flatten_dict(state.params, sep='/').items()}


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """A plain ViT with a class token: its parameters, and the files that hold them."""
    folder = tmp_path_factory.mktemp('plain')
    experiment = make('mini/7', head='token')
    state = create_state(experiment)
    with open_checkpoints(folder, experiment) as checkpoints:
        checkpoints.save(1, state)
    tree = jax.device_get(state.params)
    np.savez(folder / 'vit.npz', **to_augreg(tree, experiment.model))
    write_huggingface(folder / 'huggingface', *to_huggingface(tree, experiment.model, 28))
    return params(state), folder


@pytest.fixture(scope='module')
def fresh():
    return params(create_state(make('mini/7-4at2')))


@pytest.mark.parametrize('file', ['', 'checkpoints/1', 'vit.npz', 'huggingface'])
def test_a_plain_vit_begins_a_token_learner(plain, fresh, file, tmp_path):
    theirs, folder = plain
    experiment = make('mini/7-4at2', folder / file, ('^head/', 'tokenizer_'))
    ours = params(begin(experiment, tmp_path))
    for path, array in ours.items():
        if path == 'position_embedding':
            np.testing.assert_array_equal(array, theirs[path][:, 1:])
        else:
            new = path.startswith('head/') or 'tokenizer_' in path
            np.testing.assert_array_equal(array, fresh[path] if new else theirs[path], path)
    rows = json.loads((tmp_path / 'init_from.json').read_text())['parameters']
    actions = {row['path']: row['action'] for row in rows}
    assert actions['class_token'] == 'skipped'
    assert actions['encoder/tokenizer_2/norm/scale'] == 'missing'


def test_averaged_parameters_begin_with_the_weights(plain, tmp_path):
    config = digits.get_config('model=mini/7')
    config.model.head, config.ema, config.init_from.path = 'token', 0.9, str(plain[1])
    state = begin(make_experiment(config.lock()), tmp_path)
    for own, averaged in zip(*map(jax.tree.leaves, (state.params, state.ema)), strict=True):
        np.testing.assert_array_equal(own, averaged)


def test_the_arrays_lie_as_the_mesh_wants_them(plain, tmp_path):
    config = digits.get_config('model=mini/7')
    config.model.head, config.init_from.path = 'token', str(plain[1])
    config.mesh = {'data': 1, 'fsdp': 4, 'tensor': 2}
    experiment = make_experiment(config.lock())
    shardings = [
        [x.sharding for x in jax.tree.leaves(state.params)]
        for state in (begin(experiment, tmp_path), create_state(experiment))
    ]
    assert shardings[0] == shardings[1]


def test_what_does_not_fit_is_told(plain, tmp_path):
    _, folder = plain
    cases = [
        (make('mini/7-4at2', folder), 'the source lacks encoder/tokenizer_2'),
        (make('mini/4', folder), r'embedding/kernel \(7, 7, 1, 64\) -> \(4, 4, 1, 64\)'),
        (make('mini/7+1', folder), 'the source lacks encoder/block_4'),
        (make('mini/7', tmp_path / 'nothing'), 'is not there; name a workdir'),
        (make('mini/7', tmp_path), 'name another file|no .npz, no .safetensors'),
    ]
    (tmp_path / 'checkpoints').mkdir()
    for experiment, message in cases[:-1]:
        with pytest.raises(UserError, match=message):
            begin(experiment, tmp_path)
    with pytest.raises(UserError, match='holds no checkpoint'):
        begin(make('mini/7', tmp_path), tmp_path)


def test_a_head_of_other_classes_is_refused(plain, tmp_path):
    _, folder = plain
    kept = make('mini/7', folder, ('class_token',), head='token')
    identity = folder / 'checkpoints' / '1' / 'identity' / 'metadata'
    saved = identity.read_text()
    begin(make('mini/7', folder, (), head='token'), tmp_path)
    content = json.loads(saved)
    identity.write_text(json.dumps({**content, 'dataset.labels': '0' * 16}))
    try:
        with pytest.raises(UserError, match=r'into config\.init_from\.new'):
            begin(kept, tmp_path)
    finally:
        identity.write_text(saved)


def test_an_exported_file_of_another_model_is_told(plain, tmp_path):
    _, folder = plain
    weights = load_file(folder / 'huggingface' / 'model.safetensors')
    save_file(dict(list(weights.items())[:3]), tmp_path / 'part.safetensors')
    with pytest.raises(UserError, match='init_from'):
        begin(make('mini/7', tmp_path / 'part.safetensors'), tmp_path)


def test_weights_that_were_trained_otherwise_are_told_of(plain, tmp_path):
    _, folder = plain
    config = folder / 'huggingface' / 'config.json'
    saved = config.read_text()
    settings = ('mini/7-4at2', folder / 'huggingface', ('^head/', 'tokenizer_'))

    def told(**changes):
        config.write_text(json.dumps({**json.loads(saved), **changes}))
        begin(make(*settings, pooling='mean'), tmp_path)
        return json.loads((tmp_path / 'init_from.json').read_text())['trained_otherwise']

    try:
        assert told() == {}  # that of the tokenizer, which is new, says nothing of the weights
        assert told(hidden_act='gelu') == {'model.gelu': ['erf', 'tanh']}
        with pytest.raises(UserError, match='has 2 heads, the model 4'):
            told(num_attention_heads=2)
    finally:
        config.write_text(saved)
    experiment = make('mini/7', folder, head='token')
    pixels = dataclasses.replace(experiment.data, mean=(0.1,))
    begin(dataclasses.replace(experiment, data=pixels), tmp_path)
    rows = json.loads((tmp_path / 'init_from.json').read_text())
    assert rows['trained_otherwise'] == {'dataset.mean': [[0.5], [0.1]]}
