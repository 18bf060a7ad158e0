"""TokenLearner in JAX and Flax: tokenizers, fusers and the models they plug into.

Names are loaded on first use, so that `token_learner.spec` (the grammar of
model specs) can be imported where jax is not installed.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from token_learner.build import build_model
    from token_learner.counting import count
    from token_learner.dense import DenseTokens, PooledDenseTokens
    from token_learner.encoder import Encoder, EncoderBlock
    from token_learner.fuser import TokenFuser
    from token_learner.layers import stack_layers, unstack_layers
    from token_learner.merging import TokenMerging
    from token_learner.pooling import GridSplit, SpatialPooling
    from token_learner.reprojection import Reprojection
    from token_learner.spec import Spec, parse_spec
    from token_learner.tokenizer import TokenLearner, TokenLearnerV11
    from token_learner.unpool import Unpool
    from token_learner.vector_transformer import VectorTransformer
    from token_learner.vit import ViT
    from token_learner.vivit import ViViT
    from token_learner.x2plus1d import X2plus1D

__version__ = '0.1.0'

__all__ = [
    'DenseTokens',
    'Encoder',
    'EncoderBlock',
    'GridSplit',
    'PooledDenseTokens',
    'Reprojection',
    'SpatialPooling',
    'Spec',
    'TokenFuser',
    'TokenLearner',
    'TokenLearnerV11',
    'TokenMerging',
    'Unpool',
    'VectorTransformer',
    'ViT',
    'ViViT',
    'X2plus1D',
    'build_model',
    'count',
    'parse_spec',
    'stack_layers',
    'unstack_layers',
]

_HOME = {
    'DenseTokens': 'dense',
    'Encoder': 'encoder',
    'EncoderBlock': 'encoder',
    'GridSplit': 'pooling',
    'PooledDenseTokens': 'dense',
    'Reprojection': 'reprojection',
    'SpatialPooling': 'pooling',
    'Spec': 'spec',
    'TokenFuser': 'fuser',
    'TokenLearner': 'tokenizer',
    'TokenLearnerV11': 'tokenizer',
    'TokenMerging': 'merging',
    'Unpool': 'unpool',
    'VectorTransformer': 'vector_transformer',
    'ViT': 'vit',
    'ViViT': 'vivit',
    'X2plus1D': 'x2plus1d',
    'build_model': 'build',
    'count': 'counting',
    'parse_spec': 'spec',
    'stack_layers': 'layers',
    'unstack_layers': 'layers',
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.{_HOME[name]}'), name)


def __dir__() -> list[str]:
    return sorted(__all__)
