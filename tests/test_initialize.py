"""Weights to begin with: from a workdir, and in the files of other code bases."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

from configs import digits, moving_digits
from tests.conftest import slow
from token_learner.pretrained import to_augreg, to_huggingface, write_huggingface
from token_learner.pretrained.convert import place
from token_learner.pretrained.layouts import to_torch
from token_learner.pretrained.names import names_of
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


def make_video(model, path='', new=('^head/',), frames=8, init_from=(), **settings):
    config = moving_digits.get_config(f'model={model}')
    config.dataset.update(resolution=28, mean=(0.5,), std=(0.5,))
    config.clip.frames = frames
    config.model.update(settings)
    config.init_from.update(path=str(path), new=new, **dict(init_from))
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


@pytest.mark.parametrize('file', [*map(slow, ('.', 'checkpoints/1', 'huggingface')), 'vit.npz'])
def test_a_plain_vit_begins_a_token_learner(plain, fresh, file, tmp_path, monkeypatch):
    theirs, folder = plain
    monkeypatch.chdir(folder)
    experiment = make('mini/7-4at2', file, ('^head/', 'tokenizer_'))
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


@pytest.mark.slow
def test_averaged_parameters_begin_with_the_weights(plain, tmp_path):
    config = digits.get_config('model=mini/7')
    config.model.head, config.ema, config.init_from.path = 'token', 0.9, str(plain[1])
    state = begin(make_experiment(config.lock()), tmp_path)
    for own, averaged in zip(*map(jax.tree.leaves, (state.params, state.ema)), strict=True):
        np.testing.assert_array_equal(own, averaged)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_exported_file_of_another_model_is_told(plain, tmp_path):
    _, folder = plain
    weights = load_file(folder / 'huggingface' / 'model.safetensors')
    save_file(dict(list(weights.items())[:3]), tmp_path / 'part.safetensors')
    with pytest.raises(UserError, match='init_from'):
        begin(make('mini/7', tmp_path / 'part.safetensors'), tmp_path)


@pytest.mark.slow
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


def save(folder, experiment, seed):
    """A workdir with a checkpoint of random parameters, which it returns."""
    state, rng = create_state(experiment), np.random.default_rng(seed)
    noise = [x + 0.1 * rng.normal(size=x.shape) for x in jax.tree.leaves(state.params)]
    tree = jax.tree.unflatten(jax.tree.structure(state.params), noise)
    state = state.replace(params=jax.tree.map(lambda x, y: y.astype(x.dtype), state.params, tree))
    with open_checkpoints(folder, experiment) as checkpoints:
        checkpoints.save(1, state)
    return params(state)


FUSED = {'version': 'v1.1', 'fuser_norm': 'full', 'beta': 'mlp'}


@pytest.fixture(scope='module')
def fused(tmp_path_factory):
    """An image model with TokenLearner and TokenFuser: the workdir, and the parameters."""
    folder = tmp_path_factory.mktemp('fused')
    return folder, save(folder, make('mini/7-3at2-fuser', **FUSED), 1)


@pytest.fixture(scope='module')
def of_clips(tmp_path_factory):
    """The same of a plain model of clips with a class token."""
    folder = tmp_path_factory.mktemp('clips')
    return folder, save(folder, make_video('ViViT-mini/7x2', head='token'), 2)


@pytest.mark.slow
def test_a_model_of_images_begins_one_of_clips(fused, tmp_path):
    folder, old = fused
    image = make('mini/7-3at2-fuser', **FUSED)
    average = {'inflate': 'average'}
    model, settings = 'ViViT-mini/7x2-3at2-fuser', {**FUSED, 'mix_scope': 'clip'}
    experiment = make_video(model, folder, init_from=average, **settings)
    made = params(begin(experiment, tmp_path))
    told = json.loads((tmp_path / 'init_from.json').read_text())
    actions = {row['path']: row['action'] for row in told['parameters']}
    inflated = {path for path, action in actions.items() if action == 'inflated'}
    mixing = {f'encoder/fuser_{i}/mix/{leaf}' for i in (2, 3) for leaf in ('kernel', 'bias')}
    assert inflated == {'embedding/kernel', 'position_embedding', *mixing}
    assert {path for path, action in actions.items() if action == 'skipped'} == {
        'head/kernel',
        'head/bias',
    }
    assert set(actions.values()) == {'inflated', 'skipped', 'loaded'}
    assert told['trained_otherwise'] == {}
    # What the head reads is the same, so give both the same head.
    head = {'kernel': np.ones((64, 1)), 'bias': np.zeros(1)}
    images = np.random.default_rng(3).normal(size=(2, 28, 28, 1)).astype(np.float32)
    clips = np.repeat(images[:, None], 8, axis=1)
    outs = [
        jax.jit(model.clone(num_classes=1).apply)(
            {'params': {**unflatten_dict(flat, sep='/'), 'head': head}}, inputs
        )
        for model, flat, inputs in [
            (image.model, old, images),
            (experiment.model, made, clips),
        ]
    ]
    np.testing.assert_allclose(*outs, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_clips_of_other_lengths_are_resized_only_if_asked_for(of_clips, tmp_path):
    folder, old = of_clips
    longer = {'model': 'ViViT-mini/7x2', 'path': folder, 'head': 'token', 'frames': 14}
    with pytest.raises(UserError, match=r'is for 4 times .* for 7: use clips of 4 .*resize_time=T'):
        begin(make_video(**longer), tmp_path)
    made = params(begin(make_video(**longer, init_from={'resize_time': True}), tmp_path))
    was, position = (x['position_embedding'][0, 1:].reshape(-1, 16, 64) for x in (old, made))
    np.testing.assert_allclose(position[::2], was, atol=1e-6)
    np.testing.assert_allclose(position[1], (was[0] + was[1]) / 2, atol=1e-6)


@pytest.mark.slow
def test_a_vivit_of_transformers_begins_ours(of_clips, tmp_path):
    _, old = of_clips
    experiment = make_video('ViViT-mini/7x2', tmp_path, (), head='token')
    names = {ours: theirs for theirs, ours in names_of('huggingface', experiment.model).items()}
    theirs = dict(to_torch(*item) for item in old.items())
    flat = {place(path, names, after='.'): array for path, array in theirs.items()}
    assert 'vivit.encoder.layer.3.attention.attention.query.weight' in flat
    config = {
        'model_type': 'vivit',
        'hidden_act': 'gelu_fast',
        'num_attention_heads': 4,
        'num_frames': 8,
        'tubelet_size': [2, 7, 7],
        'image_size': 28,
    }
    write_huggingface(tmp_path, flat, config)
    made = params(begin(experiment, tmp_path))
    assert made.keys() == old.keys()
    for path, array in made.items():
        np.testing.assert_array_equal(array, old[path], path)
    assert json.loads((tmp_path / 'init_from.json').read_text())['trained_otherwise'] == {}
    for changes, message in [
        ({'num_frames': 4}, r'source_grid=\(2, 4, 4\) has no 64 positions'),
        ({'num_attention_heads': 2}, 'has 2 heads, the model 4'),
        ({'tubelet_size': None}, 'config.json describes no ViT and no ViViT .TypeError'),
        ({'image_size': 'large'}, 'config.json describes no ViT and no ViViT'),
    ]:
        write_huggingface(tmp_path, flat, config | changes)
        with pytest.raises(UserError, match=message) as error:
            begin(experiment, tmp_path)
        assert '\n' not in str(error.value)


@pytest.mark.slow
def test_a_model_of_another_family_is_told(fused, of_clips, tmp_path):
    images, clips = fused[0], of_clips[0]
    cases = [
        (make('mini/7', clips, head='token'), 'a model of clips, and this is one of images; begin'),
        (make_video('ViViT-mini/4x2', images), r'embedding/kernel \(7, 7, 1, 64\) -> \(2, 4, 4, 1'),
    ]
    for experiment, message in cases:
        with pytest.raises(UserError, match=message) as error:
            begin(experiment, tmp_path)
        assert '\n' not in str(error.value)
    with pytest.raises(
        UserError, match="inflate='first' is not known; use one of central, average"
    ):
        make_video('ViViT-mini/7x2', init_from={'inflate': 'first'})
