"""How a model's arrays are cut over a mesh, where one is set.

Modules say nothing of meshes. The functions here act only within `jax.set_mesh` or
`jax.sharding.use_abstract_mesh`, for a mesh that has some of these axes.
"""

import math
from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array

# A batch is cut by the first two, heads and hidden units by the last.
BATCH_AXES, HEAD_AXIS = ('data', 'fsdp'), 'tensor'


def mesh_parts() -> tuple[int, int]:
    """How many parts of a batch and of the heads the mesh has."""
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape.get(axis, 1) for axis in BATCH_AXES), shape.get(HEAD_AXIS, 1)


def target_platform() -> str:
    """'cpu', 'gpu' or 'tpu': of the mesh's devices, or without one of this machine's."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return (jax.devices()[0] if device is None else device).platform


def shard_batch(x: Array) -> Array:
    """Keeps the first axis of activations cut over the mesh, where it can be.

    Without it the compiler may follow the parameters, which FSDP cuts by channels, and gather
    whole batches of activations in place of one layer's parameters.
    """
    axes = _batch_axes()
    if not axes or x.shape[0] % mesh_parts()[0]:
        return x
    rest = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *rest))


def over_mesh(kernel: Callable[..., Array], *args: Array) -> Array:
    """Runs a kernel, which the compiler cannot cut, on each device's examples and heads.

    Args:
        kernel: of arrays [b, n, k, d], or [b, n, c] with each channel a head.
        *args: its arguments.

    Raises:
        ValueError: if the batch or the heads cannot be cut into the mesh's parts.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return kernel(*args)
    parts, (b, _, k) = mesh_parts(), args[0].shape[:3]
    if b % parts[0] or k % parts[1]:
        raise ValueError(
            f'a batch of {b} and {k} heads cannot be cut into the {parts[0]} and {parts[1]} parts '
            "of the mesh, as a kernel needs; use multiples, or attention='xla' (of vector "
            "attention, whose heads are channels, 'blockwise')"
        )
    spec = PartitionSpec(_batch_axes(), None, HEAD_AXIS if HEAD_AXIS in mesh.shape else None)
    return jax.shard_map(
        kernel, mesh=mesh, in_specs=(spec,) * len(args), out_specs=spec, check_vma=False
    )(*args)


def _batch_axes() -> tuple[str, ...]:
    shape = jax.sharding.get_abstract_mesh().shape
    return tuple(axis for axis in BATCH_AXES if axis in shape)
