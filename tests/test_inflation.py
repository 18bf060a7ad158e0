"""Models of clips that begin with the parameters of others."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file
from scipy import ndimage

from token_learner import ViT, ViViT, build_model
from token_learner.pretrained import (
    INFLATIONS,
    adapt,
    convert,
    format_report,
    read,
    rename,
    to_augreg,
    to_huggingface,
)

GOLDEN = Path(__file__).parents[2] / 'shared' / 'golden'
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason='reference outputs are not here')

TIMES, TUBELET = 3, 2
IMAGES = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
V11 = {'version': 'v1.1'}
CLIP = {'mix_scope': 'clip'}


def random_params(model, inputs, seed=1):
    """Parameters by path, of which none is zero."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(inputs))['params']
    rng = np.random.default_rng(seed)
    return {
        path: (rng.normal(size=x.shape) * 0.2 + path.endswith('scale')).astype(np.float32)
        for path, x in flatten_dict(shapes, sep='/').items()
    }


def small(spec, **settings):
    """A model of two blocks."""
    return build_model({'spec': spec, **settings}, 5).clone(layers=2, width=16, mlp_dim=32)


def compiled(model):
    """A function from parameters by path and inputs to logits."""

    @jax.jit
    def apply(flat, inputs):
        return model.apply({'params': unflatten_dict(flat, sep='/')}, inputs)

    return apply


def repeated(images, times=TIMES):
    return np.repeat(images[:, None], times * TUBELET, axis=1)


def grid_of(model, inputs):
    return model.position_grid(inputs.shape[1:-1])


def begin(model, inputs, ours, old_grid, **options):
    """Parameters for these inputs from others, and the rows of the report."""
    target, grid = random_params(model, inputs, seed=2), grid_of(model, inputs)
    return adapt(ours, target, source_grid=old_grid, target_grid=grid, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('spec', 'settings', 'of_clips', 'inflated'),
    [
        ('', {}, {}, 2),
        ('-3at1', {}, {}, 2),
        ('-3at1', V11, {}, 2),
        ('-5at0at1', {'tokenizer': 'merge'}, {}, 2),
        ('-pool2at1', {}, {}, 2),
        ('-3at1-fuser', {}, {}, 2),
        ('-3at0-fuser', {}, CLIP, 6),
        ('-3at1-fuser', {**V11, 'fuser_norm': 'grid'}, CLIP, 4),
        ('-3at1-fuser', {**V11, 'fuser_norm': 'full', 'beta': 'mlp'}, CLIP, 4),
    ],
    ids=str,
)
def test_a_clip_of_one_repeated_image_gives_the_logits_of_the_image(
    spec, settings, of_clips, inflated
):
    image = small(f'mini/4{spec}', **settings)
    clip = small(f'ViViT-mini/4x{TUBELET}{spec}', **settings, **of_clips)
    trained_on = IMAGES if 'pool' in spec else IMAGES[:, :8, :12]
    old, old_grid = random_params(image, trained_on), grid_of(image, trained_on)
    expected = compiled(image)(begin(image, IMAGES, old, old_grid)[0], IMAGES)
    assert np.abs(expected).max() > 0.1
    clips, apply = repeated(IMAGES), compiled(clip)
    other = clips.copy()
    other[:, 3] = IMAGES[::-1]  # the central frame of the second tubelet
    for inflate in INFLATIONS:
        made, report = begin(clip, clips, old, old_grid, inflate=inflate)
        actions = [row.action for row in report]
        assert (actions.count('inflated'), actions.count('loaded')) == (
            inflated,
            len(old) - inflated,
        )
        np.testing.assert_allclose(apply(made, clips), expected, atol=1e-5, rtol=1e-5)
        assert not np.allclose(apply(made, other), expected, atol=1e-3)


def test_a_class_token_weighs_less_among_more_positions():
    image, clip = small('mini/4', head='token'), small('ViViT-mini/4x2', head='token')
    old, old_grid = random_params(image, IMAGES), grid_of(image, IMAGES)
    expected = compiled(image)(old, IMAGES)
    for times, same in [(1, True), (TIMES, False)]:
        clips = repeated(IMAGES, times)
        made, _ = begin(clip, clips, old, old_grid)
        assert np.allclose(compiled(clip)(made, clips), expected, atol=1e-5) == same
    # The token has its own position, and those of the image repeat behind it.
    position = made['position_embedding'][0]
    np.testing.assert_array_equal(position[0], old['position_embedding'][0, 0])
    for time in np.split(position[1:], TIMES):
        np.testing.assert_array_equal(time, old['position_embedding'][0, 1:])


def test_the_temporal_part_of_a_factorised_encoder_is_new():
    image, clip = small('mini/4-3at1'), small('ViViT-mini/4x2-3at1', temporal_layers=1)
    old, clips = random_params(image, IMAGES), repeated(IMAGES)
    with pytest.raises(ValueError, match=r'^the source lacks temporal_encoder/.* in `new`$'):
        begin(clip, clips, old, (4, 4))
    made, report = begin(clip, clips, old, (4, 4), new=['^temporal_'])
    actions = {row.path: row.action for row in report}
    assert {path for path, action in actions.items() if action == 'missing'} == {
        path for path in made if path.startswith('temporal_')
    }
    assert (actions['position_embedding'], actions['embedding/kernel']) == ('loaded', 'inflated')
    logits = compiled(clip)(made, clips)
    assert not np.allclose(logits, compiled(image)(old, IMAGES), atol=1e-3)


def test_a_kernel_stands_at_the_central_frame_or_is_shared_out():
    old = {'embedding/kernel': np.arange(1.0, 25).reshape(2, 3, 1, 4)}
    for frames in (1, 2, 3, 4):
        target = {'embedding/kernel': np.zeros((frames, 2, 3, 1, 4), np.float32)}
        made = adapt(old, target)[0]['embedding/kernel']
        assert made.any(axis=(1, 2, 3, 4)).tolist() == [i == frames // 2 for i in range(frames)]
        np.testing.assert_array_equal(made[frames // 2], old['embedding/kernel'])
        made = adapt(old, target, inflate='average')[0]['embedding/kernel']
        np.testing.assert_allclose(made, [old['embedding/kernel'] / frames] * frames)
    with pytest.raises(ValueError, match="inflate='centre' is not known; use one of central, aver"):
        adapt(old, target, inflate='centre')
    other = {'embedding/kernel': np.zeros((2, 4, 4, 1, 4))}
    with pytest.raises(ValueError, match=r'\(2, 3, 1, 4\) -> \(2, 4, 4, 1, 4\): name what'):
        adapt(old, other)


def test_a_mixing_is_on_the_diagonal_blocks():
    old = {
        'encoder/fuser_1/mix/kernel': np.arange(1.0, 5).reshape(2, 2),
        'encoder/fuser_1/mix/bias': np.array([5.0, 6.0]),
    }
    target = {path: np.zeros([6] * array.ndim) for path, array in old.items()}
    made, report = adapt(old, target, target_grid=(3, 4, 4))
    for path, array in old.items():
        blocks = made[path].reshape([3, 2] * array.ndim)
        for here in np.ndindex((3,) * array.ndim):
            block = blocks[here[0]] if array.ndim == 1 else blocks[here[0], :, here[1]]
            np.testing.assert_array_equal(block, array if len(set(here)) == 1 else 0)
    assert [row.action for row in report] == ['inflated', 'inflated']
    for grid in [(2, 4, 4), (4, 4), None]:
        with pytest.raises(ValueError, match=r'mix/kernel \(2, 2\) -> \(6, 6\)'):
            adapt(old, target, target_grid=grid)


def of_clips(grid, width=2, temporal=0):
    """A kernel and positions of clips, or with `temporal` those of a factorised encoder."""
    rng = np.random.default_rng(0)
    tree = {
        'embedding/kernel': np.ones((2, 4, 4, 3, width)),
        'position_embedding': rng.normal(size=(1, np.prod(grid), width)),
    }
    if temporal:
        tree['temporal_position_embedding'] = rng.normal(size=(1, temporal, width))
    return tree


def test_another_number_of_times_is_resized_only_if_asked_for():
    old, new = of_clips((2, 3, 4)), of_clips((4, 5, 4))
    grids = {'source_grid': (2, 3, 4), 'target_grid': (4, 5, 4)}
    with pytest.raises(ValueError, match='position_embedding') as error:
        adapt(old, new, **grids)
    assert str(error.value) == (
        'position_embedding of the source is for 2 times (tubelets one after another), of the '
        'model for 4: use clips of 2 tubelets, or resize_time=True'
    )
    made, report = adapt(old, new, **grids, resize_time=True)
    source = old['position_embedding'].reshape(2, 3, 4, 2)
    expected = ndimage.zoom(source, (2, 5 / 3, 1, 1), order=1)
    np.testing.assert_allclose(made['position_embedding'].reshape(expected.shape), expected)
    assert report[1].action == 'resized'
    # In space alone it needs not be asked for.
    grids['target_grid'] = (2, 5, 2)
    made, _ = adapt(old, of_clips((2, 5, 2)), **grids)
    expected = ndimage.zoom(source, (1, 5 / 3, 0.5, 1), order=1)
    np.testing.assert_allclose(made['position_embedding'].reshape(expected.shape), expected)


def test_times_of_a_factorised_encoder_are_resized_only_if_asked_for():
    old, new = of_clips((3, 4), temporal=2), of_clips((3, 4), temporal=3)
    grids = {'source_grid': (3, 4), 'target_grid': (3, 4)}
    with pytest.raises(ValueError, match=r'^temporal_position_embedding .* for 2 times .* for 3'):
        adapt(old, new, **grids)
    made, report = adapt(old, new, **grids, resize_time=True)
    first, last = old['temporal_position_embedding'][0]
    expected = [first, (first + last) / 2, last]
    np.testing.assert_allclose(made['temporal_position_embedding'][0], expected)
    assert [row.action for row in report] == ['loaded', 'loaded', 'resized']
    joint = of_clips((2, 3, 4))
    with pytest.raises(ValueError, match=r'\(2, 3, 4\), .* \(3, 4\): name \^position_embedding in'):
        adapt(joint, old, **{**grids, 'source_grid': (2, 3, 4)}, new=['^temporal_'])


def test_the_grid_of_clips_is_that_of_the_model_where_it_is_not_known():
    old, new = of_clips((2, 3, 4)), of_clips((4, 3, 4))
    assert [row.action for row in adapt(old, old, target_grid=(2, 3, 4))[1]] == ['loaded'] * 2
    with pytest.raises(ValueError, match=r'24 position .* of clips are of no known grid; give s'):
        adapt(old, new, target_grid=(4, 3, 4), resize_time=True)


@pytest.fixture(scope='module')
def hf_vivit():
    """A ViViT as transformers has it: parameters, the model, clips and logits."""
    theirs, source = read(GOLDEN / 'hf_vivit')
    assert source == 'huggingface'
    sizes = {'width': 32, 'layers': 3, 'heads': 4, 'mlp_dim': 64}
    model = ViViT(num_classes=11, patch=(2, 8, 8), head='token', **sizes)
    with np.load(GOLDEN / 'hf_vivit' / 'io.npz') as case:
        return theirs, model, np.moveaxis(case['pixel_values'], 2, -1), case['logits']


@needs_golden
def test_a_vivit_of_transformers_begins_ours(hf_vivit, tmp_path):
    theirs, model, clips, logits = hf_vivit
    ours, unknown = rename(theirs, source='huggingface', model=model)
    assert unknown == []
    made, report = begin(model, clips, ours, (2, 4, 4))
    assert {row.action for row in report} == {'loaded'}
    with jax.default_matmul_precision('highest'):
        np.testing.assert_allclose(compiled(model)(made, clips), logits, atol=1e-4)
    bare = {k.removeprefix('vivit.'): v for k, v in theirs.items() if 'classifier' not in k}
    save_file(bare | {'pooler.dense.bias': np.ones(32)}, tmp_path / 'bare.safetensors')
    flat, source = read(tmp_path / 'bare.safetensors')
    again, unknown = rename(flat, source=source, model=model)
    assert (unknown, ours.keys() - again.keys()) == ([], {'head/kernel', 'head/bias'})


@needs_golden
def test_images_and_clips_are_told_apart(hf_vivit):
    theirs, model, clips, _ = hf_vivit
    sizes = {'width': 32, 'layers': 3, 'heads': 4, 'mlp_dim': 64}
    image = ViT(num_classes=11, patch=(8, 8), head='token', **sizes)
    ours, _ = rename(theirs, source='huggingface', model=image)
    with pytest.raises(ValueError, match=r'^the source is a model of clips, and this is one of i'):
        begin(image, clips[:, 0], ours, (2, 4, 4), new=['^head/'])
    with pytest.raises(ValueError, match='of a model of clips, and this is one of images; build'):
        convert(theirs, source='huggingface', model=image)
    of_images, source = read(GOLDEN / 'hf_vit')
    with pytest.raises(ValueError, match='of a model of images, and this is one of clips; build'):
        convert(of_images, source=source, model=model)
    ours, unknown = rename(of_images, source=source, model=model)
    made, report = begin(model, clips, ours, None)
    assert unknown == []
    assert format_report(report).splitlines() == [
        '54 loaded, 0 resized, 2 inflated, 0 skipped, 0 missing',
        'inflated embedding/kernel    (8, 8, 3, 32) -> (2, 8, 8, 3, 32)',
        'inflated position_embedding  (1, 17, 32) -> (1, 33, 32)',
    ]
    assert compiled(model)(made, clips).shape == (2, 11)


def test_a_model_of_clips_without_a_counterpart_is_refused():
    joint = build_model({'spec': 'ViViT-mini/4x2', 'head': 'token'}, 5)
    factorised = build_model({'spec': 'ViViT-mini/4x2', 'head': 'token', 'temporal_layers': 2}, 5)
    for model, source, message in [
        (joint, 'augreg', 'augreg has no models of clips; take a ViT, or begin with its'),
        (factorised, 'huggingface', 'huggingface has no factorised encoder; use temporal_layers=0'),
        (joint.clone(head='gap'), 'huggingface', "huggingface has no head='gap'; use token"),
    ]:
        with pytest.raises(ValueError, match=message):
            convert({}, source=source, model=model)
    with pytest.raises(ValueError, match='a model of clips is not written as augreg has it; give'):
        to_augreg({}, joint)
    with pytest.raises(ValueError, match='clips is not written as huggingface has it; give a ViT'):
        to_huggingface({}, joint, 32)
