import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file
from scipy import ndimage

from token_learner import TokenLearner, ViT, build_model
from token_learner.pretrained import (
    adapt,
    convert,
    format_report,
    read,
    rename,
    to_augreg,
    to_huggingface,
    write_huggingface,
)

GOLDEN = Path(__file__).parents[2] / 'shared' / 'golden'
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason='reference outputs are not here')

SIZES = {'patch': (8, 8), 'width': 32, 'layers': 3, 'heads': 4, 'mlp_dim': 64}
NEW = ('head/', 'tokenizer')


def vit(**settings):
    return ViT(**{'num_classes': 5, **SIZES, **settings})


def random_params(model, size=(32, 32), seed=0):
    """Parameters of which none is zero."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *size, 3)))['params']
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def flat(params):
    return flatten_dict(params, sep='/')


def assert_same(first, second):
    assert first.keys() == second.keys()
    for path in first:
        assert first[path].dtype == second[path].dtype
        np.testing.assert_array_equal(first[path], second[path], err_msg=path)


def linen(path):
    """Flax numbers a block's modules by class; the released files' numbers run on."""
    numbers = {'LayerNorm_2': 'LayerNorm_1', 'MlpBlock_3': 'MlpBlock_0'}
    numbers['MultiHeadDotProductAttention_1'] = 'MultiHeadDotProductAttention_0'
    return re.sub('|'.join(numbers), lambda name: numbers[name[0]], path)


@needs_golden
@pytest.mark.parametrize('head', ['gap', 'token'])
def test_a_checkpoint_of_vision_transformer_goes_in_and_out_unchanged(head):
    theirs, source = read(GOLDEN / f'augreg_vit_{head}.npz')
    assert source == 'augreg'
    model = vit(num_classes=9, head=head)
    params = convert(theirs, source=source, model=model)
    written = to_augreg(params, model)
    assert 'Transformer/encoderblock_0/MlpBlock_3/Dense_1/kernel' in written
    assert_same({linen(path): array for path, array in written.items()}, theirs)
    assert_same(flat(convert(written, source=source, model=model)), flat(params))


@needs_golden
def test_a_folder_of_huggingface_goes_in_and_out_unchanged(tmp_path):
    theirs, source = read(GOLDEN / 'hf_vit')
    assert source == 'huggingface'
    model = vit(num_classes=11, head='token', gelu='erf')
    write_huggingface(
        tmp_path, *to_huggingface(convert(theirs, source=source, model=model), model, 32)
    )
    assert_same(load_file(tmp_path / 'model.safetensors'), theirs)
    written, config = (
        json.loads((d / 'config.json').read_text()) for d in (tmp_path, GOLDEN / 'hf_vit')
    )
    same = {key for key in written if config.get(key) == written[key]}
    assert set(written) - same == {'layer_norm_eps'}


@pytest.mark.parametrize('source', ['augreg', 'huggingface'])
def test_parameters_go_out_and_in_unchanged(source, tmp_path):
    token = vit(head='token', patch=(8, 16))
    params = random_params(token, (16, 32))
    if source == 'huggingface':
        theirs, config = to_huggingface(params, token, (16, 32))
        assert (config['image_size'], config['patch_size']) == ([16, 32], [8, 16])
        assert config['hidden_act'] == 'gelu_pytorch_tanh'
    else:
        token = vit(head='token', representation=6, patch=(8, 16))
        params = random_params(token, (16, 32))
        theirs = to_augreg(params, token)
        assert {'cls', 'pre_logits/kernel'} <= theirs.keys()
    save_file(theirs, tmp_path / 'x.safetensors')
    again, found = (load_file(tmp_path / 'x.safetensors'), source)
    assert_same(flat(convert(again, source=found, model=token)), flat(params))


def test_what_is_no_counterpart_is_refused():
    theirs = to_augreg(random_params(vit()), vit())
    learner = build_model({'spec': 'mini/4-8at2'}, 5)
    for model, source, message in [
        (vit(head='token'), 'augreg', 'no parameter cls, from which class_token would come'),
        (vit(representation=4), 'augreg', 'no parameter pre_logits, from which representation'),
        (vit(layers=2), 'augreg', 'encoderblock_2/.* has no place in ViT'),
        (vit(), 'huggingface', "huggingface has no head='gap'; use token"),
        (vit(head='token'), 'scenic', "scenic has no head='token'; use gap"),
        (learner, 'augreg', 'augreg has no token reductions; take a plain ViT, or'),
        (TokenLearner(8), 'huggingface', 'huggingface has no TokenLearner; convert a ViT'),
    ]:
        with pytest.raises(ValueError, match=message):
            convert(theirs, source=source, model=model)
    twice = theirs | {'Transformer/encoderblock_1/LayerNorm_1/bias': np.ones(32)}
    with pytest.raises(ValueError, match='LayerNorm_1/bias is not the only parameter that becomes'):
        convert(twice, source='augreg', model=vit())
    with_token = to_augreg(random_params(vit(head='token')), vit(head='token'))
    with pytest.raises(ValueError, match='class_token has no place in ViT'):
        convert(with_token, source='augreg', model=vit())


def test_what_another_code_base_cannot_hold_is_refused():
    token = vit(head='token')
    params = random_params(token)
    with pytest.raises(ValueError, match="augreg has no gelu='erf'; use 'tanh'"):
        to_augreg(params, vit(head='token', gelu='erf'))
    with pytest.raises(ValueError, match='has 4 patches, the position embeddings are for 16'):
        to_huggingface(params, token, 16)
    with pytest.raises(ValueError, match='no representation before the head'):
        to_huggingface(params, vit(head='token', representation=4), 32)
    with pytest.raises(ValueError, match=r'encoder/block_2/.* has no place in augreg; give the'):
        to_augreg(params, vit(head='token', layers=2))
    theirs, _ = to_huggingface(params, token, 32)
    with pytest.raises(ValueError, match=r'attention/.* is not divided by 5 heads'):
        convert(theirs, source='huggingface', model=vit(head='token', heads=5))


@pytest.mark.parametrize(
    ('old', 'new'), [((4, 4), (7, 7)), ((3, 5), (6, 4)), ((5, 3), (1, 2)), ((1, 4), (3, 9))]
)
def test_positions_are_resized_as_scipy_does(old, new):
    rng = np.random.default_rng(0)
    source = rng.normal(size=(1, old[0] * old[1], 6)).astype(np.float32)
    target = np.zeros((1, new[0] * new[1], 6), np.float32)
    params, report = adapt(
        {'position_embedding': source},
        {'position_embedding': target},
        source_grid=old,
        target_grid=new,
    )
    zoom = (new[0] / old[0], new[1] / old[1], 1)
    expected = ndimage.zoom(source.reshape(*old, 6), zoom, order=1)
    assert expected.shape == (*new, 6)
    ours = params['position_embedding']
    assert (ours.dtype, report[0].action) == (np.float32, 'resized')
    np.testing.assert_allclose(ours, expected.reshape(target.shape), rtol=1e-5, atol=1e-6)


def positions(n, token):
    tree = {'position_embedding': np.arange(2.0 * n).reshape(1, n, 2)}
    return tree | ({'class_token': np.full((1, 1, 2), float(n))} if token else {})


def test_the_class_token_has_a_position_of_its_own():
    params, _ = adapt(positions(5, True), positions(10, True))
    position = params['position_embedding']
    np.testing.assert_array_equal(position[0, [0, 1, 3, 7, 9], 0], [0, 2, 4, 6, 8])
    params, report = adapt(positions(5, True), positions(4, False))
    np.testing.assert_array_equal(params['position_embedding'][0, :, 0], [2, 4, 6, 8])
    assert [(row.path, row.action) for row in report] == [
        ('position_embedding', 'resized'),
        ('class_token', 'skipped'),
    ]
    target = positions(5, True)
    target['position_embedding'] = target['position_embedding'] + 100
    with pytest.raises(ValueError, match=r'^the source lacks class_token: name .* in `new`$'):
        adapt(positions(4, False), target)
    params, _ = adapt(positions(4, False), target, new=['class_token'])
    np.testing.assert_array_equal(params['position_embedding'][0, :, 0], [100, 0, 2, 4, 6])
    abstract = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in target.items()}
    with pytest.raises(ValueError, match='has no position yet; give arrays as target'):
        adapt(positions(4, False), abstract, new=['class_token'])


def test_positions_that_make_no_grid_are_refused():
    with pytest.raises(ValueError, match='6 position embeddings make no square; give source_grid'):
        adapt(positions(6, False), positions(4, False))
    with pytest.raises(ValueError, match=r'target_grid=\(2, 3\) has no 4 positions'):
        adapt(positions(9, False), positions(4, False), target_grid=(2, 3))
    # The same number in another grid is another grid; the same grid need not be said.
    six, four = positions(6, False), positions(4, False)
    for tree, grids, action in [
        (six, {}, 'loaded'),
        (six, {'source_grid': (2, 3), 'target_grid': (3, 2)}, 'resized'),
        (four, {'target_grid': (2, 2)}, 'loaded'),
    ]:
        assert adapt(tree, tree, **grids)[1][0].action == action


def learner_and_source():
    """Parameters of a TokenLearner with another head and grid, and of a plain ViT, renamed."""
    plain = vit(num_classes=9, head='token', representation=6)
    source = to_augreg(random_params(plain), plain)
    learner = vit(reductions=((2, lambda name=None: TokenLearner(8, name=name)),))
    target = flat(random_params(learner, (48, 48), seed=1))
    ours, unknown = rename(source, source='augreg', model=learner)
    assert not unknown
    return target, ours


def test_a_plain_vit_begins_a_token_learner():
    target, ours = learner_and_source()
    params, report = adapt(ours, target, new=NEW, unused=['representation'])
    actions = {row.path: row.action for row in report}
    for path in target:
        action = 'loaded' if path in ours else 'missing'
        action = {'position_embedding': 'resized', 'head': 'skipped'}.get(
            path.split('/')[0], action
        )
        assert actions[path] == action
        fresh = target[path] if action in ('missing', 'skipped') else ours[path]
        if action != 'resized':
            np.testing.assert_array_equal(params[path], fresh)
    assert {path for path in actions if path not in target} == {
        'class_token',
        'representation/kernel',
        'representation/bias',
    }
    lines = format_report(report).splitlines()
    assert len(lines) == 13
    assert lines[0] == '52 loaded, 1 resized, 0 inflated, 5 skipped, 6 missing'
    assert lines[1] == 'missing  encoder/tokenizer_2/conv_0/kernel  - -> (3, 3, 32, 8)'
    assert 'resized  position_embedding                 (1, 17, 32) -> (1, 36, 32)' in lines
    assert 'skipped  head/kernel                        (6, 9) -> (32, 5)' in lines
    assert {k: v.shape for k, v in params.items()} == {k: v.shape for k, v in target.items()}


def test_all_that_is_unaccounted_for_is_told_at_once():
    target, ours = learner_and_source()
    ours['encoder/norm/scale'] = np.ones(48)
    with pytest.raises(ValueError, match='the source lacks') as error:
        adapt(ours, target, new=['head/kernel'])
    assert str(error.value) == (
        'the source lacks encoder/tokenizer_2/conv_0/kernel, encoder/tokenizer_2/conv_1/kernel, '
        'encoder/tokenizer_2/conv_2/kernel and 3 more: name what is to be initialised in `new`; '
        'the model has no representation/bias, representation/kernel: name what is to be left out '
        'in `unused`; shapes differ, encoder/norm/scale (48,) -> (32,), head/bias (9,) -> (5,): '
        'name what is to be initialised in `new`'
    )
    with pytest.raises(ValueError, match=r"'\(head' is no regular expression"):
        adapt(ours, target, new=['(head'])


def test_equal_layers_share_a_row():
    source = {f'encoder/block_{i}/mlp/out/bias': np.ones(4) for i in range(3)}
    target = {'head/bias': jax.ShapeDtypeStruct((2,), jnp.bfloat16)}
    params, report = adapt(source | {'head/bias': np.ones(2)}, target, unused=['block_'])
    assert params['head/bias'].dtype == jnp.bfloat16
    assert format_report(report) == (
        '1 loaded, 0 resized, 0 inflated, 3 skipped, 0 missing\n'
        'skipped  encoder/block_*/mlp/out/bias  (4,) -> -  x3'
    )


def test_other_layouts_of_a_source_are_read(tmp_path):
    token = vit(head='token')
    theirs, config = to_huggingface(random_params(token), token, 32)
    write_huggingface(tmp_path / 'folder', theirs, config)
    bare = {k.removeprefix('vit.'): v for k, v in theirs.items() if 'classifier' not in k}
    save_file(bare | {'pooler.dense.bias': np.ones(32)}, tmp_path / 'bare.safetensors')
    assert read(tmp_path / 'folder')[0].keys() == theirs.keys()
    found, source = read(tmp_path / 'bare.safetensors')
    ours, unknown = rename(found, source=source, model=token)
    assert (source, unknown) == ('huggingface', [])
    assert ours.keys() == flat(random_params(token)).keys() - {'head/kernel', 'head/bias'}
    half = {k: v.astype(jnp.bfloat16) for k, v in theirs.items()}
    save_file(half, tmp_path / 'half.safetensors')
    assert_same(read(tmp_path / 'half.safetensors')[0], half)
    scenic = {
        k.replace('head/', 'output_projection/'): v
        for k, v in to_augreg(random_params(vit()), vit()).items()
    }
    np.savez(tmp_path / 'scenic.npz', **{f'params/{k}': v for k, v in scenic.items()}, step=3)
    found, source = read(tmp_path / 'scenic.npz')
    assert source == 'scenic'
    assert_same(found, scenic)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    model = vit(head='token')
    theirs = to_augreg(random_params(model), model)
    np.savez(tmp_path / 'whole.npz', **theirs)
    np.savez(tmp_path / 'pickled.npz', **theirs | {'cls': np.array([{}], dtype=object)})
    np.savez(tmp_path / 'other.npz', weight=np.ones(3))
    save_file(theirs, tmp_path / 'whole.safetensors')
    (tmp_path / 'text.npz').write_text('none')
    (tmp_path / 'weights.pt').write_bytes(b'')
    for kind in ('npz', 'safetensors'):
        whole = (tmp_path / f'whole.{kind}').read_bytes()
        (tmp_path / f'cut.{kind}').write_bytes(whole[: len(whole) // 2])
    middle = bytearray((tmp_path / 'whole.npz').read_bytes())
    middle[len(middle) // 2] ^= 255
    (tmp_path / 'damaged.npz').write_bytes(middle)
    assert read(tmp_path / 'whole.npz')[1] == read(tmp_path / 'whole.safetensors')[1] == 'augreg'
    for name, message in [
        ('pickled.npz', 'pickled.npz cannot be read .*allow_pickle=False'),
        ('other.npz', 'other.npz holds weight, ...: no Vision Transformer of'),
        ('text.npz', 'text.npz cannot be read .File is not a zip file'),
        ('cut.npz', 'cut.npz cannot be read .File is not a zip file'),
        ('damaged.npz', 'damaged.npz cannot be read .Bad CRC'),
        ('cut.safetensors', 'cut.safetensors cannot be read'),
        ('absent.npz', 'absent.npz cannot be read .*No such file'),
        ('', 'model.safetensors cannot be read .*No such file'),
        ('weights.pt', 'weights.pt is no .npz, no .safetensors and no folder'),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            read(tmp_path / name)
        assert '\n' not in str(error.value)
