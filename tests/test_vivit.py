import jax
import jax.numpy as jnp
import numpy as np
import pytest

from token_learner import ViT, ViViT, build_model, count, parse_spec, stack_layers
from token_learner.encoder import EncoderBlock

CLIPS = jax.random.normal(jax.random.key(0), (2, 4, 16, 8, 3))


def made(spec, clips=CLIPS, **settings):
    """A model and variables, none of which are zero."""
    model = build_model({'spec': spec, **settings}, 5)
    variables = {'params': model.init(jax.random.key(1), clips)['params']}
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noise = [x + 0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return model, jax.tree.unflatten(tree, noise)


def test_specs_of_clips():
    spec = parse_spec('ViViT-L/10x2+11-16at18-fuser')
    assert (spec.size, spec.patch, spec.tubelet, spec.layers) == ('L', 10, 2, 35)
    assert (spec.tokens, spec.at, spec.fuser) == (16, (18,), True)
    assert parse_spec('L/16').tubelet is None
    for text in ('ViViT-L/16', 'L/16x2'):
        with pytest.raises(ValueError, match='is half a model of clips; write both, as in ViViT-L'):
            parse_spec(text)
    with pytest.raises(ValueError, match='tubelets of 0 frames'):
        parse_spec('ViViT-L/16x0')


@pytest.mark.parametrize(
    ('settings', 'params', 'gflops'),
    [({}, '88.95', '455.2'), ({'temporal_layers': 4}, '115.06', '284.4')],
    ids=['joint', 'factorised'],
)
def test_counts_of_the_joint_and_the_factorised_encoder(settings, params, gflops):
    settings |= {'spec': 'ViViT-B/16x2', 'head': 'token', 'attention': 'xla', 'scan': True}
    cost = count(build_model(settings, 400), jax.ShapeDtypeStruct((1, 32, 224, 224, 3), 'f4'))['']
    assert (f'{cost.params / 1e6:.2f}', f'{cost.gflops:.1f}') == (params, gflops)


@pytest.mark.slow
def test_a_tubelet_sees_all_of_its_frames_and_no_other():
    model, variables = made('ViViT-mini/8x2')
    assert variables['params']['embedding']['kernel'].shape == (2, 8, 8, 3, 64)
    assert variables['params']['position_embedding'].shape == (1, 2 * 2 * 1, 64)

    def embed(clips):
        of_embedding = {'capture_intermediates': lambda module, _: module.name == 'embedding'}
        _, sown = model.apply(variables, clips, mutable='intermediates', **of_embedding)
        return sown['intermediates']['embedding']['__call__'][0]

    base = embed(CLIPS)
    assert base.shape == (2, 2, 2, 1, 64)
    for frame in range(4):
        changed = np.any(embed(CLIPS.at[:, frame].add(1)) != base, axis=(0, 2, 3, 4))
        assert changed.tolist() == [frame < 2, frame >= 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('spec', 'settings'),
    [
        ('ViViT-mini/4x2-3at2-fuser', {'mix_scope': 'clip'}),
        ('ViViT-mini/8x2', {}),
        ('ViViT-mini/8x2', {'head': 'token'}),
        ('ViViT-mini/4x2-3at2', {}),
        ('ViViT-mini/8x2', {'temporal_layers': 2, 'head': 'token'}),
        ('ViViT-mini/4x2-3at2', {'temporal_layers': 2}),
    ],
    ids=str,
)
def test_the_order_of_frames_matters_and_scan_does_not(spec, settings):
    model, variables = made(spec, **settings)
    out = model.apply(variables, CLIPS)
    assert out.shape == (2, 5)
    assert not np.allclose(out, model.apply(variables, CLIPS[:, ::-1]), atol=1e-4)
    scanned = build_model({'spec': spec, **settings, 'scan': True}, 5)
    stacked = stack_layers(variables, scanned)
    np.testing.assert_allclose(scanned.apply(stacked, CLIPS), out, atol=1e-5)
    shapes = jax.eval_shape(scanned.init, jax.random.key(0), CLIPS)['params']
    assert jax.tree.map(jnp.shape, stacked['params']) == jax.tree.map(jnp.shape, shapes)


@pytest.mark.slow
def test_a_factorised_encoder_sees_each_time_alone_before_its_temporal_part():
    model, variables = made('ViViT-mini/8x2', temporal_layers=1)
    zero = jax.tree.map(jnp.zeros_like, variables['params']['temporal_encoder'])
    norm = variables['params']['temporal_encoder']['norm']
    position = jnp.zeros((1, 2, 64))
    variables['params'] |= {'temporal_encoder': zero | {'norm': norm}}
    variables['params'] |= {'temporal_position_embedding': position}
    # With blocks that add nothing, the head reads the mean over both times, in any order.
    swapped = jnp.concatenate([CLIPS[:, 2:], CLIPS[:, :2]], axis=1)
    outs = [model.apply(variables, clips) for clips in (CLIPS, swapped)]
    np.testing.assert_allclose(*outs, atol=1e-5)
    other = model.apply(variables, CLIPS.at[0, 3].add(1))
    assert np.any(other[0] != outs[0][0])


@pytest.mark.slow
def test_maps_have_a_time_axis():
    model, variables = made('ViViT-mini/4x2-3at2')
    sown = model.apply(variables, CLIPS, mutable='intermediates')[1]['intermediates']
    assert sown['encoder']['tokenizer_2']['maps'][0].shape == (2, 2, 3, 4, 2)


@pytest.mark.parametrize(
    ('spec', 'clips', 'settings', 'message'),
    [
        ('ViViT-mini/8x3', CLIPS, {}, '4 frames are not divided into tubelets of 3; use a mult'),
        ('ViViT-mini/8x8', CLIPS, {}, '4 frames are not divided into tubelets of 8'),
        ('ViViT-mini/32x2', CLIPS, {}, 'patch 32x32 is larger than the image 16x8'),
        ('mini/8', CLIPS, {}, 'a model of images, not of clips; use a ViViT'),
        ('ViViT-mini/8x2', CLIPS[0], {}, 'a model of clips, not of images; use a ViT'),
        ('mini/8', CLIPS[0], {'temporal_layers': 2}, 'does nothing to mini/8; write ViViT-mini/8'),
        ('ViViT-mini/8x2', CLIPS, {'temporal_layers': -1}, 'temporal_layers=-1 is negative'),
        ('mini/8', CLIPS[0], {'stochastic_depth': 1.0}, 'stochastic_depth=1.0 is no rate'),
    ],
)
def test_what_does_not_go_together_is_refused(spec, clips, settings, message):
    with pytest.raises(ValueError, match=message):
        build_model({'spec': spec, **settings}, 5).position_grid(clips.shape[1:-1])


def test_a_model_of_images_inside_a_model_of_clips_is_the_same_code():
    assert issubclass(ViViT, ViT)
    image, variables = made('mini/8', CLIPS[:, 0])
    clip, _ = made('ViViT-mini/8x1', CLIPS[:, :1])
    inflated = {**variables['params']}
    inflated['embedding'] = {
        'kernel': variables['params']['embedding']['kernel'][None],
        'bias': variables['params']['embedding']['bias'],
    }
    np.testing.assert_allclose(
        clip.apply({'params': inflated}, CLIPS[:, :1]),
        image.apply(variables, CLIPS[:, 0]),
        atol=1e-6,
    )


def test_stochastic_depth_drops_whole_examples_and_keeps_the_mean():
    block = EncoderBlock(heads=2, mlp_dim=16)
    x = jnp.tile(jax.random.normal(jax.random.key(3), (1, 3, 8)), (512, 1, 1))
    variables = block.init(jax.random.key(4), x)
    rngs = {'dropout': jax.random.key(5)}
    full = block.apply(variables, x)
    out = block.apply(variables, x, None, 0.5, train=True, rngs=rngs)
    assert len(np.unique(np.round(out, 4), axis=0)) == 4  # past neither, one, or both
    np.testing.assert_array_equal(block.apply(variables, x, None, 0.5), full)
    passed = np.all(np.isclose(out, x), axis=(1, 2)).mean()
    assert abs(passed - 0.25) < 0.06
    # Of the attention alone: half of the examples get twice its part.
    mlp = jax.tree.map(jnp.zeros_like, variables['params']['mlp'])
    alone = {'params': variables['params'] | {'mlp': mlp}}
    out = block.apply(alone, x, None, 0.5, train=True, rngs=rngs)
    kept = np.any(out != x, axis=(1, 2))
    np.testing.assert_allclose(
        (out - x)[kept], 2 * (block.apply(alone, x) - x)[kept], atol=1e-5, rtol=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize('remat', ['none', 'full'])
def test_stochastic_depth_rises_from_none_at_the_first_block_to_its_rate(remat):
    settings = {'stochastic_depth': 0.75, 'remat': remat}
    out = {}
    for scan in (False, True):
        model, variables = made('ViViT-mini/8x2', scan=False, **settings)
        if scan:
            model = model.clone(scan=True)
            variables = stack_layers(variables, model)
        clips = jnp.tile(CLIPS[:1], (64, 1, 1, 1, 1))
        rngs = {'dropout': jax.random.key(0)}
        out[scan] = model.apply(variables, clips, train=True, rngs=rngs)
        plain = model.apply(variables, clips)
        assert np.ptp(plain, axis=0).max() < 1e-5 < 0.01 < np.ptp(out[scan], axis=0).max()
    assert len(np.unique(np.round(out[False], 4), axis=0)) > 4
