"""From a description, a plain mapping, to a module: the only place that does it."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from token_learner.checks import check_choice, check_keys
from token_learner.encoder import Factory
from token_learner.fuser import TokenFuser
from token_learner.spec import SIZES, parse_spec
from token_learner.tokenizer import TokenLearner, TokenLearnerV11
from token_learner.vit import ViT


def build_model(settings: Mapping[str, Any], num_classes: int) -> ViT:
    """Builds the model that a description names.

    Args:
        settings: `spec` and the finer keys, which are the keyword arguments of `build_vit`.
        num_classes: number of outputs.

    Raises:
        ValueError: if a key is unknown or a value is not possible.
    """
    check_keys(settings, [k for k in inspect.signature(build_vit).parameters if k != 'num_classes'])
    return build_vit(num_classes=num_classes, **settings)


def build_vit(
    spec: str,
    num_classes: int,
    *,
    version: str = 'v1.0',
    pooling: str = 'sum',
    activation: str | None = None,
    mix_scope: str = 'frame',
    beta: str = 'linear',
    fuser_norm: str = 'none',
    mix_init: str = 'identity',
    head: str = 'gap',
    representation: int | None = None,
    dropout: float = 0.0,
    dtype: str = 'float32',
) -> ViT:
    """Builds a ViT from its spec and the finer settings.

    Args:
        spec: see `token_learner.spec`.
        num_classes: number of outputs.
        version: of TokenLearner, 'v1.0' (what the paper's counts used) or 'v1.1'.
        pooling: 'sum' or 'mean', see `TokenLearner`.
        activation: of v1.1's maps, 'softmax' (None too) or 'sigmoid', which v1.0's are.
        mix_scope: of the fuser, 'frame' or 'clip'.
        beta: of the fuser, 'linear' or 'mlp'.
        fuser_norm: 'none', 'grid' or 'full', see `TokenFuser`.
        mix_init: of the fuser, 'identity' or 'released'.
        head: 'gap', or 'token' for a model without TokenLearner.
        representation: width of a tanh layer before the head, or None.
        dropout: rate.
        dtype: type of the computation, such as 'bfloat16'.

    Raises:
        ValueError: if a value is not possible.
    """
    parsed = parse_spec(spec)
    compute = jnp.dtype(dtype)
    if not jnp.issubdtype(compute, jnp.floating):
        raise ValueError(f'dtype={dtype} cannot hold activations; use a floating point type')
    if parsed.tokens is None:
        _refuse_unused(spec, '-SatK', version=version, pooling=pooling, activation=activation)
    if not parsed.fuser:
        unused = {'mix_scope': mix_scope, 'beta': beta}
        _refuse_unused(spec, '-fuser', **unused, fuser_norm=fuser_norm, mix_init=mix_init)
    size = SIZES[parsed.size]
    reductions: tuple[tuple[int, Factory], ...] = ()
    fuser: Factory | None = None
    check_choice('version', version, ('v1.0', 'v1.1'))
    if version == 'v1.0' and activation not in (None, 'sigmoid'):
        raise ValueError(f"v1.0's maps are sigmoid, not {activation}; use version='v1.1'")
    if parsed.tokens is not None and parsed.at is not None:
        tokenizer: Factory = functools.partial(
            TokenLearner, parsed.tokens, pooling=pooling, dtype=compute
        )
        if version == 'v1.1':
            tokenizer = functools.partial(
                TokenLearnerV11,
                parsed.tokens,
                activation=activation or 'softmax',
                pooling=pooling,
                dropout=dropout,
                dtype=compute,
            )
        tokenizer()  # so that a bad setting is told now and not when the model is traced
        reductions = ((parsed.at, tokenizer),)
    if parsed.fuser:
        fuser = functools.partial(
            TokenFuser,
            mix_scope=mix_scope,
            beta=beta,
            norm=fuser_norm,
            mix_init=mix_init,
            dropout=dropout,
            dtype=compute,
        )
        fuser()
    return ViT(
        num_classes=num_classes,
        patch=(parsed.patch, parsed.patch),
        width=size.width,
        layers=parsed.layers,
        heads=size.heads,
        mlp_dim=size.mlp_dim,
        reductions=reductions,
        fuser=fuser,
        head=head,
        representation=representation,
        dropout=dropout,
        dtype=compute,
    )


def _refuse_unused(spec: str, part: str, **settings: Any) -> None:
    """Refuses settings other than the default of what the spec does not have."""
    for key, value in settings.items():
        if value != inspect.signature(build_vit).parameters[key].default:
            raise ValueError(f'{key}={value!r} does nothing to {spec}; add {part} or leave it out')
