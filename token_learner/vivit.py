"""ViViT: the Vision Transformer of clips, plain or with TokenLearner."""

from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from token_learner.vit import ViT, patch_grid


class ViViT(ViT):
    """Video Vision Transformer, of joint space-time attention or with a factorised encoder.

    A patch is a tubelet, of some frames. With `temporal_layers=0` all tubelets of a clip are one
    sequence (ViViT's model 1). Otherwise the encoder sees the tubelets of one time alone, and a
    temporal one with so many layers what would be the head's input of each time (model 2, the
    factorised encoder); it has position embeddings and for `head='token'` a class token of its
    own. Stochastic depth is drawn for each time there, and anew in the temporal part.

    Reductions work on the tubelets of one time: S learned tokens each, S*t in all, as in the TPAMI
    version, Sec. 5; position embeddings are not added anew. Clips that a patch does not divide in
    height or width are cropped as images are; frames are never left out.

    Source: Arnab et al., arXiv:2103.15691, Sec. 3.2 and 3.3.

    Attributes:
        patch: frames, and height and width in pixels, of a tubelet.
        temporal_layers: of the temporal encoder; 0 has none.

    Those of `ViT` beside.
    """

    of_clips: ClassVar[bool] = True

    temporal_layers: int = 0

    def __post_init__(self) -> None:
        if self.temporal_layers < 0:
            raise ValueError(f'temporal_layers={self.temporal_layers} is negative; 0 has none')
        super().__post_init__()

    @property
    def cell(self) -> tuple[int, int, int]:
        """Frames, and height and width in pixels, of a tubelet."""
        frames, height, width = self.patch
        return frames, height, width

    def position_grid(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The grid that the position embeddings are for.

        Args:
            size: frames, height and width of a clip, pixels.

        Returns:
            Times, rows and columns; of a factorised encoder rows and columns.

        Raises:
            ValueError: if the tubelet is larger than the clip or does not divide its frames, or the
                size is that of an image.
        """
        if len(size) != 3:
            raise ValueError('a ViViT is a model of clips, not of images; use a ViT')
        (frames, *space), (tubelet, *patch) = size, self.patch
        if frames % tubelet:
            raise ValueError(
                f'clips of {frames} frames are not divided into tubelets of {tubelet}; use a '
                f'multiple of {tubelet}'
            )
        rows, columns = patch_grid(tuple(space), tuple(patch))
        return (rows, columns) if self.temporal_layers else (frames // tubelet, rows, columns)

    @nn.compact
    def __call__(
        self, images: Float[Array, 'b T H W C'], *, train: bool = False
    ) -> Float[Array, 'b classes']:
        """Maps clips [b, frames, height, width, channels] to logits [b, classes].

        Raises:
            ValueError: if the tubelet is larger than the clip, or does not divide its frames.
        """
        self.position_grid(images.shape[1:-1])
        x = self._embed(images)
        if not self.temporal_layers:
            return self._classify(self._encode(x, train))
        b, t, h, w, c = x.shape
        x = self._encode(x.reshape(b * t, 1, h, w, c), train).reshape(b, t, 1, 1, c)
        parts = {'layers': self.temporal_layers, 'reductions': (), 'fuser': None, 'scan': False}
        return self._classify(self._encode(x, train, 'temporal_', **parts))
