"""Vision Transformer, plain or with TokenLearner."""

import math
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float

from token_learner.checks import check_choice, check_positive
from token_learner.encoder import Encoder, Factory
from token_learner.mlp import GELUS
from token_learner.partitioning import shard_batch


def patch_grid(size: tuple[int, ...], patch: tuple[int, ...]) -> tuple[int, int]:
    """Counts the rows and columns of patches in an image.

    A patch that does not divide the image leaves out the last rows and columns of pixels,
    as the published counts of the paper's L/14 and L/10 at 512 imply.

    Args:
        size: height and width of the image, pixels.
        patch: height and width of a patch, pixels.

    Raises:
        ValueError: if the patch is larger than the image.
    """
    (h, w), (ph, pw) = size, patch
    if ph > h or pw > w:
        raise ValueError(
            f'the patch {ph}x{pw} is larger than the image {h}x{w}; '
            'use a smaller patch or a larger image'
        )
    return h // ph, w // pw


class ViT(nn.Module):
    """Vision Transformer for images of any size, square or not.

    Patches, learned position embeddings, the encoder with its reductions, and a linear
    head on the mean over the last tokens (`head='gap'`: the positions, or the S learned
    tokens; merged ones count as often as they stand for) or on a class token (`head='token'`,
    only without reductions). What the head reads is sown as `pre_logits` into `intermediates`.

    Source: TPAMI version, Sec. 3.1; Dosovitskiy et al., arXiv:2010.11929.

    Attributes:
        num_classes: number of outputs.
        patch: height and width of a patch, pixels.
        width: channels c.
        layers: number of encoder blocks.
        heads: attention heads.
        mlp_dim: width inside the blocks' MLPs.
        reductions: pairs of layer and tokenizer factory, see `Encoder`.
        fuser: factory of the fuser, or None.
        head: 'gap' or 'token'.
        attention: implementation, see `dot_product_attention`.
        remat: what the backward pass computes anew, see `Encoder`.
        scan: whether equal layers are one compiled loop, see `Encoder`.
        representation: width of a tanh layer before the head; None has no such layer.
        dropout: rate on the embeddings and in the blocks.
        stochastic_depth: rate of the last block, see `Encoder`.
        dtype: type of the computation; parameters are float32.
        gelu: of the blocks' MLPs, 'tanh' or 'erf'.
        head_bias: what every bias of the head starts with.
    """

    of_clips: ClassVar[bool] = False

    num_classes: int
    patch: tuple[int, ...]
    width: int
    layers: int
    heads: int
    mlp_dim: int
    reductions: tuple[tuple[int, Factory], ...] = ()
    fuser: Factory | None = None
    head: str = 'gap'
    attention: str = 'auto'
    remat: str = 'none'
    scan: bool = False
    representation: int | None = None
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    dtype: Dtype | None = None
    gelu: str = 'tanh'
    head_bias: float = 0.0

    def __post_init__(self) -> None:
        check_choice('head', self.head, ('gap', 'token'))
        check_choice('gelu', self.gelu, GELUS)
        check_positive('num_classes', self.num_classes)
        if self.representation is not None:
            check_positive('representation', self.representation)
        for name in ('dropout', 'stochastic_depth'):
            if not 0 <= (rate := getattr(self, name)) < 1:
                raise ValueError(f'{name}={rate} is no rate; use 0 or more and less than 1')
        if self.head == 'token' and self.reductions:
            raise ValueError("a tokenizer has no place for the class token; use head='gap'")
        super().__post_init__()

    @property
    def cell(self) -> tuple[int, int, int]:
        """Frames, and height and width in pixels, of the input to a position of the grid."""
        height, width = self.patch
        return 1, height, width

    def position_grid(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The grid that the position embeddings are for.

        Args:
            size: height and width of an image, pixels.

        Returns:
            Rows and columns.

        Raises:
            ValueError: if the patch is larger than the image, or the size is that of a clip.
        """
        if len(size) != 2:
            raise ValueError('a ViT is a model of images, not of clips; use a ViViT')
        return patch_grid(size, self.patch)

    @nn.compact
    def __call__(
        self, images: Float[Array, 'b H W C'], *, train: bool = False
    ) -> Float[Array, 'b classes']:
        """Maps images [b, height, width, channels] to logits [b, classes].

        Raises:
            ValueError: if the patch is larger than the image.
        """
        self.position_grid(images.shape[1:-1])
        return self._classify(self._encode(self._embed(images)[:, None], train))

    def _embed(self, pixels: Float[Array, 'b *size C']) -> Float[Array, 'b *grid c']:
        """Patches as vectors."""
        return nn.Conv(
            self.width, self.patch, self.patch, padding='VALID', dtype=self.dtype, name='embedding'
        )(pixels)

    def _encode(
        self, x: Float[Array, 'b t h w c'], train: bool, prefix: str = '', **parts: Any
    ) -> Float[Array, 'b c']:
        """What the head reads of each grid.

        Args:
            x: [b, t, h, w, c].
            train: whether dropout is on.
            prefix: of the parameters' names.
            **parts: of the encoder, where they are not this model's.
        """
        b, *grid, c = x.shape
        x = shard_batch(x.reshape(b, math.prod(grid), c))
        if self.head == 'token':
            token = self.param(f'{prefix}class_token', nn.initializers.zeros, (1, 1, c))
            x = jnp.concatenate([jnp.broadcast_to(token, (b, 1, c)).astype(x.dtype), x], axis=1)
        position = self.param(
            f'{prefix}position_embedding', nn.initializers.normal(stddev=0.02), (1, *x.shape[1:])
        )
        x = nn.Dropout(self.dropout, deterministic=not train)(x + position.astype(x.dtype))
        own = ('layers', 'reductions', 'fuser', 'scan')
        encoder = Encoder(
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            attention=self.attention,
            remat=self.remat,
            dropout=self.dropout,
            stochastic_depth=self.stochastic_depth,
            dtype=self.dtype,
            gelu=self.gelu,
            name=f'{prefix}encoder',
            **({key: getattr(self, key) for key in own} | parts),
        )
        x, sizes = encoder(x, tuple(grid), train=train, return_sizes=True)
        if self.head == 'token':
            return x[:, 0]
        if sizes is None:
            return x.mean(axis=1)
        shares = sizes / sizes.sum(axis=1, keepdims=True)
        return jnp.einsum('bn,bnc->bc', shares.astype(x.dtype), x)

    def _classify(self, x: Float[Array, 'b c']) -> Float[Array, 'b classes']:
        """The head."""
        if self.representation is not None:
            x = nn.tanh(nn.Dense(self.representation, dtype=self.dtype, name='representation')(x))
        self.sow('intermediates', 'pre_logits', x)
        logits = nn.Dense(
            self.num_classes,
            kernel_init=nn.initializers.zeros,
            bias_init=nn.initializers.constant(self.head_bias),
            dtype=self.dtype,
            name='head',
        )(shard_batch(x))
        return shard_batch(logits)
