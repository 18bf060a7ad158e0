r"""Times models against each other, in turn in one process, and against the machine.

    python -m benchmarks.step --spec S/16 --vs S/16-8at6 S/16-8at6-fuser [--res 224] [--batch 8]
        [--dtype float32] [--modes train forward] [--json FILE]
    python -m benchmarks.step --spec ViViT-L/16x2 --vs ViViT-L/16x2-16at12 ViViT-L/16x2+6-8at18 \
        --frames 32 --dtype bfloat16 --modes train forward
    python -m benchmarks.step --spec X2plus1D-M --vs X2plus1D-M:tlx3 --frames 64 --dtype bfloat16

A spec may be followed by settings of `config.model`: S/16-8at6:tokenizer=merge,scan=true.
`train` is forward, backward and AdamW with the state donated; `forward` is inference. A time is the
median over the rounds; each round runs a matrix product of the same type and precision and then
every model.
Achieved FLOP/s are 2 a multiply-add of the model (`token_learner.counting`), three times that for
a train step (backward counts twice), over the time; recomputation is not counted. The share is of
the rate of the matrix product in the same run. Of the saving that multiply-adds promise against the
first model, `of the FLOP ratio` is what the times show. Memory is what the compiled program takes
of the device: arguments, results and temporaries.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.environment import as_main_does, describe, write_json
from benchmarks.tables import print_table
from configs.common import default_model, parse_arg
from token_learner.build import Model, build_countable, build_model
from token_learner.counting import count
from token_learner.layers import stack_layers, without_scan

CLASSES = 1000
SAMPLE = 0.2  # seconds that a timing takes at least

Run = Callable[[], Any]


class Step(NamedTuple):
    """A compiled step.

    Attributes:
        run: starts it, and returns what to wait for.
        memory: of the device that it takes, bytes.
    """

    run: Run
    memory: int


def make_step(model: Model, images: jax.Array, mode: str) -> Step:
    """Compiles a step of a model on images or clips."""
    if mode == 'forward':
        variables = initialize(model, images)
        forward = jax.jit(partial(apply_model, model)).lower(variables, images).compile()
        return Step(lambda: forward(variables, images), memory_of(forward))

    step, state = make_train(model, images)
    train = step.lower(state, images).compile()

    def run() -> Any:
        nonlocal state
        state, value = train(state, images)
        return value

    return Step(run, memory_of(train))


def initialize(model: Model, images: jax.Array) -> dict[str, Any]:
    """Variables of a model, layer by layer: any numbers, as its own take long to compile."""
    shapes = dict(jax.eval_shape(without_scan(model).init, jax.random.key(0), images[:1]))
    shapes.pop('intermediates', None)
    rng = np.random.default_rng(0)  # nothing below 0, as there are variances
    return jax.tree.map(lambda x: jnp.asarray(rng.uniform(0, 0.05, x.shape), x.dtype), shapes)


def apply_model(model: Model, variables: Any, images: jax.Array, **options: Any) -> Any:
    """Applies a model to variables that are kept layer by layer."""
    if model.scan:
        variables = stack_layers(variables, model)
    return model.apply(variables, images, **options)


def make_train(model: Model, images: jax.Array) -> tuple[Any, Any]:
    """A train step that is not compiled yet, jit(state, images) -> state, loss, and its state."""
    variables = initialize(model, images)
    optimizer = optax.adamw(1e-3, weight_decay=0.05)
    labels = jnp.arange(len(images)) % CLASSES

    def loss(params: Any, mutable: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        variables, kept = {'params': params, **mutable}, list(mutable)
        out, mutable = apply_model(model, variables, images, train=True, mutable=kept)
        out = out.astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(out, labels).mean(), mutable

    def step(state: Any, images: jax.Array) -> tuple[Any, jax.Array]:
        params, mutable, opt_state = state
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, mutable), grads = gradient(params, mutable, images)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), mutable, opt_state), value

    params = variables.pop('params')
    return jax.jit(step, donate_argnums=0), (params, variables, jax.jit(optimizer.init)(params))


def memory_of(program: Any) -> int:
    """Bytes of the device that a compiled program takes."""
    memory = program.memory_analysis()
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(kept + memory.temp_size_in_bytes)


def make_product(dtype: str, side: int) -> Run:
    """A square matrix product, in the precision of the models."""
    x = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(jnp.matmul)
    return lambda: product(x, x)


def input_shape(args: argparse.Namespace) -> tuple[int, ...]:
    """[b, h, w, channels] of images, or [b, t, h, w, channels] of clips."""
    time = () if args.frames is None else (args.frames,)
    return (args.batch, *time, args.res, args.res, 3)


def parse_model(text: str, dtype: str, shape: tuple[int, ...]) -> tuple[dict[str, Any], Model]:
    """The settings and the model of SPEC[:key=value,...].

    Raises:
        ValueError: if they cannot be used, or do not go with the shape of the input.
    """
    spec, _, arg = text.rpartition(':') if '=' in text else (text, '', '')
    defaults = {k: v for k, v in default_model(spec).items() if v is not None}
    settings = parse_arg(arg, **{**defaults, 'dtype': dtype}).to_dict()
    model = build_model(settings, CLASSES)
    jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    return settings, model


def measure(runs: list[Run], rounds: int) -> list[list[float]]:
    """Seconds of a call of each function, a list over the rounds."""
    repeats = []
    for run in runs:
        jax.block_until_ready(run())  # compiles
        start = time.perf_counter()
        jax.block_until_ready(run())
        repeats.append(int(np.ceil(SAMPLE / (time.perf_counter() - start))))
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, times, taken in zip(runs, repeats, seconds, strict=True):
            start = time.perf_counter()
            for _ in range(times):
                out = run()
            jax.block_until_ready(out)
            taken.append((time.perf_counter() - start) / times)
    return seconds


def count_macs(settings: dict[str, Any], shape: tuple[int, ...]) -> int:
    """Multiply-adds of a model for one image or clip."""
    countable = build_countable(settings, CLASSES)
    return count(countable, jax.ShapeDtypeStruct((1, *shape), jnp.float32))[''].macs


def unit(args: argparse.Namespace) -> str:
    """Of what the models are given."""
    return 'images' if args.frames is None else 'clips'


def compare(args: argparse.Namespace, mode: str) -> dict[str, Any]:
    """Times all specs in one mode."""
    shape = input_shape(args)
    images = jax.random.normal(jax.random.key(1), shape)
    specs = [args.spec, *args.vs]
    parsed = [parse_model(spec, args.dtype, shape) for spec in specs]
    product = make_product(args.dtype, args.side)
    steps = [make_step(model, images, mode) for _, model in parsed]
    product_seconds, *seconds = measure([product, *(step.run for step in steps)], args.rounds)
    rate = 2 * args.side**3 / statistics.median(product_seconds)
    base = statistics.median(seconds[0])
    macs = [count_macs(settings, shape[1:]) for settings, _ in parsed]
    rows = []
    for i, (spec, step, taken) in enumerate(zip(specs, steps, seconds, strict=True)):
        flops = 2 * macs[i] * args.batch * (3 if mode == 'train' else 1)
        median = statistics.median(taken)
        rows.append(
            {
                'spec': spec,
                'milliseconds': 1000 * median,
                'fastest': 1000 * min(taken),
                'slowest': 1000 * max(taken),
                'of_first': median / base,
                'of_first_by_rounds': statistics.median(
                    t / b for t, b in zip(taken, seconds[0], strict=True)
                ),
                f'{unit(args)}_per_s': args.batch / median,
                'gmacs': macs[i] / 1e9,
                'flop_ratio': macs[0] / macs[i],
                'of_flop_ratio': base / median * macs[i] / macs[0],
                'achieved_gflops_per_s': flops / median / 1e9,
                'share_of_matmul': flops / median / rate,
                'memory_bytes': step.memory,
            }
        )
    return {'mode': mode, 'matmul_gflops_per_s': rate / 1e9, 'rows': rows}


def print_mode(result: dict[str, Any], unit: str) -> None:
    """A mode's table."""
    print(f'{result["mode"]}: matrix product {result["matmul_gflops_per_s"]:,.0f} GFLOP/s')
    head = ['spec', 'ms', 'fastest', 'slowest', 'of first', 'of the FLOP ratio', f'{unit}/s']
    head += ['GFLOP/s', 'share', 'MiB']
    lines = [
        [
            row['spec'],
            f'{row["milliseconds"]:.1f}',
            f'{row["fastest"]:.1f}',
            f'{row["slowest"]:.1f}',
            f'{row["of_first"]:.3f}',
            f'{row["of_flop_ratio"]:.2f}',
            f'{row[f"{unit}_per_s"]:.1f}',
            f'{row["achieved_gflops_per_s"]:,.0f}',
            f'{row["share_of_matmul"]:.2f}',
            f'{row["memory_bytes"] / 2**20:,.0f}',
        ]
        for row in result['rows']
    ]
    print_table(head, lines)


def main() -> None:
    as_main_does()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--spec', default='S/16', help='the model to compare with')
    parser.add_argument('--vs', nargs='+', default=['S/16-8at6', 'S/16-8at6-fuser'])
    parser.add_argument('--res', type=int, default=224, help='pixels')
    parser.add_argument('--frames', type=int, help='of clips, for ViViT specs; else images')
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--dtype', default='float32')
    parser.add_argument('--modes', nargs='+', default=['train'], choices=['train', 'forward'])
    side = 2048 if jax.default_backend() == 'cpu' else 8192
    parser.add_argument('--side', type=int, default=side, help='of the matrix product')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    try:
        for spec in [args.spec, *args.vs]:
            parse_model(spec, args.dtype, input_shape(args))
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    device = jax.devices()[0].device_kind
    arguments = {k: v for k, v in vars(args).items() if k != 'json'}
    about = describe() | {'device': device, 'arguments': arguments}
    print(f'{device}, {about["machine"]}, jax {about["packages"]["jax"]}')
    frames = '' if args.frames is None else f'{args.frames} frames, '
    print(f'{frames}{args.res} pixels, batch {args.batch}, {args.dtype}\n')
    results = []
    for mode in args.modes:
        results.append(compare(args, mode))
        print_mode(results[-1], unit(args))
    write_json(args.json, {**about, 'results': results})


if __name__ == '__main__':
    main()
