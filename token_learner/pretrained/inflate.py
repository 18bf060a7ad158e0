"""A model of images' parameters as those of a model of clips."""

import re

import numpy as np

INFLATIONS = ('central', 'average')

_KERNEL = 'embedding/kernel'
_MIXING = re.compile(r'(^|/)fuser_\d+/mix/(kernel|bias)$')


def inflate_parameter(
    path: str, array: np.ndarray, shape: tuple[int, ...], times: int, inflate: str
) -> np.ndarray | None:
    """Gives a parameter the shape that it has in a model of clips.

    Clips of one repeated image then give what the image gives.

    - The patches' kernel [h, w, C, c] becomes one of tubelets [t, h, w, C, c]: it stands at the
      frame t // 2 and the others are zero ('central'; ViViT, arXiv:2103.15691, Sec. 3.4, Eq. 9), or
      each frame has 1/t of it ('average'; Eq. 8). Scenic begins a fresh kernel with a
      `central_frame_initializer` that leaves the central column of pixels and not the central
      frame; what it inflates is as here.
    - A fuser's mixing [s, s] of `mix_scope='clip'` becomes block diagonal over the times.

    Args:
        path: ours.
        array: of the model of images.
        shape: in the model of clips.
        times: t of its grid.
        inflate: 'central' or 'average'.

    Returns:
        An array of `shape`, or None if there is none that computes the same.
    """
    if path == _KERNEL and array.ndim == 4 and array.shape == shape[1:]:
        if inflate == 'average':
            return np.broadcast_to(array / shape[0], shape)
        kernel = np.zeros(shape, array.dtype)
        kernel[shape[0] // 2] = array
        return kernel
    if _MIXING.search(path) and shape == tuple(times * side for side in array.shape):
        return np.kron(np.eye(times), array) if array.ndim == 2 else np.tile(array, times)
    return None
