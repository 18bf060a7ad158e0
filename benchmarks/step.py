"""Times models against each other, in turn in one process, and against the machine.

    python -m benchmarks.step --spec S/16 --vs S/16-8at6 S/16-8at6-fuser [--res 224] [--batch 8]
        [--dtype float32] [--modes train forward] [--json FILE]

A spec may be followed by settings of `config.model`: S/16-8at6:tokenizer=merge,scan=true.
`train` is forward, backward and AdamW with the state donated; `forward` is inference. A time is the
median over the rounds; each round runs a matrix product of the same type and precision and then
every model.
Achieved FLOP/s are 2 a multiply-add of the model (`token_learner.counting`), three times that for
a train step (backward counts twice), over the time; recomputation is not counted. The share is of
the rate of the matrix product in the same run.
"""

import argparse
import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs.common import default_model, parse_arg
from token_learner.build import build_model
from token_learner.counting import count
from token_learner.layers import stack_layers
from token_learner.vit import ViT
from trainers.memory import keep_freed_memory
from trainers.processes import hush_libtpu

CLASSES = 1000
SAMPLE = 0.2  # seconds that a timing takes at least

Run = Callable[[], Any]


def make_run(model: ViT, images: jax.Array, mode: str) -> Run:
    """A function that starts one step of a model and returns what to wait for."""
    plain = model.clone(scan=False)
    params = jax.jit(plain.init)(jax.random.key(0), images[:1])['params']

    def logits(params: Any, images: jax.Array, train: bool) -> jax.Array:
        variables = {'params': params}
        if model.scan:
            variables = stack_layers(variables, model)
        return model.apply(variables, images, train=train).astype(jnp.float32)

    if mode == 'forward':
        forward = jax.jit(lambda params, images: logits(params, images, False))
        return lambda: forward(params, images)

    optimizer = optax.adamw(1e-3, weight_decay=0.05)
    labels = jnp.arange(len(images)) % CLASSES

    def loss(params: Any, images: jax.Array) -> jax.Array:
        out = logits(params, images, True)
        return optax.softmax_cross_entropy_with_integer_labels(out, labels).mean()

    def step(state: Any, images: jax.Array) -> tuple[Any, jax.Array]:
        params, opt_state = state
        value, grads = jax.value_and_grad(loss)(params, images)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    train = jax.jit(step, donate_argnums=0)
    state = (params, jax.jit(optimizer.init)(params))

    def run() -> Any:
        nonlocal state
        state, value = train(state, images)
        return value

    return run


def make_product(dtype: str, side: int) -> Run:
    """A square matrix product, in the precision of the models."""
    x = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(jnp.matmul)
    return lambda: product(x, x)


def parse_model(text: str, dtype: str, resolution: int) -> tuple[dict[str, Any], ViT]:
    """The settings and the model of SPEC[:key=value,...].

    Raises:
        ValueError: if they cannot be used, or do not go with the resolution.
    """
    spec, _, arg = text.partition(':')
    defaults = {k: v for k, v in default_model(spec).items() if v is not None}
    settings = parse_arg(arg, **{**defaults, 'dtype': dtype}).to_dict()
    model = build_model(settings, CLASSES)
    image = jax.ShapeDtypeStruct((1, resolution, resolution, 3), jnp.float32)
    jax.eval_shape(model.init, jax.random.key(0), image)
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


def compare(args: argparse.Namespace, mode: str) -> dict[str, Any]:
    """Times all specs in one mode."""
    images = jax.random.normal(jax.random.key(1), (args.batch, args.res, args.res, 3))
    specs = [args.spec, *args.vs]
    parsed = [parse_model(spec, args.dtype, args.res) for spec in specs]
    product = make_product(args.dtype, args.side)
    runs = [product, *(make_run(model, images, mode) for _, model in parsed)]
    product_seconds, *seconds = measure(runs, args.rounds)
    rate = 2 * args.side**3 / statistics.median(product_seconds)
    base = statistics.median(seconds[0])
    rows = []
    for spec, (settings, _), taken in zip(specs, parsed, seconds, strict=True):
        countable = build_model({**settings, 'attention': 'xla'}, CLASSES)
        macs = count(countable, images[:1])[''].macs
        flops = 2 * macs * args.batch * (3 if mode == 'train' else 1)
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
                'images_per_s': args.batch / median,
                'gmacs': macs / 1e9,
                'achieved_gflops_per_s': flops / median / 1e9,
                'share_of_matmul': flops / median / rate,
            }
        )
    return {'mode': mode, 'matmul_gflops_per_s': rate / 1e9, 'rows': rows}


def print_mode(result: dict[str, Any]) -> None:
    """A mode's table."""
    print(f'{result["mode"]}: matrix product {result["matmul_gflops_per_s"]:,.0f} GFLOP/s')
    head = ['spec', 'ms', 'fastest', 'slowest', 'of first', 'images/s', 'GFLOP/s', 'share']
    lines = [
        [
            row['spec'],
            f'{row["milliseconds"]:.1f}',
            f'{row["fastest"]:.1f}',
            f'{row["slowest"]:.1f}',
            f'{row["of_first"]:.3f}',
            f'{row["images_per_s"]:.1f}',
            f'{row["achieved_gflops_per_s"]:,.0f}',
            f'{row["share_of_matmul"]:.2f}',
        ]
        for row in result['rows']
    ]
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    for line in [head, *lines]:
        print(line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:]), sep='  ')
    print()


def main() -> None:
    hush_libtpu()
    keep_freed_memory()  # as main.py does
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--spec', default='S/16', help='the model to compare with')
    parser.add_argument('--vs', nargs='+', default=['S/16-8at6', 'S/16-8at6-fuser'])
    parser.add_argument('--res', type=int, default=224, help='pixels')
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
            parse_model(spec, args.dtype, args.res)
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    device = jax.devices()[0]
    about = {
        'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
        'device': device.device_kind,
        'machine': platform.machine(),
        'python': platform.python_version(),
        'jax': jax.__version__,
        'arguments': {k: v for k, v in vars(args).items() if k != 'json'},
    }
    print(', '.join(f'{k} {v}' for k, v in about.items() if k != 'arguments'))
    print(f'{args.res} pixels, batch {args.batch}, {args.dtype}\n')
    results = []
    for mode in args.modes:
        results.append(compare(args, mode))
        print_mode(results[-1])
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**about, 'results': results}, indent=2) + '\n')


if __name__ == '__main__':
    main()
