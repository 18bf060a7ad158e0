"""The attention maps of a model's tokenizers, as arrays."""

import re
from typing import Any

import flax.linen as nn
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float


def apply_with_maps(
    model: nn.Module, variables: Any, images: Float[Array, 'b *size C']
) -> tuple[Float[Array, 'b classes'], dict[int, Float[Array, 'b t s h w']]]:
    """Applies a model once, and returns where its tokens look as well.

    Args:
        model: such as `ViT`, `ViViT` or `X2plus1D`, without scan.
        variables: {'params': ...} and other collections.
        images: [b, height, width, channels], or clips [b, frames, height, width, channels].

    Returns:
        Logits [b, classes], and for each layer that has a tokenizer with maps its maps
        [b, t, s, h, w]; t is 1 for images, and of clips that of their tubelets or frames. The
        layers of an `X2plus1D` are the modules of its last block. Empty where there is no such
        tokenizer.

    Raises:
        ValueError: if two have the same layer, as in a module of several models, or one has none.
    """
    logits, sown = model.apply(variables, images, mutable='intermediates')
    maps = {}
    for path, values in flatten_dict(dict(sown['intermediates'])).items():
        if path[-1] == 'maps':
            # Such as encoder/tokenizer_6/maps, or block_3_module_6/tl/tokenizer/maps. A tokenizer
            # may have its maps from one inside it, and a model be inside another, with a number.
            name = '/'.join(path)
            found = re.search(r'(?:encoder/tokenizer|block_\d+_module)_(\d+)/', name)
            found = found or re.search(r'_(\d+)/', name)
            if not found or int(found[1]) in maps:
                raise ValueError(f'{name} has no layer of its own, by which maps are told apart')
            (value,) = values
            # A factorised encoder has the times of a clip in the batch.
            maps[int(found[1])] = value.reshape(len(images), -1, *value.shape[2:])
    return logits, dict(sorted(maps.items()))
