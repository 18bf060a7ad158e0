import inspect

import jax
import jax.numpy as jnp
import pytest

from configs import common
from token_learner import Spec, build_model, parse_spec
from token_learner.build import build_vit
from token_learner.build_bottleneck import build_x2plus1d
from token_learner.spec import SIZES

# Parameters at 1,000 classes and the resolution given.
PARAMETERS = {
    ('mini/4', 32): 272_296,
    ('Ti/16', 224): 5_717_032,
    ('S/32', 384): 22_914_664,
    ('S/16', 224): 22_049_896,
    ('B/16', 384): 86_857_960,
    ('B/16-8at6', 384): 86_916_520,
    ('B/16-8at6-fuser', 384): 87_246_664,
    ('L/16', 512): 305_172_456,
    ('L/16+11-16at12', 512): 443_887_336,
    ('L/14+11-16at18', 512): 443_981_544,
    ('H/14', 224): 632_043_240,
}


def closed_form(spec: Spec, resolution: int, classes: int = 1000) -> int:
    """Parameters of a v1.0 ViT with a linear fuser without norms, by hand."""
    c, _, m, _ = SIZES[spec.size]
    s = spec.tokens or 0
    side = resolution // spec.patch
    block = 4 * (c * c + c) + 2 * c * m + m + c + 4 * c
    learner = 9 * (c * s + 3 * s * s) + 2 * c
    fuser = s * s + s + c * s + s
    repeats = spec.layers - spec.at[0] if spec.fuser else 1
    total = 3 * spec.patch**2 * c + c + side * side * c + spec.layers * block
    total += repeats * learner if s else 0
    total += repeats * fuser if spec.fuser else 0
    return total + 2 * c + c * classes + classes


@pytest.mark.parametrize(('spec', 'resolution'), PARAMETERS)
def test_parameter_counts(spec, resolution):
    model = build_model({'spec': spec}, 1000)
    images = jax.ShapeDtypeStruct((1, resolution, resolution, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)['params']
    count = sum(x.size for x in jax.tree.leaves(params))
    assert count == closed_form(parse_spec(spec), resolution)
    assert count == PARAMETERS[spec, resolution]


def test_every_size_has_a_count():
    assert {spec.split('/')[0] for spec, _ in PARAMETERS} == set(SIZES)


def test_specs():
    assert parse_spec('L/16+11-16at12-fuser') == Spec('L', 16, 11, 16, None, (12,), True)
    assert parse_spec('L/16-pool2at9at18') == Spec('L', 16, pool=2, at=(9, 18))
    assert parse_spec('mini/4-8at1at3').at == (1, 3)
    assert parse_spec('L/16+11-16at34').layers == 35
    assert parse_spec('mini/4') == Spec('mini', 4)


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('B16', 'did you mean B/16. write SIZE/PATCH'),
        ('ViT-b/16_8-6', 'not a model spec; write SIZE/PATCH'),
        ('vit-b/16', 'did you mean B/16'),
        ('vivit-l_16x2', 'did you mean ViViT-L/16x2'),
        ('x2plus1d-m-tlx3', 'did you mean X2plus1D-M:tlx3'),
        ('B/168at6', 'not a model spec; write SIZE/PATCH'),
        ('ViT-l/16x2', "'L/16x2' is half a model of clips"),
        ('b/16-8at12', "'B/16-8at12' reduces at layer 12, but the model has 12"),
        ('X/16', 'SIZE one of mini, Ti, S, B, L, H'),
        ('B/16-8at6-fuse', 'write SIZE/PATCH'),
        ('B/16-8at6+2', 'write SIZE/PATCH'),
        ('', 'write SIZE/PATCH'),
        ('B/16-8at12', 'use 0 to 11'),
        ('B/16-0at6', 'asks for 0 tokens'),
        ('B/0', 'a patch of 0 pixels'),
        ('B/16-fuser', 'no tokens to fuse'),
        ('B/16-pool2at6-fuser', 'a fuser after spatial pooling, which keeps a grid'),
        ('B/16-pool0at6', 'pools to a 0x0 grid'),
        ('B/16-pool2at9at12', 'use 0 to 11'),
        ('B/16-pool2at9at9', 'write each once, rising'),
        ('B/16-8at6at3', 'write each once, rising'),
        ('B/16-8at6at9-fuser', 'name its first block only'),
        ('B/16-pool2', 'write SIZE/PATCH'),
    ],
)
def test_bad_specs_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        parse_spec(spec)


FUSER = {'spec': 'mini/4-8at2-fuser'}


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'version': 'v2'}, 'use one of v1.0, v1.1'),
        ({'pooling': 'max'}, 'use one of sum, mean'),
        ({'pooling': 'mean', 'version': 'v1.1'}, "use pooling='sum'"),
        ({'mix_scope': 'all', 'spec': 'mini/4-8at2-fuser'}, 'use one of frame, clip'),
        ({'activation': 'softmax'}, "use version='v1.1'"),
        ({'head': 'cls'}, 'use one of gap, token'),
        ({'gelu': 'sigmoid'}, 'use one of tanh, erf'),
        ({'dtype': 'float99'}, 'use bfloat16 or float32'),
        ({'dtype': 'int32'}, 'use a floating point type'),
        ({'representation': 0}, 'representation=0 is too small'),
        ({'dropout': 1.0}, 'dropout=1.0 is no rate'),
        ({'mix_scope': 'clip'}, 'does nothing to mini/4-8at2; add -fuser'),
        ({'tokenizer': 'slots'}, 'use one of token_learner, grid, dense'),
        ({'fuser': 'glue'}, 'use one of token_fuser, unpool, reprojection'),
        ({'fuser': 'unpool'}, 'does nothing to mini/4-8at2; add -fuser'),
        ({'spec': 'mini/4', 'tokenizer': 'grid'}, 'does nothing to mini/4; add -SatK'),
        ({'spec': 'mini/4-pool2at2', 'version': 'v1.1'}, 'does nothing to mini/4-pool'),
        ({'tokenizer': 'grid', 'version': 'v1.1'}, "to tokenizer='grid'; use token_l"),
        ({'spec': 'mini/4-8at1at2'}, 'makes tokens of a grid once, not at 2 places'),
        ({**FUSER, 'fuser': 'unpool', 'tokenizer': 'dense'}, 'no maps to unpool with'),
        ({**FUSER, 'fuser': 'unpool', 'beta': 'mlp'}, "to fuser='unpool'; use token_f"),
        ({**FUSER, 'tokenizer': 'merge'}, 'merged tokens are not fused back'),
        ({'tokenizer': 'merge', 'attention': 'flash'}, "use 'auto' or 'xla'"),
        ({'attention': 'fast'}, 'use one of auto, xla, cudnn, flash'),
        ({'remat': 'some'}, 'use one of none, full, dots'),
        ({'spec': 'mini/4', 'pooling': 'mean'}, 'add -SatK or leave it out'),
        ({**FUSER, 'mix_init': 'released'}, "to fuser_norm='none'; use full"),
        ({'poolng': 'sum'}, 'poolng is not a known key; did you mean pooling'),
        ({'num_classes': 3}, 'num_classes is not a known key'),
    ],
)
def test_bad_settings_are_refused_when_the_model_is_built(settings, message):
    with pytest.raises(ValueError, match=message):
        build_model({'spec': 'mini/4-8at2'} | settings, 10)


@pytest.mark.parametrize(('spec', 'build'), [('B/16', build_vit), ('X2plus1D-M', build_x2plus1d)])
def test_the_config_declares_every_key_with_the_library_s_default(spec, build):
    parameters = inspect.signature(build).parameters
    ours = {k: p.default for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert common.default_model(spec).to_dict() == ours | {'spec': spec}


def test_a_description_without_a_spec():
    with pytest.raises(ValueError, match='spec is missing; name a model'):
        build_model({}, 10)
