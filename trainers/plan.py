"""The plan of a launch: the train step compiled for machines that need not be there."""

import dataclasses
import json
import math
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from token_learner.build import build_countable
from token_learner.counting import count_program
from trainers.checks import check_model
from trainers.collectives import find_collectives
from trainers.construct import UserError
from trainers.evaluators import make_evaluators
from trainers.experiment import Experiment, make_experiment
from trainers.sharding import batch_parts, batch_sharding
from trainers.state import abstract_state
from trainers.step import make_train_step, train_step
from trainers.topology import GIB, Chip, open_topology

Plan = dict[str, Any]


def plan(config: ConfigDict, topology: str, path: Path | None = None) -> Plan:
    """Compiles the train step of a config for a topology and prints what it takes.

    Args:
        config: the experiment's.
        topology: see `open_topology`.
        path: file for the same as JSON.

    Returns:
        What is printed.

    Raises:
        UserError: if the config or the topology cannot be used, the file has no folder, or the step
            does not fit.
    """
    if path is not None and not path.absolute().parent.is_dir():
        raise UserError(f'--json={path} has no folder; make {path.parent}, or name another')
    devices, chip = open_topology(topology)
    experiment = make_experiment(config, devices)
    check_model(experiment)
    make_evaluators(experiment)
    result = make_plan(experiment, topology, chip)
    print_plan(result)
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + '\n')  # it may be /dev/stdout
    if not result['fits']:
        other = ['a larger topology', 'a smaller model']
        hints = result['suggestions'] or other
        raise UserError(f'the step {result["verdict"]}; try {" or ".join(hints)}')
    return result


def make_plan(experiment: Experiment, topology: str, chip: Chip | None) -> Plan:
    """Compiles a train step and reads its figures."""
    mesh, size = experiment.mesh, experiment.batch_size
    state, batch = abstract_state(experiment), abstract_batch(experiment)
    flops = count_flops(experiment, state, batch)
    result: Plan = {
        'spec': experiment.model_settings['spec'],
        'resolution': experiment.data.resolution,
        'dataset': experiment.data.dataset.name,
        'topology': topology,
        'devices': mesh.size,
        'processes': len({device.process_index for device in mesh.devices.flat}),
        'mesh': dict(mesh.shape),
        'batch_size': size,
        'batch_per_device': size // batch_parts(mesh),
        'microbatches': experiment.microbatches,
        'bytes_per_device': {
            'parameters': shard_bytes(state.params),
            'optimizer_state': shard_bytes((state.opt_state, state.ema)),
            'batch': shard_bytes(batch),
        },
        'flops_per_step': flops,
        'flops_per_device': flops / mesh.size,
        'chip_bytes': chip.memory if chip else None,
        'step_ms_at_peak': 1e3 * flops / mesh.size / (chip.tflops * 1e12) if chip else None,
    }
    start = time.perf_counter()
    try:
        compiled = make_train_step(experiment).lower(state, batch).compile()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        verdict, suggestions = read_refusal(str(error)), suggest(experiment, result)
        return result | {'fits': False, 'verdict': verdict, 'suggestions': suggestions}
    memory: Any = compiled.memory_analysis()
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    result['bytes_per_device'] |= {
        'temporaries': memory.temp_size_in_bytes,
        # The compiler for CPUs gives another peak, without the temporaries.
        'peak': memory.peak_memory_in_bytes if chip else kept + memory.temp_size_in_bytes,
    }
    traffic = find_collectives(compiled.as_text() or '')
    return result | {
        'fits': True,
        'verdict': f'fits; compiled in {time.perf_counter() - start:.0f} s',
        'collectives': {kind: t._asdict() for kind, t in traffic.items()},
    }


def abstract_batch(experiment: Experiment) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, types and shardings of a global batch."""
    pixels = 'image' if experiment.clip is None else 'video'
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        pixels: (experiment.input_shape, jnp.uint8),
        'place': ((), jnp.int32),
        'mask': ((), jnp.float32),
        'unreadable': ((), jnp.float32),
    }
    most = experiment.data.dataset.max_labels
    shapes |= {'label': ((), jnp.int32)} if most is None else {'labels': ((most,), jnp.int32)}
    sharding = batch_sharding(experiment.mesh)
    return {
        key: jax.ShapeDtypeStruct((experiment.batch_size, *shape), dtype, sharding=sharding)
        for key, (shape, dtype) in shapes.items()
    }


def count_flops(experiment: Experiment, state: Any, batch: Any) -> int:
    """Operations of a step on all devices together, those that remat repeats included.

    Counted in a trace, a multiply-add as 2; layers under scan as often as they run.
    """
    model = build_countable(experiment.model_settings, len(experiment.data.dataset.label_names))
    counted = dataclasses.replace(experiment, model=model)
    cost = count_program(partial(train_step, counted), state, batch)
    return 2 * cost.macs + cost.elementwise


def shard_bytes(tree: Any) -> int:
    """Bytes of a tree of shapes on the device that holds most of it."""
    return sum(
        x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree)
    )


def read_refusal(message: str) -> str:
    """What the compiler says of a step that is too large, in our words."""
    sizes = re.findall(r'([\d.]+)([KMGT])\b', message)
    if len(sizes) < 2 or 'hbm' not in message.lower():
        return f'does not fit: {message.splitlines()[0]}'
    need, have = (float(n) * 1024.0 ** ('KMGT'.index(unit) - 2) for n, unit in sizes[:2])
    return f'does not fit: {need:.2f} GiB are needed of {have:.2f} GiB that the compiler may use'


def suggest(experiment: Experiment, result: Plan) -> list[str]:
    """Overrides that make a step smaller, the cheapest first."""
    settings, mesh = experiment.model_settings, experiment.mesh.shape
    held = result['bytes_per_device']['parameters'] + result['bytes_per_device']['optimizer_state']
    made = []
    if settings['remat'] == 'none':
        made += ['--config.model.remat=dots', '--config.model.remat=full']
    elif settings['remat'] == 'dots':
        made.append('--config.model.remat=full')
    if mesh['data'] > 1 and held > (result['chip_bytes'] or 0) / 10:
        fsdp = mesh['fsdp'] * next(n for n in range(2, mesh['data'] + 1) if mesh['data'] % n == 0)
        made.append(f'--config.mesh.data=-1 --config.mesh.fsdp={fsdp}')
    size, parts = experiment.batch_size, experiment.microbatches
    if size % (2 * parts * batch_parts(experiment.mesh)) == 0:
        made += [f'--config.microbatches={2 * parts}', f'--config.batch_size={size // 2}']
    return made


def print_plan(result: Plan) -> None:
    """Prints a plan as a table."""
    held = result['bytes_per_device']
    mesh = ' '.join(f'{axis}={size}' for axis, size in result['mesh'].items())
    print(
        f'{result["spec"]} at {result["resolution"]} pixels, {result["dataset"]}, on '
        f'{result["topology"]}: {result["devices"]} devices of {result["processes"]} processes'
    )
    rows = [
        ('mesh', mesh, ''),
        ('batch', f'{result["batch_size"]:,}', f'{result["batch_per_device"]} a device'),
    ]
    if result['microbatches'] > 1:
        rows.append(('microbatches', str(result['microbatches']), ''))
    sources = {
        'parameters': 'a device; by arithmetic',
        'optimizer_state': 'a device; by arithmetic',
        'batch': 'a device; by arithmetic',
        'temporaries': "a device; the compiler's figure",
        'peak': "a device; the compiler's figure",
    }
    rows += [
        (name.replace('_', ' '), _size(held[name]), source)
        for name, source in sources.items()
        if name in held
    ]
    if result['chip_bytes']:
        rows.append(('the chip has', _size(result['chip_bytes']), 'from a table'))
    rows.append(('operations a step', _operations(result['flops_per_step']), 'counted in a trace'))
    rows.append(('', _operations(result['flops_per_device']), 'a device'))
    if result['step_ms_at_peak']:
        rows.append(
            ('shortest step', f'{result["step_ms_at_peak"]:.1f} ms', "estimate: at the chip's peak")
        )
    for kind, traffic in result.get('collectives', {}).items():
        times = f'{traffic["times"]} times a step, on each device'
        rows.append((kind, _size(traffic['bytes']), times))
    for name, value, note in rows:
        print(f'  {name:<18} {value:>24}   {note}'.rstrip())
    print(result['verdict'])


def _size(count: int) -> str:
    return f'{count / GIB:.2f} GiB' if count >= GIB / 10 else f'{count / 2**20:.2f} MiB'


def _operations(count: float) -> str:
    return f'{count / 1e12:,.2f} TFLOP' if count >= 1e11 else f'{count / 1e9:,.2f} GFLOP'
