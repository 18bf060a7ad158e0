"""Multi-head attention and its implementations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float

from token_learner.checks import check_choice
from token_learner.partitioning import mesh_parts, over_mesh, target_platform

IMPLEMENTATIONS = ('auto', 'xla', 'cudnn', 'flash')
CUDNN_TYPES = (jnp.dtype('float16'), jnp.dtype('bfloat16'))

# The kernel pays where the logits no longer fit next to everything else.
_FLASH_FROM = 1024
_FLASH_BLOCKS = range(256, 1024 + 1, 128)

Bias = Float[Array, '#b #k #n m']


def check_attention(implementation: str, dtype: str) -> None:
    """Raises ValueError unless activations can be of a type, and an implementation is for it."""
    check_choice('attention', implementation, IMPLEMENTATIONS)
    try:
        kind = jnp.dtype(dtype)
    except TypeError:
        raise ValueError(f'dtype={dtype!r} is not known; use bfloat16 or float32') from None
    if not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f'dtype={dtype} cannot hold activations; use a floating point type')
    if implementation == 'cudnn' and kind not in CUDNN_TYPES:
        raise ValueError(
            f"attention='cudnn' does not compute in dtype={dtype}; use bfloat16 or float16"
        )


def dot_product_attention(
    query: Float[Array, 'b n k d'],
    key: Float[Array, 'b m k d'],
    value: Float[Array, 'b m k e'],
    bias: Bias | None = None,
    implementation: str = 'auto',
) -> Float[Array, 'b n k e']:
    """softmax(query key^T / sqrt(d) + bias) value for each head, the softmax in float32.

    Implementations compute the same and differ in speed and memory:

    - 'xla': written out below; the logits are in memory.
    - 'cudnn': the fused kernel of NVIDIA GPUs, for float16 and bfloat16.
    - 'flash': the fused kernel of TPUs, for sequences of any length.
    - 'auto': 'cudnn' on an NVIDIA GPU from Ampere on where type and width allow it, 'flash' on a
      TPU from 1,024 positions on, otherwise 'xla'. It looks at the devices of the mesh that is set,
      and without one at the machine that traces the program.

    A bias is for 'xla', which 'auto' is then; the kernels are not given one here.

    Raises:
        ValueError: if the implementation is unknown, or a kernel is asked for what it cannot do.
    """
    check_choice('attention', implementation, IMPLEMENTATIONS)
    if implementation == 'auto':
        implementation = 'xla' if bias is not None else _choose(query, key, value)
    if implementation == 'xla':
        return _xla(query, key, value, bias)
    if bias is not None:
        raise ValueError(f"attention={implementation!r} is given no bias; use 'xla' or 'auto'")
    if implementation == 'cudnn' and query.dtype not in CUDNN_TYPES:
        raise ValueError(
            f"attention='cudnn' computes in float16 or bfloat16, not in {query.dtype}; set the "
            "model's dtype to one of them, or use 'xla'"
        )
    kernel = _flash if implementation == 'flash' else _cudnn
    return over_mesh(kernel, *_widened(query, key, value))[..., : value.shape[-1]]


def _widened(query: Array, key: Array, value: Array) -> tuple[Array, Array, Array]:
    """Of one width d, as kernels need: zeros are added where they are not."""
    width = _width(query, value)
    query = query * (width / query.shape[-1]) ** 0.5  # the scale stays

    def widen(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, width - x.shape[-1])))

    return widen(query), widen(key), widen(value)


def _width(query: Array, value: Array) -> int:
    d, e = query.shape[-1], value.shape[-1]
    return d if d == e else -(-max(d, e) // 8) * 8


def _choose(query: Array, key: Array, value: Array) -> str:
    (b, _, k, _), d, parts = query.shape, _width(query, value), mesh_parts()
    if b % parts[0] or k % parts[1]:
        return 'xla'
    device, platform = jax.devices()[0], target_platform()
    if platform == 'tpu':
        return 'flash' if min(query.shape[1], key.shape[1]) >= _FLASH_FROM else 'xla'
    fits = query.dtype in CUDNN_TYPES and d % 8 == 0 and d <= 128
    if platform == 'gpu' and fits and 'cuda' in device.client.platform_version:
        major = int(device.compute_capability.partition('.')[0])
        return 'cudnn' if major >= 8 else 'xla'
    return 'xla'


def _xla(query: Array, key: Array, value: Array, bias: Array | None) -> Array:
    """The scale goes onto the query, which is smaller than the logits by n/d."""
    query = query * query.shape[-1] ** -0.5
    logits = jnp.einsum('bnkd,bmkd->bknm', query, key, preferred_element_type=jnp.float32)
    if bias is not None:
        logits = logits + bias
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum('bknm,bmkd->bnkd', weights, value)


def _cudnn(query: Array, key: Array, value: Array) -> Array:
    return jax.nn.dot_product_attention(query, key, value, implementation='cudnn')


def _flash(query: Array, key: Array, value: Array) -> Array:
    """Pads both sequences to whole blocks, whose positions are a segment of their own."""
    from jax.experimental.pallas.ops.tpu import flash_attention as kernel

    n_real, m_real = query.shape[1], key.shape[1]
    (n, block_q), (m, block_k) = _blocks(n_real), _blocks(m_real)
    query, key, value = (
        jnp.moveaxis(jnp.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0), (0, 0))), 1, 2)
        for x, length in ((query, n), (key, m), (value, m))
    )
    b, _, _, d = query.shape

    def segments(real: int, length: int) -> Array:
        ids = (jnp.arange(length) >= real).astype(jnp.int32)
        return jnp.broadcast_to(ids, (b, length))

    out = kernel.flash_attention(
        query,
        key,
        value,
        segment_ids=kernel.SegmentIds(segments(n_real, n), segments(m_real, m)),
        sm_scale=d**-0.5,
        block_sizes=kernel.BlockSizes(
            block_b=1,
            block_q=block_q,
            block_k_major=block_k,
            block_k=block_k,
            block_q_major_dkv=block_q,
            block_q_dkv=block_q,
            block_k_major_dkv=block_k,
            block_k_dkv=block_k,
            block_q_dq=block_q,
            block_k_major_dq=block_k,
            block_k_dq=block_k,
        ),
    )
    return jnp.moveaxis(out, 2, 1)[:, :n_real]


def _blocks(length: int) -> tuple[int, int]:
    """The length padded to whole blocks, and the block: least padding, then largest."""
    padded = {block: -(-length // block) * block for block in _FLASH_BLOCKS}
    block = min(padded, key=lambda block: (padded[block], -block))
    return padded[block], block


class Attention(nn.Module):
    """Multi-head dot-product attention, by default as in ViT.

    Attributes:
        heads: number of heads k; must divide the width c.
        implementation: see `dot_product_attention`.
        dtype: type of the computation; parameters are float32.
        query_width: of the queries and the keys, in all heads; None is c.
        project: whether the heads' outputs are projected.
        use_bias: whether the projections have biases.
    """

    heads: int
    implementation: str = 'auto'
    dtype: Dtype | None = None
    query_width: int | None = None
    project: bool = True
    use_bias: bool = True

    def __post_init__(self) -> None:
        check_choice('attention', self.implementation, IMPLEMENTATIONS)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'b n c'],
        context: Float[Array, 'b m e'] | None = None,
        bias: Bias | None = None,
    ) -> Float[Array, 'b n c']:
        """Lets each position of a sequence attend to another sequence, or to its own.

        Args:
            x: [b, n, c], the queries.
            context: [b, m, e], the keys and values; None is x.
            bias: added to the logits [b, k, n, m].

        Returns:
            [b, n, c].

        Raises:
            ValueError: if the number of heads does not divide c, or the width of the queries.
        """
        width = x.shape[-1]
        query_width = width if self.query_width is None else self.query_width
        for each in (width, query_width):
            if each % self.heads:
                raise ValueError(
                    f'{self.heads} heads do not divide the width {each}; use a divisor'
                )
        context = x if context is None else context

        def project(x: Array, width: int, name: str) -> Float[Array, 'b n k d']:
            return nn.DenseGeneral(
                (self.heads, width // self.heads),
                use_bias=self.use_bias,
                dtype=self.dtype,
                kernel_init=nn.initializers.xavier_uniform(),
                name=name,
            )(x)

        query, key, value = (
            project(x, query_width, 'query'),
            project(context, query_width, 'key'),
            project(context, width, 'value'),
        )
        out = dot_product_attention(query, key, value, bias, self.implementation)
        if not self.project:
            return out.reshape(x.shape)
        return nn.DenseGeneral(
            width,
            axis=(-2, -1),
            use_bias=self.use_bias,
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            name='out',
        )(out)
