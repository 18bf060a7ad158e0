"""The layouts of PyTorch's arrays and ours, for the parameters of a ViT.

PyTorch keeps a convolution as [out, in, height, width], of clips with time before height, a dense
layer as [out, in] and the heads of attention in one axis; Flax has [height, width, in, out], time
before height too, [in, out] and [heads, channels].
"""

import re

import numpy as np

_BY_HEAD = re.compile(r'attention/(query|key|value)/')
_OF_HEADS = 'attention/out/kernel'


def from_torch(path: str, array: np.ndarray, heads: int) -> tuple[str, np.ndarray]:
    """The path and array that Flax has for a module of ours with PyTorch's leaf and layout.

    Raises:
        ValueError: if the array has other dimensions or the heads do not divide them.
    """
    module, _, leaf = path.rpartition('/')
    new = f'{module}/{"scale" if "norm" in module else "kernel"}' if leaf == 'weight' else path
    if new == 'embedding/kernel' and array.ndim > 3:
        return new, np.moveaxis(array, (1, 0), (-2, -1))
    if new.endswith('/kernel'):
        array = array.T
    try:
        if _BY_HEAD.search(new):
            array = array.reshape(*array.shape[:-1], heads, -1)
        elif new.endswith(_OF_HEADS):
            array = array.reshape(heads, -1, array.shape[-1])
    except ValueError:
        raise ValueError(
            f'{new} of shape {array.shape} is not divided by {heads} heads; use a divisor'
        ) from None
    return new, array


def to_torch(path: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """The inverse of `from_torch`; the array is contiguous, which safetensors relies on."""
    if path == 'embedding/kernel':
        array = np.moveaxis(array, (-2, -1), (1, 0))
    elif _BY_HEAD.search(path):
        array = array.reshape(*array.shape[:-2], -1).T
    elif path.endswith(_OF_HEADS):
        array = array.reshape(-1, array.shape[-1]).T
    elif path.endswith('/kernel'):
        array = array.T
    module, _, leaf = path.rpartition('/')
    new = f'{module}/weight' if leaf in ('kernel', 'scale') else path
    return new, np.ascontiguousarray(array)
