"""Counts of bottleneck models and of their modules, as Tables 11 to 13 of the paper print them.

2 for a multiply-add, taps in the padding included, and 6 for a logit is `Cost.bottleneck_gflops`,
called strict here. The published figures are these, but for those of TokenLearner: they fit where
of a weighted sum, in vector attention, pooling and unpooling, only the products count, and the
fuser's addition to the grid does too. A pair of tokens then has 1 + 5 + 1 operations a channel:
query times key, softmax, weight times value. Multi-head attention's sums are matrix products and
count in full.
"""

import functools
from collections import Counter
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from token_learner.build import build_countable
from token_learner.counting import Cost, count
from token_learner.spec import BACKBONES, BottleneckSpec, parse_spec
from token_learner.x2plus1d import X2plus1D

FRAMES, SIDE = 64, 256  # of the clips that are counted

Counts = dict[str, float]
Settings = tuple[tuple[str, str], ...]
Costs = Mapping[str, Cost]  # by path of a module's part; '' is the module


def count_layers(spec: str, settings: Settings = ()) -> Counts:
    """Counts what a module has between its 1x1 convolutions, without the norms.

    Args:
        spec: of a bottleneck model. The module is one that it replaces, if it replaces any.
        settings: of `build_model`.
    """
    costs = _count_module(spec, settings)
    layers = (costs[name] for name in _parse(spec).layers)
    return _describe(sum(layers, Cost()), _sums_left_out(spec, costs))


def count_network(spec: str, classes: int, settings: Settings = ()) -> Counts:
    """Counts the whole model: the plain one, and what the replaced modules differ by.

    Args:
        spec: of a bottleneck model.
        classes: number of outputs.
        settings: of `build_model`.
    """
    parsed = _parse(spec)
    plain = f'X2plus1D-{parsed.backbone}'
    module = _count_module(spec, settings)
    difference = module[''] + _count_module(plain)[''] * -1
    network = _count_plain(plain, classes) + difference * parsed.replaced
    return _describe(network, _sums_left_out(spec, module) * parsed.replaced)


def last_block(model: X2plus1D) -> X2plus1D:
    """Two modules of a model's last block, the second a replaced one, behind the stem.

    What they see of a clip is what the whole model's see of one that is twice as high and wide for
    each block before; of M's 8 times.
    """
    backbone = model.backbone
    outer, inner = backbone.outer[-1:], backbone.inner[-1:]
    return model.clone(
        backbone=backbone._replace(outer=outer, inner=inner, depths=(2,)),
        replaced=min(1, model.replaced),
    )


def _parse(spec: str) -> BottleneckSpec:
    parsed = parse_spec(spec)
    assert isinstance(parsed, BottleneckSpec)
    return parsed


def _build(spec: str, classes: int, settings: Settings) -> X2plus1D:
    model = build_countable({'spec': spec, **dict(settings)}, classes)
    assert isinstance(model, X2plus1D)
    return model


def _count(model: X2plus1D, side: int) -> dict[str, Cost]:
    return count(model, jax.ShapeDtypeStruct((1, FRAMES, side, side, 3), jnp.float32))


def _count_plain(spec: str, classes: int) -> Cost:
    costs = _count_plain_of_one_class(spec)
    return costs[''] + costs['head'] * (classes - 1)


@functools.cache
def _count_plain_of_one_class(spec: str) -> Costs:
    return _count(_build(spec, 1, ()), SIDE)


@functools.cache
def _count_module(spec: str, settings: Settings = ()) -> Costs:
    model = _build(spec, 1, settings)
    costs = _count(last_block(model), SIDE >> len(model.backbone.depths) - 1)
    name = 'block_0_module_1'
    inside = [path for path in costs if path.startswith(name)]
    return {path.removeprefix(name).removeprefix('/'): costs[path] for path in inside}


def _sums_left_out(spec: str, costs: Costs) -> int:
    """Additions in a module that the strict figure has and the printed one lacks."""
    own = Counter({path: cost.macs for path, cost in costs.items()})
    for path, cost in costs.items():
        own[path.rpartition('/')[0]] -= cost.macs
    backbone = BACKBONES[_parse(spec).backbone]
    added = FRAMES * (SIDE >> len(backbone.depths) + 1) ** 2 * backbone.inner[-1]
    left_out = 0
    for path, cost in costs.items():
        part = path.rpartition('/')[2]
        # In vector attention a weight meets one number, in multi-head attention many.
        by_channel = part == 'attention' and own[path] == cost.logits
        if by_channel or part in ('tokenizer', 'fuser'):
            left_out += own[path]
        if part == 'fuser':
            left_out -= added
    return left_out


def _describe(cost: Cost, left_out: int) -> Counts:
    strict = cost.bottleneck_gflops
    return {
        'params': cost.params,
        'params_m': cost.params / 1e6,
        'gflops': strict - left_out / 1e9,
        'gflops_strict': strict,
        'macs': cost.padded_macs,
    }
