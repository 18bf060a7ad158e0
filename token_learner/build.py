"""From a description, a plain mapping, to a module: the only place that does it."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from token_learner.attention import check_attention
from token_learner.build_bottleneck import build_x2plus1d
from token_learner.checks import (
    accepted,
    check_choice,
    check_keys,
    check_num_tokens,
    check_return_maps,
    find,
    refuse_unused,
)
from token_learner.dense import DenseTokens, PooledDenseTokens
from token_learner.encoder import REMAT, Factory
from token_learner.fuser import TokenFuser
from token_learner.merging import TokenMerging
from token_learner.pooling import GridSplit, SpatialPooling
from token_learner.reprojection import Reprojection
from token_learner.spec import SIZES, BottleneckSpec, Size, Spec, parse_spec
from token_learner.tokenizer import TokenLearner, TokenLearnerV11
from token_learner.unpool import Unpool
from token_learner.vit import ViT
from token_learner.vivit import ViViT
from token_learner.x2plus1d import X2plus1D

Model = ViT | X2plus1D

# Settings under which the same parameters are the same model: how it starts and computes, and
# regularisation.
RUNTIME_SETTINGS = (
    'head_bias',
    'dropout',
    'stochastic_depth',
    'dtype',
    'attention',
    'vector_attention',
    'remat',
    'scan',
)


def build_model(settings: Mapping[str, Any], num_classes: int) -> Model:
    """Builds the model that a description names.

    Args:
        settings: `spec` and the finer keys, which are the keyword arguments of `build_vit` or, of
            a bottleneck model, `build_x2plus1d`.
        num_classes: number of outputs.

    Raises:
        ValueError: if a key is unknown or a value is not possible.
    """
    if 'spec' not in settings:
        raise ValueError('spec is missing; name a model, such as B/16-8at6')
    build = builder(settings['spec'])
    check_keys(settings, [k for k in inspect.signature(build).parameters if k != 'num_classes'])
    return build(num_classes=num_classes, **settings)


def build_countable(settings: Mapping[str, Any], num_classes: int) -> Model:
    """The same model, for `token_learner.counting`: no kernel hides an operation.

    Args:
        settings: see `build_model`.
        num_classes: number of outputs.

    Raises:
        ValueError: see `build_model`.
    """
    written_out = replace_settings(settings, attention='xla', vector_attention='plain')
    return build_model(written_out, num_classes)


def replace_settings(settings: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """A description with other values, of those keys that its model has.

    Args:
        settings: see `build_model`.
        **values: by key.

    Raises:
        ValueError: if `spec` is no spec.
    """
    keys = inspect.signature(builder(settings['spec'])).parameters
    return {**settings, **{key: value for key, value in values.items() if key in keys}}


def builder(spec: str) -> Callable[..., Model]:
    """The function that builds the model of a spec.

    Raises:
        ValueError: if the text is no spec.
    """
    return build_x2plus1d if isinstance(parse_spec(spec), BottleneckSpec) else build_vit


def build_vit(
    spec: str,
    num_classes: int,
    *,
    tokenizer: str = 'token_learner',
    version: str = 'v1.0',
    pooling: str = 'sum',
    activation: str | None = None,
    fuser: str = 'token_fuser',
    mix_scope: str = 'frame',
    beta: str = 'linear',
    fuser_norm: str = 'none',
    mix_init: str = 'identity',
    head: str = 'gap',
    head_bias: float = 0.0,
    representation: int | None = None,
    gelu: str = 'tanh',
    temporal_layers: int = 0,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    dtype: str = 'float32',
    attention: str = 'auto',
    remat: str = 'none',
    scan: bool = False,
) -> ViT:
    """Builds a ViT, or of clips a ViViT, from its spec and the finer settings.

    Args:
        spec: see `token_learner.spec`.
        num_classes: number of outputs.
        tokenizer: what makes the S tokens of `-SatK`: 'token_learner', or an alternative that
            the paper compares with, 'grid' (`GridSplit`), 'dense' (`DenseTokens`) or
            'pooled_dense' (`PooledDenseTokens`), or 'merge' (`TokenMerging`); or
            'MODULE:CLASS', one of your own.
        version: of TokenLearner, 'v1.0' (what the paper's counts used) or 'v1.1'.
        pooling: of TokenLearner, 'sum' or 'mean'.
        activation: of v1.1's maps, 'softmax' (None too) or 'sigmoid', which v1.0's are.
        fuser: what `-fuser` is: 'token_fuser', or an alternative that the paper compares with,
            'unpool' (`Unpool`) or 'reprojection' (`Reprojection`); or 'MODULE:CLASS'.
        mix_scope: of TokenFuser, 'frame' or 'clip'.
        beta: of TokenFuser, 'linear', 'mlp' or 'conv'.
        fuser_norm: of TokenFuser, 'none', 'grid' or 'full'.
        mix_init: of TokenFuser with fuser_norm='full', 'identity' or 'released'.
        head: 'gap', or 'token' for a model without reductions.
        head_bias: what every bias of the head starts with; below 0 where the loss is a sigmoid
            over many classes.
        representation: width of a tanh layer before the head, or None.
        gelu: of the encoder's MLPs, 'tanh', or 'erf' as in Hugging Face's ViT.
        temporal_layers: of clips: 0 for joint space-time attention, otherwise those of the
            factorised encoder's part over time, see `ViViT`.
        dropout: rate.
        stochastic_depth: rate of the last block, see `Encoder`.
        dtype: type of the computation, such as 'bfloat16'.
        attention: implementation, 'auto', 'xla', 'cudnn' or 'flash', see
            `token_learner.attention.dot_product_attention`.
        remat: what of a layer the backward pass computes anew, 'none', 'dots' or 'full', see
            `Encoder`.
        scan: whether equal layers are one compiled loop, see `Encoder`.

    Raises:
        ValueError: if a value is not possible, or does nothing to the spec.
    """
    parsed = parse_spec(spec)
    assert isinstance(parsed, Spec)
    learner = {'version': version, 'pooling': pooling, 'activation': activation}
    mixing = {
        'mix_scope': mix_scope,
        'beta': beta,
        'fuser_norm': fuser_norm,
        'mix_init': mix_init,
    }
    _check_parts(spec, parsed, tokenizer, learner, fuser, mixing)
    _check_runtime(dtype, attention, remat, tokenizer)
    compute = jnp.dtype(dtype)
    numerics: dict[str, Any] = {'dropout': dropout, 'dtype': compute}
    made = _reductions(parsed, tokenizer, learner, numerics)
    size = SIZES[parsed.size]
    shared: dict[str, Any] = {'attention': attention, **numerics}
    patch = (parsed.patch, parsed.patch)
    model: Callable[..., ViT] = partial(ViT, patch=patch)
    if parsed.tubelet is not None:
        model = partial(ViViT, patch=(parsed.tubelet, *patch), temporal_layers=temporal_layers)
    elif temporal_layers:
        raise ValueError(
            f'temporal_layers={temporal_layers} does nothing to {spec}; write ViViT-{spec}, with '
            'xFRAMES behind the patch, or leave it out'
        )
    return model(
        num_classes=num_classes,
        width=size.width,
        layers=parsed.layers,
        heads=size.heads,
        mlp_dim=size.mlp_dim,
        reductions=made,
        fuser=_fuser(fuser, size, mixing, shared) if parsed.fuser else None,
        head=head,
        head_bias=head_bias,
        representation=representation,
        gelu=gelu,
        remat=remat,
        scan=scan,
        stochastic_depth=stochastic_depth,
        **shared,
    )


_refuse_unused = partial(refuse_unused, build_vit)


def _check_parts(
    text: str,
    spec: Spec,
    tokenizer: str,
    learner: Mapping[str, Any],
    fuser: str,
    mixing: Mapping[str, Any],
) -> None:
    """Refuses what is unknown, does not go together, or does nothing."""
    find('tokenizer', tokenizer, TOKENIZERS, nn.Module)
    find('fuser', fuser, FUSERS, nn.Module)
    if spec.tokens is None:
        _refuse_unused(f'{text}; add -SatK', tokenizer=tokenizer, **learner)
    if not spec.fuser:
        _refuse_unused(f'{text}; add -fuser', fuser=fuser, **mixing)
    if tokenizer != 'token_learner':
        _refuse_unused(f'tokenizer={tokenizer!r}; use token_learner', **learner)
    if fuser != 'token_fuser':
        _refuse_unused(f'fuser={fuser!r}; use token_fuser', **mixing)
    if mixing['fuser_norm'] != 'full':
        where = f'fuser_norm={mixing["fuser_norm"]!r}; use full'
        _refuse_unused(where, mix_init=mixing['mix_init'])
    if fuser == 'unpool' and tokenizer in ('dense', 'pooled_dense'):
        raise ValueError(f'tokenizer={tokenizer!r} has no maps to unpool with; use another fuser')
    if tokenizer == 'merge' and spec.fuser:
        raise ValueError('merged tokens are not fused back; leave -fuser out of the spec')
    if tokenizer != 'merge' and spec.tokens is not None and len(spec.at) > 1:
        raise ValueError(
            f'tokenizer={tokenizer!r} makes tokens of a grid once, not at {len(spec.at)} places; '
            "name one place, or use tokenizer='merge'"
        )


def _check_runtime(dtype: str, attention: str, remat: str, tokenizer: str) -> None:
    check_choice('remat', remat, tuple(REMAT))
    check_attention(attention, dtype)
    if tokenizer == 'merge' and attention in ('cudnn', 'flash'):
        raise ValueError(
            f'merged tokens weigh in the attention, which attention={attention!r} cannot do; '
            "use 'auto' or 'xla'"
        )


def _reductions(
    spec: Spec, tokenizer: str, learner: Mapping[str, Any], numerics: Mapping[str, Any]
) -> tuple[tuple[int, Factory], ...]:
    """Pairs of layer and factory, for `Encoder`."""
    # Each place, and how many there are from it on.
    places = list(zip(spec.at, range(len(spec.at), 0, -1), strict=True))
    if spec.pool is not None:
        return tuple((at, partial(SpatialPooling, spec.pool, left)) for at, left in places)
    if spec.tokens is None:
        return ()
    factory = find('tokenizer', tokenizer, TOKENIZERS, nn.Module)
    check_num_tokens(tokenizer, factory)
    settings = {**learner, **numerics} if tokenizer == 'token_learner' else numerics
    make = partial(factory, spec.tokens, **accepted(factory, settings))
    made = make()  # so that a bad setting is told now and not when the model is traced
    if spec.fuser:
        check_return_maps(made)
    if tokenizer == 'merge':
        return tuple((at, partial(make, places=left)) for at, left in places)
    return ((spec.at[0], make),)


def _token_learner(
    num_tokens: int,
    *,
    version: str,
    pooling: str,
    activation: str | None,
    dropout: float,
    dtype: Any,
    name: str | None = None,
) -> TokenLearner | TokenLearnerV11:
    check_choice('version', version, ('v1.0', 'v1.1'))
    if version == 'v1.0':
        if activation not in (None, 'sigmoid'):
            raise ValueError(f"v1.0's maps are sigmoid, not {activation}; use version='v1.1'")
        return TokenLearner(num_tokens, pooling=pooling, dtype=dtype, name=name)
    return TokenLearnerV11(
        num_tokens,
        activation=activation or 'softmax',
        pooling=pooling,
        dropout=dropout,
        dtype=dtype,
        name=name,
    )


# What makes the tokens: called with their number, and those of dropout and dtype that it takes.
TOKENIZERS: Mapping[str, Factory] = {
    'token_learner': _token_learner,
    'grid': GridSplit,
    'dense': DenseTokens,
    'pooled_dense': PooledDenseTokens,
    'merge': TokenMerging,
}

# What writes tokens back: called with those of heads, mlp_dim, attention, dropout and dtype that it
# takes.
FUSERS: Mapping[str, Factory] = {
    'token_fuser': TokenFuser,
    'unpool': Unpool,
    'reprojection': Reprojection,
}


def _fuser(kind: str, size: Size, mixing: Mapping[str, Any], shared: Mapping[str, Any]) -> Factory:
    factory = find('fuser', kind, FUSERS, nn.Module)
    settings = {'heads': size.heads, 'mlp_dim': size.mlp_dim, **shared}
    if kind == 'token_fuser':
        finer = {key: value for key, value in mixing.items() if key != 'fuser_norm'}
        settings |= {'norm': mixing['fuser_norm'], **finer}
    make = partial(factory, **accepted(factory, settings))
    make()
    return make
