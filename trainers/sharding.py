"""Where arrays lie: the mesh, the rules for parameters, and batches."""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trainers.construct import UserError

AXES = ('data', 'fsdp', 'tensor')
Rules = Sequence[tuple[str, PartitionSpec]]


def make_mesh(data: int, fsdp: int, tensor: int) -> Mesh:
    """A mesh over all devices; one axis may be -1, which takes what is left.

    Raises:
        UserError: if the axes do not multiply to the number of devices.
    """
    if tensor != 1:
        raise UserError('config.mesh.tensor is for later: no rule shards over it yet; use 1')
    sizes = [data, fsdp, tensor]
    devices = jax.devices()
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = len(devices) // max(1, -math.prod(sizes))
    if min(sizes) < 1 or math.prod(sizes) != len(devices):
        raise UserError(
            f'config.mesh data={data} fsdp={fsdp} tensor={tensor} does not fit {len(devices)} '
            'devices; let the axes multiply to it, one may be -1'
        )
    return jax.make_mesh(tuple(sizes), AXES, (jax.sharding.AxisType.Auto,) * len(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises ValueError unless a global batch can be cut into the mesh's parts."""
    parts = mesh.shape['data'] * mesh.shape['fsdp']
    if batch_size < 1 or batch_size % parts:
        raise ValueError(
            f'batch_size={batch_size} cannot be cut into the {parts} parts of the mesh; '
            'use a multiple'
        )


def infer_shardings(tree: Any, mesh: Mesh, rules: Rules = ()) -> Any:
    """A sharding for each leaf of a tree of arrays or shapes.

    The first rule whose expression is found in the leaf's path decides. Without one, the
    largest axis that `fsdp` divides is sharded over it, and other leaves are replicated.
    Optimiser state repeats the parameters' paths behind its own (`params/encoder/...`,
    `opt_state/1/0/mu/encoder/...`), so that a rule for `encoder/...` is found in both.

    Args:
        tree: arrays or jax.ShapeDtypeStruct.
        mesh: with the axes of `AXES`.
        rules: pairs of regular expression and spec.
    """

    def choose(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        for pattern, spec in rules:
            if re.search(pattern, name):
                return NamedSharding(mesh, spec)
        return NamedSharding(mesh, _fsdp_spec(leaf.shape, mesh.shape['fsdp']))

    return jax.tree_util.tree_map_with_path(choose, tree)


def _fsdp_spec(shape: tuple[int, ...], size: int) -> PartitionSpec:
    divisible = [axis for axis, n in enumerate(shape) if n % size == 0]
    if size == 1 or not divisible:
        return PartitionSpec()
    largest = max(divisible, key=lambda axis: shape[axis])
    return PartitionSpec(*(None,) * largest, 'fsdp')


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts this process's share of a batch onto the devices; `id` stays on the host."""
    sharding = batch_sharding(mesh)
    return {
        key: jax.make_array_from_process_local_data(sharding, value)
        for key, value in batch.items()
        if key != 'id'
    }
