"""X(2+1)D: X3D with 2D and 1D convolutions in place of 3D ones, plain or with TokenLearner."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Bool, Float

from token_learner.checks import check_choice, check_positive
from token_learner.partitioning import shard_batch
from token_learner.space_time import CONV_INIT, Factory, TemporalConv
from token_learner.spec import PLAIN, Backbone

# Names and factories; a conv2d is the module's own and has none.
Layers = Sequence[tuple[str, Factory | None]]
Mask = Bool[Array, 'b'] | None


class Norm(nn.Module):
    """BatchNorm with statistics over the batch of all devices, and a ReLU.

    Statistics are in the collection `batch_stats`, and are float32. Examples that the mask leaves
    out do not count, unless it leaves out all; those of evaluation are the running ones.

    Attributes:
        relu: whether there is a ReLU.
        zero: whether the scale starts at zero.
        dtype: type of the output; parameters are float32.
    """

    relu: bool = True
    zero: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, 'b *n c'], mask: Mask = None, *, train: bool = False
    ) -> Float[Array, 'b *n c']:
        """Maps activations [b, ..., c] to the same shape."""
        if mask is not None:
            mask = (mask | ~mask.any()).reshape(-1, *(1,) * (x.ndim - 1))
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
            scale_init=nn.initializers.zeros if self.zero else nn.initializers.ones,
            name='norm',
        )(x, mask=mask)
        return nn.relu(x) if self.relu else x


class ResidualModule(nn.Module):
    """An inverted bottleneck: 1x1 to more channels, the layers, 1x1 back, and a shortcut.

    BatchNorm and ReLU follow each layer; the last norm's scale starts at zero (Goyal et al.,
    arXiv:1706.02677, Sec. 5.1). Every shortcut is a 1x1 convolution with a norm, which the
    published counts of the networks imply (or one of several other details, see
    docs/bottleneck.md).

    Source: TPAMI version, Sec. 6.1, Figure 9.

    Attributes:
        inner: channels inside.
        outer: channels of the output.
        stride: by which the grid becomes smaller, in `conv2d`.
        layers: pairs of name and factory.
        dtype: type of the computation; parameters are float32.
    """

    inner: int
    outer: int
    stride: int
    layers: Layers
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, 'b t h w c'], mask: Mask = None, *, train: bool = False
    ) -> Float[Array, 'b t h2 w2 d']:
        """Maps activations [b, t, h, w, c] to [b, t, h / stride, w / stride, outer], rounded up."""
        x = shard_batch(x)

        def conv(features: int, size: int, stride: int, name: str) -> nn.Conv:
            return nn.Conv(
                features,
                (size, size),
                stride,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=CONV_INIT,
                name=name,
            )

        def norm(x: Array, name: str, relu: bool = True, zero: bool = False) -> Array:
            return Norm(relu, zero, self.dtype, name=f'{name}_norm')(x, mask, train=train)

        shortcut = norm(conv(self.outer, 1, self.stride, 'shortcut')(x), 'shortcut', relu=False)
        x = norm(conv(self.inner, 1, 1, 'expand')(x), 'expand')
        for name, factory in self.layers:
            if factory is None:
                x = conv(self.inner, 3, self.stride, name)(x)
            else:
                x = factory(name=name)(x, train=train)
            x = norm(x, name)
        x = norm(conv(self.outer, 1, 1, 'reduce')(x), 'reduce', relu=False, zero=True)
        return nn.relu(shortcut + x)


class X2plus1D(nn.Module):
    """A network of residual modules for clips, whose grid is halved in each block and time never.

    X3D's widths and depths; in place of each 3D convolution a dense 3x3 one and a dense one over
    three times, no squeeze-and-excitation, and ReLU. In the last modules of the last block other
    layers may stand. What the head reads is sown as `pre_logits` into `intermediates`. Clips may
    be of any size and length, but where a layer is for one.

    Source: TPAMI version, Sec. 6.1; Feichtenhofer, arXiv:2004.04730, Table 4 (X3D).

    Attributes:
        num_classes: number of outputs.
        backbone: widths and depths.
        layers: of the replaced modules, pairs of name and factory.
        replaced: how many of the last block's modules, the last ones, have them.
        dropout: rate before the last layer.
        remat: whether the backward pass computes modules anew, 'none' or 'full'.
        head_bias: what every bias of the last layer starts with.
        dtype: type of the computation; parameters are float32.
    """

    of_clips: ClassVar[bool] = True
    scan: ClassVar[bool] = False  # its modules are never one compiled loop

    num_classes: int
    backbone: Backbone
    layers: Layers = ()
    replaced: int = 0
    dropout: float = 0.0
    remat: str = 'none'
    head_bias: float = 0.0
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_positive('num_classes', self.num_classes)
        check_choice('remat', self.remat, ('none', 'full'))
        if not 0 <= self.dropout < 1:
            raise ValueError(f'dropout={self.dropout} is no rate; use 0 or more and less than 1')
        modules = self.backbone.depths[-1]
        if not 0 <= self.replaced <= modules:
            raise ValueError(
                f'replaced={self.replaced} is no number of modules; use 0 to {modules}, which the '
                'last block has'
            )
        if bool(self.replaced) != bool(self.layers):
            raise ValueError(
                f'replaced={self.replaced} modules have {len(self.layers)} layers; give both or '
                'neither'
            )
        if self.replaced == modules and self.layers[0][1] is not None:
            raise ValueError(
                'the first module of the last block halves the grid, which needs a conv2d as its '
                'first layer; replace fewer modules, or put one there'
            )
        super().__post_init__()

    @property
    def cell(self) -> tuple[int, int, int]:
        """Frames, and height and width in pixels, of the input to a position of the last grid."""
        side = 1 << (1 + len(self.backbone.depths))
        return 1, side, side

    def position_grid(self, size: tuple[int, ...]) -> None:
        """None: there are no position embeddings.

        Args:
            size: frames, height and width of a clip, pixels.

        Raises:
            ValueError: if the size is that of an image.
        """
        if len(size) != 3:
            raise ValueError('an X2plus1D is a model of clips, not of images; use a ViT')

    @nn.compact
    def __call__(
        self, clips: Float[Array, 'b T H W C'], mask: Mask = None, *, train: bool = False
    ) -> Float[Array, 'b classes']:
        """Maps clips [b, frames, height, width, channels] to logits [b, classes].

        Args:
            clips: [b, T, H, W, C].
            mask: [b], which of them count in the statistics of a batch; None is all.
            train: whether dropout is on, and norms use and update the statistics of the batch.

        Raises:
            ValueError: if these are images.
        """
        self.position_grid(clips.shape[1:-1])
        norm = partial(Norm, dtype=self.dtype)
        numerics: dict[str, Any] = {
            'use_bias': False,
            'dtype': self.dtype,
            'kernel_init': CONV_INIT,
        }
        stem = self.backbone.stem
        x = nn.Conv(stem, (3, 3), 2, name='stem', **numerics)(shard_batch(clips))
        x = TemporalConv(5, self.dtype, name='stem_temporal')(x, train=train)
        x = norm(name='stem_norm')(x, mask, train=train)
        for block in range(len(self.backbone.depths)):
            x = self._block(x, mask, block, train)
        x = nn.Conv(self.backbone.inner[-1], (1, 1), name='top', **numerics)(x)
        x = norm(name='top_norm')(x, mask, train=train).mean(axis=(1, 2, 3))
        x = nn.relu(nn.Dense(self.backbone.head, name='representation', **numerics)(x))
        self.sow('intermediates', 'pre_logits', x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = nn.Dense(
            self.num_classes,
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(0.01),
            bias_init=nn.initializers.constant(self.head_bias),
            name='head',
        )(shard_batch(x))
        return shard_batch(logits)

    def _block(
        self, x: Float[Array, 'b t h w c'], mask: Mask, block: int, train: bool
    ) -> Float[Array, 'b t h2 w2 d']:
        """The residual modules of a block."""
        backbone, (conv2d, conv1d) = self.backbone, PLAIN
        plain: Layers = ((conv2d, None), (conv1d, partial(TemporalConv, dtype=self.dtype)))
        depth = backbone.depths[block]
        last = block == len(backbone.depths) - 1

        def apply(module: ResidualModule, x: Array, mask: Mask) -> Array:
            return module(x, mask, train=train)

        if self.remat == 'full':
            apply = nn.remat(apply)
        for index in range(depth):
            replaced = last and index >= depth - self.replaced
            module = ResidualModule(
                inner=backbone.inner[block],
                outer=backbone.outer[block],
                stride=1 if index else 2,
                layers=self.layers if replaced else plain,
                dtype=self.dtype,
                name=f'block_{block}_module_{index}',
            )
            x = apply(module, x, mask)
        return x
