"""Machines to compile for, that need not be there."""

import math
import os
import re
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.experimental import topologies

from trainers.construct import UserError

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """A TPU, as its maker describes it (cloud.google.com/tpu/docs, the page of each version).

    Attributes:
        memory: bytes of HBM; the compiler keeps a little of it for itself.
        tflops: peak rate in bfloat16, in 1e12 operations a second.
        family: the name of its machines.
        units: what the name of a machine counts for each chip: cores or chips.
        options: of the description that jax asks libtpu for.
    """

    memory: int
    tflops: float
    family: str
    units: int
    options: dict[str, Any] = field(default_factory=dict)


CHIPS = {
    # Its two cores are one device, as on the real machines.
    'v4': Chip(32 * GIB, 275, 'v4', 2, {'chip_config_name': 'megacore'}),
    'v5e': Chip(16 * GIB, 197, 'v5litepod', 1),
    'v5p': Chip(95 * GIB, 459, 'v5p', 2),
    'v6e': Chip(32 * GIB, 918, 'v6e', 1),
}


def open_topology(name: str) -> tuple[list[Any], Chip | None]:
    """The devices of a topology, and what kind they are; None where that is this CPU.

    Call it before anything else asks jax for devices.

    Args:
        name: 'v5e:16x16', 'v4:4x4x4' or another kind of `CHIPS` and its shape, or 'cpu:8'.

    Raises:
        UserError: if there is no such topology, or it cannot be compiled for here.
    """
    match = re.fullmatch(r'(\w+):(\d+(?:x\d+)*)', name)
    if not match or match[1] not in (*CHIPS, 'cpu'):
        raise UserError(
            f'--topology={name} is not known; write cpu:8, or one of {", ".join(CHIPS)} and its '
            'shape, as in v5e:16x16'
        )
    kind, sides = match[1], [int(side) for side in match[2].split('x')]
    jax.config.update('jax_platforms', 'cpu')
    if kind == 'cpu':
        if len(sides) > 1:
            raise UserError(f'--topology={name} has no shape; write cpu:8')
        jax.config.update('jax_num_cpu_devices', sides[0])
        return jax.devices(), None
    chip = CHIPS[kind]
    # Without these libtpu asks the network what machine it is on, and says what it finds.
    os.environ |= {
        'TPU_SKIP_MDS_QUERY': '1',
        'TPU_WORKER_HOSTNAMES': 'localhost',
        'TPU_ACCELERATOR_TYPE': f'{chip.family}-{math.prod(sides) * chip.units}',
        'TPU_STDERR_LOG_LEVEL': '3',
        'TPU_MIN_LOG_LEVEL': '3',
    }
    try:
        found = topologies.get_topology_desc(name, platform='tpu', **chip.options)
    except Exception as error:
        raise UserError(_explain(name, str(error))) from error
    return list(found.devices), chip


def _explain(name: str, message: str) -> str:
    if 'libtpu' in message and 'lock' not in message:
        hint = "install what compiles for TPUs with pip install '.[train,tpu]', or use cpu:8"
    elif 'lock' in message or 'in use' in message:
        hint = 'another process compiles for a TPU; wait for it to end'
    else:
        hint = 'name a shape that is sold, as in v5e:16x16 or v4:4x4x4'
    return f'--topology={name} cannot be compiled for ({message.splitlines()[0]}); {hint}'
