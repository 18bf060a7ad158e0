"""Times the forms of vector attention in turn: memory, growth, and chebyshev's error.

    python -m benchmarks.vector_attention [--rounds 7] [--json FILE]

Everything is forward and backward in one compiled program, in float32. Memory is what the program
takes beside its inputs and outputs (`memory_analysis().temp_size_in_bytes`).

The first table is of the size of the paper, 512 tokens of 432 channels; the kernel is in it where
the platform has one. The second has up to 4,096 tokens, the written-out form only where its tensor
is small. The third has what chebyshev saves and costs: its largest error over the largest
magnitude, of the output and of any gradient, by the range of the queries times that of the keys,
both spread evenly.

On an NVIDIA GPU the first table also has the share of the time that the exponential units take at
least: two exponentials for every pair of tokens and channel, one forward and one backward, at 16 a
clock and multiprocessor. The clock is the greatest one that nvidia-smi gives.
"""

import argparse
import math
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.environment import as_main_does, describe, write_json
from benchmarks.interleaved import Run, measure, ratio
from benchmarks.tables import print_table
from token_learner.vector_attention import vector_attention

EXPONENTIALS = 2  # of a pair of tokens and channel, with the weights computed anew backward
PER_CLOCK = 16  # exponentials of a multiprocessor, compute capabilities 8.0 to 9.0
LARGEST_TENSOR = 2**29  # bytes of the weights that the second table writes out
RANGES = (10, 20, 40, 80, 160)


class Form(NamedTuple):
    """A compiled form.

    Attributes:
        call: computes the output and the three gradients.
        run: the same on given inputs, until it is done.
        memory: beside inputs and outputs, bytes.
    """

    call: Callable[..., tuple[jax.Array, ...]]
    run: Run
    memory: int


def compile_form(name: str, inputs: list[jax.Array], **options: Any) -> Form:
    """Forward and backward of `vector_attention` in one program."""

    def both(query: Any, key: Any, value: Any, grad: Any) -> tuple[Any, ...]:
        def attend(*args: Any) -> Any:
            return vector_attention(*args, name, **options)

        out, pull = jax.vjp(attend, query, key, value)
        return out, *pull(grad)

    program = jax.jit(both).lower(*inputs).compile()
    memory = program.memory_analysis().temp_size_in_bytes
    return Form(program, lambda: jax.block_until_ready(program(*inputs)), memory)


def make_inputs(b: int, n: int, c: int) -> list[jax.Array]:
    """Normally distributed queries, keys, values and gradients of the output, [b, n, c]."""
    return [jax.random.normal(key, (b, n, c)) for key in jax.random.split(jax.random.key(0), 4)]


def times(forms: dict[Any, Form], rounds: int) -> dict[Any, list[float]]:
    """Seconds of every form by the clock, a list over the rounds."""
    taken = measure({name: form.run for name, form in forms.items()}, rounds, 1)
    return {name: [clock for clock, _ in seconds] for name, seconds in taken.items()}


def compare(b: int, n: int, c: int, rounds: int) -> list[dict[str, Any]]:
    """The forms against the written-out one."""
    names = ['plain', 'blockwise'] + ['pallas'] * (jax.default_backend() in ('gpu', 'tpu'))
    inputs = make_inputs(b, n, c)
    forms = {name: compile_form(name, inputs) for name in names}
    seconds, floor = times(forms, rounds), find_floor(b * n * n * c)
    plain = forms['plain'].call(*inputs)
    rows = []
    for name, form in forms.items():
        median = statistics.median(seconds[name])
        row = {'form': name, 'seconds': median, 'memory_bytes': form.memory}
        if name != 'plain':
            row['memory_ratio'] = forms['plain'].memory / form.memory
            row['times_as_fast'] = ratio(seconds[name], seconds['plain'])
            row['difference'] = max(differences(form.call(*inputs), plain))
        if floor is not None:
            row['share_of_exponential_units'] = floor / median
        rows.append(row)
    return rows


def find_floor(pairs: int) -> float | None:
    """Seconds that the exponential units of an NVIDIA GPU take at least; None elsewhere."""
    device = jax.devices()[0]
    if 'cuda' not in device.client.platform_version:
        return None
    command = ['nvidia-smi', '--query-gpu=clocks.max.sm', '--format=csv,noheader,nounits']
    megahertz = int(subprocess.check_output(command, text=True).split()[0])
    return EXPONENTIALS * pairs / (PER_CLOCK * device.core_count * megahertz * 1e6)


def grow(lengths: list[int], c: int, rounds: int) -> list[dict[str, Any]]:
    """One example, of more and more tokens."""
    forms = {}
    for n in lengths:
        inputs = make_inputs(1, n, c)
        forms['blockwise', n] = compile_form('blockwise', inputs)
        if 4 * n * n * c <= LARGEST_TENSOR:
            forms['plain', n] = compile_form('plain', inputs)
    seconds = times(forms, rounds)
    return [
        {
            'form': name,
            'tokens': n,
            'seconds': statistics.median(seconds[name, n]),
            'fastest': min(seconds[name, n]),
            'memory_bytes': form.memory,
        }
        for (name, n), form in forms.items()
    ]


def exponent(rows: list[dict[str, Any]], key: str) -> float:
    """The power of the tokens with which a figure of the blockwise form grows, first to last."""
    first, *_, last = [row for row in rows if row['form'] == 'blockwise']
    return math.log(last[key] / first[key]) / math.log(last['tokens'] / first['tokens'])


def interpolate(b: int, n: int, c: int, rounds: int, numbers: list[int]) -> list[dict[str, Any]]:
    """Chebyshev against the exact form: a row for each number of nodes."""
    inputs = make_inputs(b, n, c)
    forms: dict[Any, Form] = {'exact': compile_form('blockwise', inputs)}
    forms |= {nodes: compile_form('chebyshev', inputs, nodes=nodes) for nodes in numbers}
    seconds = times(forms, rounds)
    errors: dict[int, dict[int, tuple[float, float]]] = {nodes: {} for nodes in numbers}
    for product in RANGES:
        # The ranks of normal numbers are evenly spread and in no order.
        query, key = (jnp.argsort(x, 1) / (n - 1) * product**0.5 for x in inputs[:2])
        args = query - query.mean(), key - key.mean(), *inputs[2:]
        exact = forms['exact'].call(*args)
        for nodes in numbers:
            out, *grads = differences(forms[nodes].call(*args), exact)
            errors[nodes][product] = out, max(grads)
    return [
        {
            'nodes': nodes,
            'seconds': statistics.median(seconds[nodes]),
            'times_as_fast': ratio(seconds[nodes], seconds['exact']),
            'memory_bytes': forms[nodes].memory,
            'errors': [
                {'range_product': product, 'output': out, 'gradients': grads}
                for product, (out, grads) in errors[nodes].items()
            ],
        }
        for nodes in numbers
    ]


def differences(found: tuple[Any, ...], expected: tuple[Any, ...]) -> list[float]:
    """Of each array, the largest difference over the largest magnitude."""
    pairs = [map(np.asarray, pair) for pair in zip(found, expected, strict=True)]
    return [float(np.abs(x - y).max() / np.abs(y).max()) for x, y in pairs]


def print_compared(rows: list[dict[str, Any]]) -> None:
    head = [
        'form',
        'ms',
        'MiB',
        'plain/MiB',
        'times as fast (95 % interval)',
        'difference',
        'share',
    ]
    lines = []
    for row in rows:
        line = [row['form'], f'{1000 * row["seconds"]:.1f}', f'{row["memory_bytes"] / 2**20:,.1f}']
        if 'times_as_fast' in row:
            line += [f'1/{row["memory_ratio"]:.0f}', show(row['times_as_fast'])]
            line += [f'{row["difference"]:.0e}']
        share = row.get('share_of_exponential_units')
        lines.append([*line, *['-'] * (6 - len(line)), '-' if share is None else f'{share:.0%}'])
    print_table(head, lines)


def print_growth(rows: list[dict[str, Any]]) -> None:
    lines = [
        [
            row['form'],
            f'{row["tokens"]:,}',
            f'{1000 * row["seconds"]:.1f}',
            f'{1000 * row["fastest"]:.1f}',
            f'{row["memory_bytes"] / 2**20:,.2f}',
        ]
        for row in rows
    ]
    print_table(['form', 'tokens', 'ms', 'fastest', 'MiB'], lines)


def print_interpolated(rows: list[dict[str, Any]]) -> None:
    lines = [
        [
            str(row['nodes']),
            f'{1000 * row["seconds"]:.1f}',
            show(row['times_as_fast']),
            f'{row["memory_bytes"] / 2**20:,.1f}',
            *(f'{error["output"]:.0e} {error["gradients"]:.0e}' for error in row['errors']),
        ]
        for row in rows
    ]
    head = ['nodes', 'ms', 'times as fast as blockwise', 'MiB', *(f'range {r}' for r in RANGES)]
    print_table(head, lines)


def show(found: dict[str, Any]) -> str:
    low, high = found['interval_95']
    return f'{found["ratio"]:.1f} ({low:.1f} to {high:.1f})'


def main() -> None:
    as_main_does()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--tokens', type=int, default=512)
    parser.add_argument('--channels', type=int, default=432)
    parser.add_argument('--lengths', type=int, nargs='+', default=[512, 1024, 2048, 4096])
    parser.add_argument('--narrow', type=int, default=64, help='channels of the second table')
    parser.add_argument('--nodes', type=int, nargs='+', default=[8, 16, 24, 32, 48, 64])
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    device = jax.devices()[0].device_kind
    arguments = {k: v for k, v in vars(args).items() if k != 'json'}
    about = describe() | {'device': device, 'arguments': arguments}
    print(f'{device}, {about["machine"]}, jax {about["packages"]["jax"]}')
    size = args.batch, args.tokens, args.channels
    print('batch {}, {} tokens, {} channels, float32, forward and backward\n'.format(*size))
    compared = compare(*size, args.rounds)
    print_compared(compared)
    growth = grow(args.lengths, args.narrow, args.rounds)
    print_growth(growth)
    powers = {key: exponent(growth, key) for key in ('fastest', 'memory_bytes')}
    time, memory = powers.values()
    print(f'the fastest time grows as n^{time:.2f}, memory as n^{memory:.2f}\n')
    interpolated = interpolate(*size, args.rounds, args.nodes)
    print_interpolated(interpolated)
    result = {**about, 'forms': compared, 'growth': growth, 'growth_powers': powers}
    write_json(args.json, {**result, 'chebyshev': interpolated})


if __name__ == '__main__':
    main()
