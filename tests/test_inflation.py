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


def apply(model, flat, inputs):
    params = {'params': unflatten_dict(flat, sep='/')}
    return np.asarray(jax.jit(model.apply)(params, jnp.asarray(inputs)))


def repeated(images, times=TIMES):
    return np.repeat(images[:, None], times * TUBELET, axis=1)


def grid_of(model, inputs):
    return model.position_grid(inputs.shape[1:-1])


def begin(model, inputs, ours, old_grid, **options):
    """Parameters for these inputs from others, and the rows of the report."""
    target, grid = random_params(model, inputs, seed=2), grid_of(model, inputs)
    return adapt(ours, target, source_grid=old_grid, target_grid=grid, **options)


@pytest.mark.parametrize(
    ('spec', 'settings', 'of_clips', 'inflated'),
    [
        ('', {}, {}, 2),
        ('-3at2', {}, {}, 2),
        ('-3at2', V11, {}, 2),
        ('-5at1at3', {'tokenizer': 'merge'}, {}, 2),
        ('-pool2at2', {}, {}, 2),
        ('-3at2-fuser', {}, {}, 2),
        ('-3at2-fuser', {}, CLIP, 6),
        ('-3at2-fuser', {**V11, 'fuser_norm': 'grid', 'beta': 'mlp'}, CLIP, 6),
        ('-3at2-fuser', {**V11, 'fuser_norm': 'full', 'beta': 'mlp'}, CLIP, 6),
        ('-4at3-fuser', {'tokenizer': 'grid', 'fuser': 'reprojection'}, {}, 2),
    ],
    ids=str,
)
def test_a_clip_of_one_repeated_image_gives_the_logits_of_the_image(
    spec, settings, of_clips, inflated
):
    image = build_model({'spec': f'mini/4{spec}', **settings}, 5)
    clip = build_model({'spec': f'ViViT-mini/4x{TUBELET}{spec}', **settings, **of_clips}, 5)
    small, clips = IMAGES[:, :8, :12], repeated(IMAGES)
    old = random_params(image, IMAGES if 'pool' in spec else small)
    old_grid = grid_of(image, IMAGES if 'pool' in spec else small)
    of_images, _ = begin(image, IMAGES, old, old_grid)
    expected = apply(image, of_images, IMAGES)
    assert np.abs(expected).max() > 0.1
    for inflate in INFLATIONS:
        made, report = begin(clip, clips, old, old_grid, inflate=inflate)
        actions = [row.action for row in report]
        assert (actions.count('inflated'), actions.count('loaded')) == (
            inflated,
            len(old) - inflated,
        )
        np.testing.assert_allclose(apply(clip, made, clips), expected, atol=1e-5, rtol=1e-5)
        other = clips.copy()
        other[:, 3] = IMAGES[::-1]  # central of the second tubelet
        assert not np.allclose(apply(clip, made, other), expected, atol=1e-3)
