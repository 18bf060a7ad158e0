"""Parameters of other code bases as parameters of these models."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from flax.traverse_util import unflatten_dict

from token_learner.checks import check_choice
from token_learner.fuser import TokenFuser
from token_learner.tokenizer import TokenLearner, TokenLearnerV11
from token_learner.vit import ViT

Names = dict[str, str]

# google-research/scenic, projects/token_learner (commit 4a38d47): its names and ours.
_MLP: Names = {'Dense_0': 'hidden', 'Dense_1': 'out'}
_BLOCK: Names = {
    'LayerNorm_0': 'norm_attention',
    'LayerNorm_1': 'norm_mlp',
    'MultiHeadDotProductAttention_0/query': 'attention/query',
    'MultiHeadDotProductAttention_0/key': 'attention/key',
    'MultiHeadDotProductAttention_0/value': 'attention/value',
    'MultiHeadDotProductAttention_0/out': 'attention/out',
    'MlpBlock_0/Dense_0': 'mlp/hidden',
    'MlpBlock_0/Dense_1': 'mlp/out',
}


def convert(flat: Mapping[str, np.ndarray], *, source: str, model: nn.Module) -> dict[str, Any]:
    """Converts parameters of another code base.

    Args:
        flat: path joined by '/', without a leading 'params/', -> array.
        source: 'scenic', the parameter tree of google-research/scenic's token_learner
            project: the classifier `TokenLearnerViT`, or one of its modules.
        model: the module to convert for: `ViT`, `TokenLearner`, `TokenLearnerV11` or
            `TokenFuser`.

    Returns:
        The nested parameters of `model`, to be applied as {'params': ...}.

    Raises:
        ValueError: if a parameter has no place in `model`, or one of `model` has no source.
    """
    check_choice('source', source, ('scenic',))
    names = _scenic_names(model)
    converted = {}
    for path, array in flat.items():
        new = _rename(path, names)
        if new is None:
            raise ValueError(
                f'parameter {path} has no place in {type(model).__name__}; '
                'build the model that the parameters come from'
            )
        converted[new] = array
    for theirs, ours in names.items():
        if not any(path == ours or path.startswith(f'{ours}/') for path in converted):
            raise ValueError(f'there is no parameter {theirs}, from which {ours} would come')
    return unflatten_dict(converted, sep='/')


def _rename(path: str, names: Names) -> str | None:
    """The new path of a parameter: the longest known beginning is replaced."""
    for end in range(len(pieces := path.split('/')), 0, -1):
        if (known := names.get('/'.join(pieces[:end]))) is not None:
            return '/'.join([known, *pieces[end:]])
    return None


def _scenic_names(model: nn.Module) -> Names:
    """Scenic's names and ours, of the modules that this model has."""
    if isinstance(model, TokenLearner):
        names = {f'Conv_{i}': f'conv_{i}' for i in range(model.num_convs)}
        return names | ({'LayerNorm_0': 'norm'} if model.norm else {})
    if isinstance(model, TokenLearnerV11):
        return {'LayerNorm_0': 'norm'} | _below('token_masking', 'mlp', _MLP)
    if isinstance(model, TokenFuser):
        norms = {
            'none': {},
            'grid': {'LayerNorm_0': 'norm_grid'},
            'full': {
                'LayerNorm_0': 'norm_grid',
                'fuser_mix_norm1': 'norm_in',
                'fuser_mix_norm2': 'norm_out',
            },
        }
        # Scenic's beta has been an MLP since 09480e7: nothing there fits a linear one.
        beta = {'mlp': _below('token_masking', 'beta', _MLP), 'linear': {}}
        return {'Dense_0': 'mix'} | norms[model.norm] | beta[model.beta]
    if isinstance(model, ViT):
        return _scenic_vit_names(model)
    raise ValueError(f'cannot convert parameters for a {type(model).__name__}; use one of ours')


def _scenic_vit_names(model: ViT) -> Names:
    names = {
        'embedding': 'embedding',
        'Transformer/posembed_input/pos_embedding': 'position_embedding',
        'Transformer/encoder_norm': 'encoder/norm',
        'output_projection': 'head',
    }
    if model.representation is not None:
        names['pre_logits'] = 'representation'
    for layer in range(model.layers):
        names |= _below(f'Transformer/encoderblock_{layer}', f'encoder/block_{layer}', _BLOCK)
    for first, tokenizer in model.reductions:
        # Modules without a name are numbered by class; a fuser repeats them in later layers.
        for layer in range(first, model.layers if model.fuser else first + 1):
            made = {'tokenizer': tokenizer()} | ({'fuser': model.fuser()} if model.fuser else {})
            for ours, module in made.items():
                theirs = _SCENIC_CLASSES.get(type(module), type(module).__name__)
                names |= _below(
                    f'Transformer/{theirs}_{layer - first}',
                    f'encoder/{ours}_{layer}',
                    _scenic_names(module),
                )
    return names


_SCENIC_CLASSES: dict[type, str] = {
    TokenLearner: 'TokenLearnerModule',
    TokenLearnerV11: 'TokenLearnerModuleV11',
}


def _below(old: str, new: str, names: Names) -> Names:
    """The names of a module that stands below another."""
    return {f'{old}/{key}': f'{new}/{value}' for key, value in names.items()}
