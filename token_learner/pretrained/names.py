"""What other code bases call the modules and parameters of these models, and which they have."""

import flax.linen as nn

from token_learner.checks import check_choice
from token_learner.fuser import TokenFuser
from token_learner.tokenizer import TokenLearner, TokenLearnerV11
from token_learner.vit import ViT
from token_learner.vivit import ViViT

Names = dict[str, str]  # theirs -> ours, the pieces of a path joined as each of them does

# The code bases, and what joins the pieces of their paths.
SOURCES = {'scenic': '/', 'augreg': '/', 'huggingface': '.'}

# What transformers calls the functions that `ViT.gelu` names.
HUGGINGFACE_GELUS = dict.fromkeys(('gelu_fast', 'gelu_new', 'gelu_pytorch_tanh'), 'tanh') | {
    'gelu': 'erf'
}

OURS = 'token_learner'  # what `read` says of an export of this code base

_MLP: Names = {'Dense_0': 'hidden', 'Dense_1': 'out'}


def names_of(source: str, model: nn.Module) -> Names:
    """Names of modules, and of parameters that are in none.

    For a ViT these include the class token and the representation, which only some have.

    Args:
        source: one of `SOURCES`.
        model: `ViT`; for 'scenic' also one of the modules of TokenLearner.

    Returns:
        Their path -> our path. Two of theirs may lead to one of ours; the last is the one that
        released files have.

    Raises:
        ValueError: if the source is unknown or has no such model.
    """
    check_choice('source', source, tuple(SOURCES))
    if source == 'scenic':
        return _scenic(model)
    if not isinstance(model, ViT):
        raise ValueError(f'{source} has no {type(model).__name__}; convert a ViT')
    if source == 'augreg':
        return _augreg(model.layers)
    roots = ('vit', 'vivit') if isinstance(model, ViViT) else ('vivit', 'vit')
    return _huggingface(model.layers, roots[0]) | _huggingface(model.layers, roots[1])


def check_counterpart(source: str, model: nn.Module) -> None:
    """Raises ValueError where a ViT has what the other code base has not."""
    check_choice('source', source, tuple(SOURCES))
    if not isinstance(model, ViT):
        return
    if isinstance(model, ViViT) and source == 'augreg':
        raise ValueError(
            'augreg has no models of clips; take a ViT, or begin with its parameters through '
            '`rename` and `adapt`'
        )
    if isinstance(model, ViViT) and model.temporal_layers:
        raise ValueError(f'{source} has no factorised encoder; use temporal_layers=0')
    if model.reductions and source != 'scenic':
        raise ValueError(
            f'{source} has no token reductions; take a plain ViT, or begin with its parameters '
            'through `rename` and `adapt`'
        )
    has = {'scenic': ('gap',), 'augreg': ('gap', 'token'), 'huggingface': ('token',)}[source]
    if model.head not in has:
        raise ValueError(f'{source} has no head={model.head!r}; use {" or ".join(has)}')
    if model.representation is not None and source == 'huggingface':
        raise ValueError('huggingface has no representation before the head; use None')


def _scenic(model: nn.Module) -> Names:
    """google-research/scenic, projects/token_learner (commit 4a38d47)."""
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
        if model.beta == 'conv':
            raise ValueError("scenic has no beta='conv'; use 'mlp'")
        # Scenic's beta has been an MLP since 09480e7: nothing there fits a linear one.
        beta = {'mlp': _below('token_masking', 'beta', _MLP), 'linear': {}}
        return {'Dense_0': 'mix'} | norms[model.norm] | beta[model.beta]
    if isinstance(model, ViT):
        return _scenic_vit(model)
    raise ValueError(f'cannot convert parameters for a {type(model).__name__}; use one of ours')


def _scenic_vit(model: ViT) -> Names:
    names = _flax_vit(model.layers, 'LayerNorm_1', 'MultiHeadDotProductAttention_0', 'MlpBlock_0')
    names['output_projection'] = 'head'
    for first, tokenizer in model.reductions:
        # Modules without a name are numbered by class; a fuser repeats them in later layers.
        for layer in range(first, model.layers if model.fuser else first + 1):
            made = {'tokenizer': tokenizer()} | ({'fuser': model.fuser()} if model.fuser else {})
            for ours, module in made.items():
                theirs = _SCENIC_CLASSES.get(type(module), type(module).__name__)
                names |= _below(
                    f'Transformer/{theirs}_{layer - first}',
                    f'encoder/{ours}_{layer}',
                    _scenic(module),
                )
    return names


_SCENIC_CLASSES: dict[type, str] = {
    TokenLearner: 'TokenLearnerModule',
    TokenLearnerV11: 'TokenLearnerModuleV11',
}


def _augreg(layers: int) -> Names:
    """google-research/vision_transformer, vit_jax/models_vit.py (commit 06862cd).

    Modules without a name are numbered by class since Flax's Linen. The released files are older
    and number through; `vit_jax.checkpoint.load` reads both, timm only theirs.
    """
    linen = _flax_vit(layers, 'LayerNorm_1', 'MultiHeadDotProductAttention_0', 'MlpBlock_0')
    files = _flax_vit(layers, 'LayerNorm_2', 'MultiHeadDotProductAttention_1', 'MlpBlock_3')
    return linen | files | {'cls': 'class_token', 'head': 'head'}


def _flax_vit(layers: int, norm_mlp: str, attention: str, mlp: str) -> Names:
    """A ViT's names without its head, the modules of a block being called as given."""
    block = {'LayerNorm_0': 'norm_attention', norm_mlp: 'norm_mlp'}
    block |= _below(attention, 'attention', {n: n for n in ('query', 'key', 'value', 'out')})
    block |= _below(mlp, 'mlp', _MLP)
    names = {
        'embedding': 'embedding',
        'Transformer/posembed_input/pos_embedding': 'position_embedding',
        'Transformer/encoder_norm': 'encoder/norm',
        'pre_logits': 'representation',
    }
    for layer in range(layers):
        names |= _below(f'Transformer/encoderblock_{layer}', f'encoder/block_{layer}', block)
    return names


def _huggingface(layers: int, root: str) -> Names:
    """The state of transformers' ViTForImageClassification and VivitForVideoClassification (5.23).

    Args:
        layers: blocks.
        root: 'vit' or 'vivit'.
    """
    block = {
        'layernorm_before': 'norm_attention',
        'layernorm_after': 'norm_mlp',
        'attention.attention.query': 'attention/query',
        'attention.attention.key': 'attention/key',
        'attention.attention.value': 'attention/value',
        'attention.output.dense': 'attention/out',
        'intermediate.dense': 'mlp/hidden',
        'output.dense': 'mlp/out',
    }
    names = {
        f'{root}.embeddings.cls_token': 'class_token',
        f'{root}.embeddings.position_embeddings': 'position_embedding',
        f'{root}.embeddings.patch_embeddings.projection': 'embedding',
        f'{root}.layernorm': 'encoder/norm',
        'classifier': 'head',
    }
    for layer in range(layers):
        names |= _below(f'{root}.encoder.layer.{layer}', f'encoder/block_{layer}', block, '.')
    return names


def _below(old: str, new: str, names: Names, separator: str = '/') -> Names:
    """The names of a module that stands below another."""
    return {f'{old}{separator}{key}': f'{new}/{value}' for key, value in names.items()}
