"""From a description to a bottleneck model; `token_learner.build.build_model` calls it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from token_learner.attention import Attention, check_attention
from token_learner.checks import (
    accepted,
    check_choice,
    check_num_tokens,
    check_return_maps,
    find,
    refuse_unused,
)
from token_learner.dense import DenseTokens, PooledDenseTokens
from token_learner.fuser import TokenFuser
from token_learner.pooling import GridSplit
from token_learner.prior_attention import PriorAttention
from token_learner.space_time import (
    AXES,
    Broadcast,
    Factory,
    FrameMixer,
    PositionFuser,
    SpaceTimeAttention,
    TemporalConv,
    TokenTransformer,
)
from token_learner.spec import BACKBONES, Backbone, BottleneckSpec, parse_spec
from token_learner.tokenizer import TokenLearner
from token_learner.vector_transformer import VectorTransformer
from token_learner.x2plus1d import Layers, X2plus1D

TRANSFORMERS = ('vector', 'mhsa', 'prior')
FUSERS = ('token_fuser', 'broadcast')

# What the parts of the TokenLearner module are, see `build_x2plus1d`.
COMPOSITIONS: Mapping[str, Mapping[str, Any]] = {
    'table12': {'project': True, 'beta': 'conv', 'mix_scope': 'frame'},
    'text': {'project': False, 'beta': 'linear', 'mix_scope': 'clip'},
}


def build_x2plus1d(
    spec: str,
    num_classes: int,
    *,
    composition: str = 'table12',
    num_tokens: int = 8,
    tokenizer: str = 'token_learner',
    pooling: str = 'mean',
    transformer: str | None = None,
    fuser: str = 'token_fuser',
    head_bias: float = 0.0,
    dropout: float = 0.0,
    dtype: str = 'float32',
    attention: str = 'auto',
    vector_attention: str = 'auto',
    remat: str = 'none',
) -> X2plus1D:
    """Builds an X(2+1)D from its spec and the finer settings.

    The paper's text of the TokenLearner module, with 512 tokens of 432 channels, has 0.86M
    parameters and no composition of its parts has the 0.81M and 3.4 GFLOPs of Table 12. So there
    are two: 'table12' adds a projection of the grid, and has M for each frame and beta as a 3x3
    convolution, which of the compositions that have the printed counts is the one that departs
    least from the text; 'text' has M over the tokens of the clip and a linear beta.

    Args:
        spec: see `token_learner.spec`.
        num_classes: number of outputs.
        composition: of the layer `tl`: 'table12' or 'text'.
        num_tokens: S of `tl`.
        tokenizer: of `tl`: 'token_learner', of one 3x3 convolution, or an alternative of Sec.
            6.3.3: 'grid' (`GridSplit`), 'dense' (`DenseTokens`), 'pooled_dense'
            (`PooledDenseTokens`); or 'MODULE:CLASS', one of your own; or 'none', each position
            being a token.
        pooling: of TokenLearner, 'mean' as the paper writes it or 'sum'. With sums, which ViTs
            have, the logits of the vector attention are thousands of times larger.
        transformer: of the last layer, if that is `tl`, `temporal` or `joint`: 'vector'
            (`VectorTransformer`), 'mhsa' or 'prior' (`PriorAttention`); None is 'vector' of `tl`
            and 'mhsa' of the others.
        fuser: of `tl`: 'token_fuser' (without a tokenizer `PositionFuser`), or 'broadcast'.
        head_bias: what every bias of the head starts with; below 0 where the loss is a sigmoid
            over many classes.
        dropout: rate before the head.
        dtype: type of the computation, such as 'bfloat16'.
        attention: implementation of multi-head attention, see `dot_product_attention`.
        vector_attention: implementation of vector attention, see `vector_attention`.
        remat: whether the backward pass computes modules anew, 'none' or 'full'.

    Raises:
        ValueError: if a value is not possible, or does nothing to the spec.
    """
    parsed = parse_spec(spec)
    assert isinstance(parsed, BottleneckSpec)
    check_choice('composition', composition, tuple(COMPOSITIONS))
    find('tokenizer', tokenizer, TOKENIZERS, nn.Module)
    check_choice('fuser', fuser, FUSERS)
    if transformer is not None:
        check_choice('transformer', transformer, TRANSFORMERS)
    _check_used(
        spec,
        parsed,
        transformer=transformer,
        composition=composition,
        num_tokens=num_tokens,
        tokenizer=tokenizer,
        pooling=pooling,
        fuser=fuser,
    )
    check_attention(attention, dtype)
    compute, backbone = jnp.dtype(dtype), BACKBONES[parsed.backbone]
    transformers = _transformers(backbone, attention, vector_attention, compute)
    parts = COMPOSITIONS[composition]
    token_layer = partial(
        TokenTransformer,
        _tokenizer(tokenizer, num_tokens, pooling, compute),
        fuser=_fuser(fuser, tokenizer, parts, compute),
        project=parts['project'] and tokenizer != 'none',
        dtype=compute,
    )

    def layer(name: str, last: bool) -> Factory | None:
        kind = (transformer if last else None) or ('vector' if name == 'tl' else 'mhsa')
        mixes = transformers[kind]
        factories: dict[str, Factory | None] = {
            'conv2d': None,
            'conv1d': partial(TemporalConv, dtype=compute),
            'mixer': partial(FrameMixer, dtype=compute),
            'tl': partial(token_layer, transformer=mixes),
            **{axes: partial(SpaceTimeAttention, axes, mixes) for axes in AXES},
        }
        return factories[name]

    names = parsed.layers
    layers: Layers = tuple((name, layer(name, name == names[-1])) for name in names)
    return X2plus1D(
        num_classes=num_classes,
        backbone=backbone,
        layers=layers if parsed.replaced else (),
        replaced=parsed.replaced,
        dropout=dropout,
        remat=remat,
        head_bias=head_bias,
        dtype=compute,
    )


def _check_used(text: str, spec: BottleneckSpec, **settings: Any) -> None:
    """Refuses what does nothing to the spec."""
    kind = settings.pop('transformer')
    if spec.layers[-1] not in ('tl', 'temporal', 'joint'):
        _refuse_unused(f'{text}; end it with tl, temporal or joint', transformer=kind)
    tokenizer = settings['tokenizer']
    if 'tl' not in spec.layers:
        _refuse_unused(f'{text}; add tl', **settings)
    if tokenizer != 'token_learner':
        where = f'tokenizer={tokenizer!r}; use token_learner'
        _refuse_unused(where, pooling=settings['pooling'])
        if tokenizer == 'none':
            unused = {key: settings[key] for key in ('num_tokens', 'composition')}
            _refuse_unused(where, **unused)


_refuse_unused = partial(refuse_unused, build_x2plus1d)


def _transformers(
    backbone: Backbone, attention: str, vector_attention: str, dtype: Any
) -> Mapping[str, Factory]:
    """Factories of what maps sequences [b, n, c] to the same shape."""
    mhsa = partial(Attention, backbone.heads, attention, dtype, backbone.query)
    factories: dict[str, Factory] = {
        'vector': partial(VectorTransformer, None, vector_attention, dtype),
        'mhsa': partial(mhsa, project=False, use_bias=False),
        'prior': partial(PriorAttention, backbone.heads, dtype),
    }
    for factory in factories.values():
        factory()  # so that a bad setting is told now and not when the model is traced
    return factories


# As in `token_learner.build`; None has each position as a token.
TOKENIZERS: Mapping[str, Factory | None] = {
    'token_learner': partial(TokenLearner, num_convs=1, norm=False),
    'grid': GridSplit,
    'dense': DenseTokens,
    'pooled_dense': PooledDenseTokens,
    'none': None,
}


def _tokenizer(kind: str, num_tokens: int, pooling: str, dtype: Any) -> Factory | None:
    factory = find('tokenizer', kind, TOKENIZERS, nn.Module)
    if factory is None:
        return None
    check_num_tokens(kind, factory)
    settings = {'pooling': pooling} if kind == 'token_learner' else {}
    make = partial(factory, num_tokens, **accepted(factory, {'dtype': dtype, **settings}))
    # A bad setting is told now, and not when the model is traced.
    check_return_maps(make())
    return make


def _fuser(kind: str, tokenizer: str, parts: Mapping[str, Any], dtype: Any) -> Factory:
    if kind == 'broadcast':
        return Broadcast
    if tokenizer == 'none':
        return partial(PositionFuser, dtype=dtype)
    finer = {key: parts[key] for key in ('beta', 'mix_scope')}
    return partial(TokenFuser, use_bias=False, dtype=dtype, **finer)
