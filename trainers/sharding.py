"""Where arrays lie: the mesh, the rules for parameters, and batches."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trainers.construct import UserError

AXES = ('data', 'fsdp', 'tensor')
Rules = Sequence[tuple[str, Sequence[str | None]]]

# Smaller arrays are not worth a transfer of their own each time they are used.
_FSDP_FROM = 2**12


def make_mesh(data: int, fsdp: int, tensor: int, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over devices, by default all; one axis may be -1, which takes what is left.

    Raises:
        UserError: if the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [data, fsdp, tensor]
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = len(devices) // max(1, -math.prod(sizes))
    if min(sizes) < 1 or math.prod(sizes) != len(devices):
        raise UserError(
            f'config.mesh data={data} fsdp={fsdp} tensor={tensor} does not fit {len(devices)} '
            'devices; let the axes multiply to it, one may be -1'
        )
    types = (jax.sharding.AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(sizes), AXES, types, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def batch_parts(mesh: Mesh) -> int:
    """How many parts a global batch is cut into."""
    return mesh.shape['data'] * mesh.shape['fsdp']


def check_batch_size(batch_size: int, mesh: Mesh, microbatches: int = 1) -> None:
    """Raises ValueError unless a global batch can be cut into microbatches and the mesh's parts."""
    if batch_size < 1 or batch_size % (batch_parts(mesh) * microbatches):
        each = f' and {microbatches} microbatches' if microbatches > 1 else ''
        raise ValueError(
            f'batch_size={batch_size} cannot be cut into the {batch_parts(mesh)} parts of the '
            f'mesh{each}; use a multiple, or a mesh of fewer parts'
        )


def batch_share(mesh: Mesh, process: int) -> tuple[int, int]:
    """Which share of each global batch a process reads, and of how many."""
    rows: defaultdict[int, set[tuple[int, ...]]] = defaultdict(set)
    parts: Any = batch_sharding(mesh).devices_indices_map((mesh.size,))
    for device, (part,) in parts.items():
        rows[device.process_index].add(part.indices(mesh.size))
    return share_of_rows(rows, process)


def share_of_rows(rows: Mapping[int, set[Any]], process: int) -> tuple[int, int]:
    """Number of a process's share, and how many there are.

    Processes that hold the same rows of a batch, as those that `tensor` spans, have the same.

    Args:
        rows: of the batch, by process.
        process: one of them.

    Raises:
        UserError: if the rows of two processes overlap without being the same.
    """
    shares = sorted({tuple(sorted(held)) for held in rows.values()})
    if len(set().union(*shares)) < sum(map(len, shares)) or len(set(map(len, shares))) > 1:
        raise UserError(
            f'config.mesh gives {len(rows)} processes rows of the batch that overlap; let tensor '
            'divide the devices of a process, or be a multiple of them'
        )
    return shares.index(tuple(sorted(rows[process]))), len(shares)


def infer_shardings(tree: Any, mesh: Mesh, rules: Rules = ()) -> Any:
    """A sharding for each leaf of a tree of arrays or shapes.

    The first rule whose expression is found in the leaf's path names a mesh axis, or None, for
    each of its dimensions. Then `fsdp` takes the largest dimension that is left and that it
    divides; small arrays are replicated over it. Axes of size 1 stand for nothing.

    Optimiser state repeats the parameters' paths behind its own (`params/encoder/...`,
    `opt_state/1/0/mu/encoder/...`), so that a rule for `encoder/...` is found in both.

    Args:
        tree: arrays or jax.ShapeDtypeStruct.
        mesh: with the axes of `AXES`.
        rules: pairs of regular expression and the axes of each dimension.

    Raises:
        UserError: if a rule does not fit an array, or fits none.
    """
    found: set[str] = set()

    def choose(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        axes: list[str | None] = [None] * len(leaf.shape)
        for pattern, rule in rules:
            if re.search(pattern, name):
                found.add(pattern)
                _check_rule(pattern, rule, name, leaf.shape, mesh)
                axes = [axis if axis and mesh.shape[axis] > 1 else None for axis in rule]
                break
        return NamedSharding(mesh, _with_fsdp(axes, leaf.shape, mesh))

    shardings = jax.tree_util.tree_map_with_path(choose, tree)
    for pattern, _ in rules:
        if pattern not in found:
            raise UserError(
                f'the rule {pattern!r} of config.sharding fits no parameter, or earlier rules '
                'take them; leave it out'
            )
    return shardings


def _check_rule(
    pattern: str, rule: Sequence[str | None], name: str, shape: tuple[int, ...], mesh: Mesh
) -> None:
    where = f'the rule {pattern!r} of config.sharding does not fit {name} {list(shape)}'
    if len(rule) != len(shape):
        raise UserError(f'{where}: it has {len(rule)} axes; name one, or None, for each dimension')
    for axis, size in zip(rule, shape, strict=True):
        if axis and axis not in mesh.shape:
            raise UserError(f'{where}: {axis!r} is no axis; use {", ".join(AXES)} or None')
        if axis and size % mesh.shape[axis]:
            raise UserError(
                f'{where}: {axis}={mesh.shape[axis]} does not divide {size}; '
                f'use another config.mesh.{axis}'
            )


def _with_fsdp(axes: list[str | None], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    size = mesh.shape['fsdp']
    free = [i for i, n in enumerate(shape) if axes[i] is None and n % size == 0]
    if size > 1 and 'fsdp' not in axes and free and math.prod(shape) >= _FSDP_FROM:
        axes[max(free, key=lambda i: shape[i])] = 'fsdp'
    while axes and axes[-1] is None:
        axes.pop()
    return PartitionSpec(*axes)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
    """Puts this process's share of a batch onto the devices; `id` and `error` stay on the host.

    For a single CPU device it is there already, and a jitted function takes it as it is.
    """
    arrays = {key: value for key, value in batch.items() if key not in ('id', 'error')}
    if mesh.size == 1 and mesh.devices.flat[0].platform == 'cpu':
        return arrays
    return jax.make_array_from_process_local_data(batch_sharding(mesh), arrays)
