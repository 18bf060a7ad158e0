"""What each Kinetics model of the paper takes of a machine that need not be there.

    python -m benchmarks.kinetics_plans [--topology v5e:8x8] [--json FILE]

Runs main.py's plan of every model of Tables 7 to 9 with the recipe's batch of 64; of one in several
tables, with the config of the first. Where the step does not fit, the next of `WAYS` is tried.
Prints Markdown; exits with 1 if a model fits in none of them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.environment import describe, write_json
from benchmarks.paper_videos import TABLES
from trainers.topology import GIB

ROOT = Path(__file__).parents[1]

# Cheapest first: more memory, more operations, more traffic.
WAYS = (
    (),
    ('model.remat=dots',),
    ('model.remat=full',),
    ('model.remat=full', 'mesh.data=1', 'mesh.fsdp=-1'),
)
HEAD = (
    'model',
    'tables',
    'overrides',
    'peak memory',
    'parameters and optimizer',
    'a step of a device',
    'at the peak rate',
    'collectives',
)

Plan = dict[str, Any]
Flags = tuple[str, ...]


def list_models() -> dict[Flags, list[str]]:
    """Flags of main.py that name each model, and the tables that it is in."""
    found: dict[Flags, tuple[str, list[str]]] = {}
    for number, table in TABLES.items():
        for row in table.rows:
            if row.spec is not None:
                settings = [f'--config.model.{k}={v}' for k, v in row.settings.items()]
                model = (f'model={row.spec},res={row.resolution}', *settings)
                _, tables = found.setdefault(model, (table.recipe.config, []))
                tables += [number] if number not in tables else []
    return {
        (f'--config={config}:{arg}', *settings): tables
        for (arg, *settings), (config, tables) in found.items()
    }


def run_plan(flags: Iterable[str], topology: str) -> Plan:
    """The plan of one command line, whether it fits or not; ends the program if there is none."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'plan.json'
        command = [sys.executable, 'main.py', '--mode=plan', f'--topology={topology}']
        command += [f'--json={file}', *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if not file.exists():
            sys.exit(done.stderr)
        plan: Plan = json.loads(file.read_text())
    return plan


def find_plan(flags: Flags, topology: str) -> Plan:
    """The first way that fits, or the last one, with what the compiler said of those before."""
    refused: dict[str, str] = {}
    for way in WAYS:
        plan = run_plan((*flags, *(f'--config.{change}' for change in way)), topology)
        if plan['fits']:
            break
        refused[' '.join(way)] = plan['verdict']
    return {'flags': flags, 'overrides': way, 'refused': refused, **plan}


def format_row(plan: Plan, tables: list[str]) -> str:
    """A row of the table."""
    held, verdict = plan['bytes_per_device'], plan['verdict']
    settings = [flag.removeprefix('--config.model.') for flag in plan['flags'][1:]]
    model = ', '.join(f'`{name}`' for name in (plan['spec'], *settings))
    chip, at_peak = plan['chip_bytes'], plan['step_ms_at_peak']
    traffic = sum(kind['bytes'] for kind in plan.get('collectives', {}).values())
    peak = _gib(held['peak']) + (f' of {_gib(chip)}' if chip else '') if plan['fits'] else verdict
    cells = [
        f'{model} at {plan["resolution"]}',
        ', '.join(tables),
        ' '.join(f'`{way}`' for way in plan['overrides']) or 'none',
        peak,
        _gib(held['parameters'] + held['optimizer_state']),
        f'{plan["flops_per_device"] / 1e12:.2f} TFLOP',
        f'{at_peak:.0f} ms' if at_peak else '-',
        _gib(traffic) if plan['fits'] else '-',
    ]
    return f'| {" | ".join(cells)} |'


def _gib(size: int) -> str:
    return f'{size / GIB:.2f} GiB'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--topology', default='v5e:8x8', help='see docs/launching.md')
    parser.add_argument('--config', help='plan FILE:ARGUMENT alone')
    parser.add_argument('--json', type=Path, help='write the plans to this file as well')
    args = parser.parse_args()
    models = {(f'--config={args.config}',): ['-']} if args.config else list_models()
    about = describe('libtpu') | {'topology': args.topology}
    print(f'| {" | ".join(HEAD)} |\n|{"---|" * len(HEAD)}')
    plans = []
    for flags, tables in models.items():
        plans.append({'tables': tables, **find_plan(flags, args.topology)})
        print(format_row(plans[-1], tables), flush=True)
        write_json(args.json, {**about, 'plans': plans})
    if not all(plan['fits'] for plan in plans):
        sys.exit(1)


if __name__ == '__main__':
    main()
