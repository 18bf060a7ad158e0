"""Kills a training run at random moments, starts it again each time, and compares how it ends.

    python -m benchmarks.kill_resume --kills 20 [--seed 0] [--runs runs/kill_resume]

An uninterrupted run of the digits is trained first, and saves as often as the other. The other
is killed with SIGKILL after random times, while it starts and restores, trains or saves, and
started again by the same command. Its last parameters, optimiser state, step and random state must
be the same bits.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks.environment import describe, write_json
from configs import digits

ROOT = Path(__file__).parents[1]
ARG = 'model=mini/7-4at1,runlocal'


def command(workdir: Path, steps: int, every: int) -> list[str]:
    return [
        sys.executable,
        'main.py',
        f'--config=configs/digits.py:{ARG}',
        f'--config.total_steps={steps}',
        f'--config.checkpoint.every_steps={every}',
        '--config.log_every_steps=10',
        '--config.eval_every_epochs=0.0',
        f'--workdir={workdir}',
        f'--compilation_cache={workdir.parent / "cache"}',
    ]


def run_until(words: list[str], training: bool, stop: Callable[[float], bool]) -> tuple[int, bool]:
    """Runs a command until `stop(seconds)` says to kill it.

    The seconds are counted from its start, or from the line that says that it is training.

    Returns:
        Its exit status, and whether it had written that line.
    """
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        while training and 'training' not in process.stdout.readline():
            if process.poll() is not None:
                sys.exit(f'{" ".join(words)} does not train')
        start = time.monotonic()
        while process.poll() is None and not stop(time.monotonic() - start):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
    return process.returncode, training or 'training' in rest


def saving(workdir: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any((workdir / 'checkpoints').glob('*.orbax-checkpoint-tmp*'))


def final_state(workdir: Path, steps: int) -> list[np.ndarray]:
    """All arrays of the last checkpoint."""
    from trainers.checkpoints import restore_trained
    from trainers.experiment import make_experiment

    config = digits.get_config(ARG)
    config.total_steps = steps
    state = restore_trained(workdir, make_experiment(config))
    assert int(state.step) == steps
    return [np.asarray(x) for x in jax.tree.leaves(state)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--steps', type=int, default=4000)
    parser.add_argument('--every', type=int, default=40, help='steps between checkpoints')
    parser.add_argument('--runs', type=Path, default=Path('runs/kill_resume'))
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    about = describe()
    shutil.rmtree(args.runs, ignore_errors=True)
    whole, killed = ((args.runs / name).absolute() for name in ('whole', 'killed'))
    subprocess.run(command(whole, args.steps, args.every), cwd=ROOT, check=True)
    rng = random.Random(args.seed)
    words = command(killed, args.steps, args.every)
    kills = []
    while len(kills) < args.kills:
        aim = rng.choice(['starting', 'training', 'saving'])
        seconds = rng.uniform(0.1, 10.0)

        def stop(now: float, seconds: float = seconds, save: bool = aim == 'saving') -> bool:
            return now > seconds and (not save or saving(killed))

        status, trained = run_until(words, aim != 'starting', stop)
        if status != -signal.SIGKILL:
            sys.exit(f'the run ended by itself after {len(kills)} kills; use more --steps')
        steps = [int(p.name) for p in (killed / 'checkpoints').glob('*') if p.name.isdigit()]
        newest = max(steps, default=0)
        moment = ('saving' if saving(killed) else 'training') if trained else 'starting'
        kills.append({'moment': moment, 'seconds': seconds, 'newest': newest})
        print(f'kill {len(kills)}: {kills[-1]}', flush=True)
    subprocess.run(words, cwd=ROOT, check=True)
    pairs = list(zip(final_state(whole, args.steps), final_state(killed, args.steps), strict=True))
    same = sum(a.tobytes() == b.tobytes() for a, b in pairs)
    results = [json.loads((w / 'results.json').read_text())['metrics'] for w in (whole, killed)]
    moments = Counter(kill['moment'] for kill in kills)
    print(
        f'{args.kills} kills ({dict(moments)}): {same} of {len(pairs)} arrays are the same bits, '
        f'metrics {"the same" if results[0] == results[1] else "differ"}'
    )
    about['device'] = jax.devices()[0].device_kind
    record = {'kills': kills, 'arrays': len(pairs), 'same': same, 'metrics': results}
    write_json(args.json, about | record)
    if same < len(pairs) or results[0] != results[1]:
        sys.exit('the killed run ended otherwise')


if __name__ == '__main__':
    main()
