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
_TOKENIZER: Names = {
    'LayerNorm_0': 'norm',
    'Conv_0': 'conv_0',
    'Conv_1': 'conv_1',
    'Conv_2': 'conv_2',
    'Conv_3': 'conv_3',
    'token_masking/Dense_0': 'mlp/hidden',
    'token_masking/Dense_1': 'mlp/out',
}
_FUSER: Names = {
    'LayerNorm_0': 'norm_grid',
    'fuser_mix_norm1': 'norm_in',
    'fuser_mix_norm2': 'norm_out',
    'Dense_0': 'mix',
    'token_masking/Dense_0': 'beta/hidden',
    'token_masking/Dense_1': 'beta/out',
}
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
_VIT: Names = {
    'embedding': 'embedding',
    'Transformer/posembed_input/pos_embedding': 'position_embedding',
    'Transformer/encoder_norm': 'encoder/norm',
    'pre_logits': 'representation',
    'output_projection': 'head',
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
        ValueError: if a parameter has no place in `model`, or the source is not known.
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
    return unflatten_dict(converted, sep='/')


def _rename(path: str, names: Names) -> str | None:
    """The new path of a parameter: the longest known beginning is replaced."""
    for end in range(len(pieces := path.split('/')), 0, -1):
        if (known := names.get('/'.join(pieces[:end]))) is not None:
            return '/'.join([known, *pieces[end:]])
    return None


def _scenic_names(model: nn.Module) -> Names:
    """Scenic's names and ours, for one model."""
    if isinstance(model, TokenLearner | TokenLearnerV11):
        return _TOKENIZER
    if isinstance(model, TokenFuser):
        return _FUSER
    if not isinstance(model, ViT):
        raise ValueError(f'cannot convert parameters for a {type(model).__name__}')
    names = dict(_VIT)
    for layer in range(model.layers):
        names |= _below(f'Transformer/encoderblock_{layer}', f'encoder/block_{layer}', _BLOCK)
    for first, _ in model.reductions:
        # Modules without a name are numbered by class; a fuser repeats them in later layers.
        for layer in range(first, model.layers if model.fuser else first + 1):
            for old, new, below in (
                ('TokenLearnerModule', 'tokenizer', _TOKENIZER),
                ('TokenLearnerModuleV11', 'tokenizer', _TOKENIZER),
                ('TokenFuser', 'fuser', _FUSER),
            ):
                names |= _below(
                    f'Transformer/{old}_{layer - first}', f'encoder/{new}_{layer}', below
                )
    return names


def _below(old: str, new: str, names: Names) -> Names:
    """The names of a module that stands below another."""
    return {f'{old}/{key}': f'{new}/{value}' for key, value in names.items()}
