"""Parameters and operations of a model, counted in a trace of the model itself.

Two conventions of the paper turn operations into GFLOPs:

- the ViT and ViViT tables print half of the FLOPs of the program that XLA is given, before it
  optimises: a multiply-add is 1, another elementwise operation 1/2, exponentials and other
  transcendental functions nothing, and a convolution counts only the taps that lie inside the
  image. Batch 1, no class token.
- the bottleneck tables (TPAMI version, Tables 11 to 13) print 2 for a multiply-add, taps outside
  the image included, and 6 for an attention logit: 5 for its softmax and 1 for its scale. The rows
  with TokenLearner leave out some sums, which `benchmarks/bottleneck_counts.py` has.

`jax.jit(f).lower(...).cost_analysis()['flops']` is the first one times 2e9, but adds up in float32
and loses up to 4e-5 of a large model; these counts are exact integers.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Cost:
    """Operations of a module and of all that is inside it.

    Attributes:
        params: numbers in its parameters.
        macs: multiply-adds; of convolutions, those whose tap lies inside the image.
        padded_macs: multiply-adds, the taps in the padding included.
        elementwise: other operations, transcendental functions not counted.
        logits: exponentials, which in these models a softmax takes of its logits.
    """

    params: int = 0
    macs: int = 0
    padded_macs: int = 0
    elementwise: int = 0
    logits: int = 0

    def __add__(self, other: 'Cost') -> 'Cost':
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: int) -> 'Cost':
        return Cost(*(a * times for a in astuple(self)))

    @property
    def gflops(self) -> float:
        """As the ViT and ViViT tables count: half of XLA's FLOPs, in 1e9."""
        return (2 * self.macs + self.elementwise) / 2e9

    @property
    def bottleneck_gflops(self) -> float:
        """As the bottleneck tables count: 2 a multiply-add and 6 a logit, in 1e9."""
        return (2 * self.padded_macs + 6 * self.logits) / 1e9


def count(model: nn.Module, *inputs: Any, **options: Any) -> dict[str, Cost]:
    """Counts a model and each of its modules.

    Nothing is computed: the model is traced. It is counted as it is built, with one exception:
    layers under `scan` count as often as they run. For the paper's figures attention is written
    out, as `token_learner.build.build_countable` has it.

    Args:
        model: a Flax module.
        *inputs: of its call: arrays, `jax.ShapeDtypeStruct`s or plain Python values. For
            the paper's figures, one image or clip: [1, ...].
        **options: of its call; the model has no random numbers, so not train=True with dropout.

    Returns:
        Path of the module -> cost; '' is the whole model, 'encoder/block_0' one block.

    Raises:
        ValueError: if the cost of an operation is not known here, as that of a kernel.
    """
    arrays = [x for x in inputs if hasattr(x, 'shape')]

    def run(call: Callable[..., Any], first: Any, *arrays: Any) -> Any:
        rest = iter(arrays)
        return call(first, *(next(rest) if hasattr(x, 'shape') else x for x in inputs), **options)

    variables = jax.eval_shape(partial(run, model.init), jax.random.key(0), *arrays)
    variables = {k: v for k, v in variables.items() if k != 'intermediates'}
    program = jax.make_jaxpr(partial(run, model.apply))(variables, *arrays)
    costs: defaultdict[str, Cost] = defaultdict(Cost)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables.get('params', {})):
        names = [key.key for key in path[:-1]]
        _add(costs, names, Cost(params=int(np.prod(leaf.shape))))
    for scopes, cost in _operations(program.jaxpr, ()):
        _add(costs, scopes[1:], cost)  # the first is the model's own
    return dict(costs)


def count_program(function: Callable[..., Any], *inputs: Any) -> Cost:
    """Counts a function of arrays, such as a whole train step; parameters are not counted.

    Args:
        function: that jax can trace.
        *inputs: trees of arrays or `jax.ShapeDtypeStruct`s.

    Raises:
        ValueError: if the cost of an operation is not known here, as that of a kernel.
    """
    program = jax.make_jaxpr(function)(*inputs)
    return sum((cost for _, cost in _operations(program.jaxpr, ())), Cost())


def _add(costs: defaultdict[str, Cost], names: Sequence[str], cost: Cost) -> None:
    """Adds a cost to a module and to all that it is inside of."""
    for end in range(len(names) + 1):
        costs['/'.join(names[:end])] += cost


def _operations(program: Any, outer: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Cost]]:
    """Modules and costs of the operations in a jaxpr."""
    for equation in _used(program):
        names = outer + _module_path(equation)
        kind, params = equation.primitive.name, equation.params
        inner = [params[key] for key in _PROGRAMS if key in params]
        if kind in _CALLS and inner:
            times = params['length'] if kind == 'scan' else 1
            for path, cost in _operations(getattr(inner[0], 'jaxpr', inner[0]), names):
                yield path, cost * times
        elif kind in _COSTS:
            yield names, _COSTS[kind](equation)
        else:
            raise ValueError(
                f'cannot count the operation {kind!r} in {"/".join(names)}; if it is a kernel for '
                "attention, count the model with attention='xla' (and vector_attention='plain', if "
                'it has that), else add its cost to '
                'token_learner/counting.py'
            )


def _used(program: Any) -> Iterator[Any]:
    """The operations from which the results follow, the last one first."""
    used = {id(v) for v in program.outvars}
    for equation in reversed(program.eqns):
        if any(id(v) in used for v in equation.outvars):
            used |= {id(v) for v in equation.invars}
            yield equation


def _module_path(equation: Any) -> tuple[str, ...]:
    """The module that an operation is in, from the scopes that Flax names after modules.

    Scopes of other names, such as that of an einsum or of a module's method, are left out.
    """
    scopes = str(equation.source_info.name_stack).split('/')
    return tuple(scope for scope in scopes if re.fullmatch(r'\w+', scope))


def _free(equation: Any) -> Cost:
    """Moves numbers, or is a transcendental function."""
    del equation
    return Cost()


def _elementwise(equation: Any) -> Cost:
    return Cost(elementwise=_size(equation.outvars[0]))


def _convert(equation: Any) -> Cost:
    """Between floating point types nothing, so that bfloat16 counts as float32 does."""
    old, new = equation.invars[0].aval.dtype, equation.outvars[0].aval.dtype
    both = jnp.issubdtype(old, jnp.floating) and jnp.issubdtype(new, jnp.floating)
    return Cost() if both else _elementwise(equation)


def _exponential(equation: Any) -> Cost:
    return Cost(logits=_size(equation.outvars[0]))


def _logistic(equation: Any) -> Cost:
    """Is 1 / (1 + exp(-x))."""
    return _elementwise(equation) * 3


def _integer_power(equation: Any) -> Cost:
    """By repeated squaring."""
    power = abs(equation.params['y'])
    products = max(0, power.bit_length() - 1 + power.bit_count() - 1)
    return _elementwise(equation) * (products + (equation.params['y'] < 0))


def _one_minus_square(equation: Any) -> Cost:
    """1 - x * x, in the gradient of tanh; an operation of its own from jax 0.11 on."""
    return _elementwise(equation) * 2


def _reduce(equation: Any) -> Cost:
    return Cost(elementwise=_size(equation.invars[0]) - _size(equation.outvars[0]))


def _window(equation: Any) -> Cost:
    window = math.prod(equation.params['window_dimensions'])
    return _elementwise(equation) * (window - 1)


def _argmax(equation: Any) -> Cost:
    """XLA compares values, NaNs and indices: nine operations."""
    return _reduce(equation) * 9


def _sort(equation: Any) -> Cost:
    n = _size(equation.invars[0])
    return Cost(elementwise=n * math.ceil(math.log2(n)) if n > 1 else 0)


def _dot(equation: Any) -> Cost:
    (contracted, _), _ = equation.params['dimension_numbers']
    shape = equation.invars[0].aval.shape
    macs = _size(equation.outvars[0]) * math.prod(shape[i] for i in contracted)
    return Cost(macs=macs, padded_macs=macs)


def _convolution(equation: Any) -> Cost:
    image, kernel = (v.aval.shape for v in equation.invars)
    params, out = equation.params, equation.outvars[0].aval.shape
    dims = params['dimension_numbers']
    channels = kernel[dims.rhs_spec[1]]  # of a group
    outside = out[dims.out_spec[0]] * out[dims.out_spec[1]] * channels
    taps, inside = 1, 1
    for i, (padding, stride, spread, dilation) in enumerate(
        zip(
            params['padding'],
            params['window_strides'],
            params['lhs_dilation'],
            params['rhs_dilation'],
            strict=True,
        )
    ):
        size, window = image[dims.lhs_spec[2 + i]], kernel[dims.rhs_spec[2 + i]]
        count = out[dims.out_spec[2 + i]]
        at = np.arange(count)[:, None] * stride + np.arange(window) * dilation - padding[0]
        taps *= at.size
        inside *= int(((at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)).sum())
    return Cost(macs=outside * inside, padded_macs=outside * taps)


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


_CALLS = {
    'checkpoint', 'closed_call', 'core_call', 'custom_jvp_call', 'custom_vjp_call', 'jit', 'pjit',
    'remat', 'remat2', 'scan',
}  # fmt: skip
_PROGRAMS = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')
_FREE = """
    bitcast_convert_type broadcast_in_dim cbrt concatenate copy copy_p cos device_put
    dynamic_slice dynamic_update_slice erf erf_inv erfc exp2 expand_dims expm1 gather iota log
    log1p name optimization_barrier pad pow random_bits random_clone random_fold_in random_seed
    random_split random_unwrap random_wrap reduce_precision reshape reshard rev rsqrt scatter
    select_n sharding_constraint sin slice split sqrt squeeze stack stop_gradient tanh transpose
    unstack
"""
_ELEMENTWISE = """
    abs add add_any and ceil clamp div eq floor ge gt is_finite le lt max min mul ne neg
    nextafter not or rem round shift_left shift_right_arithmetic shift_right_logical sign square
    sub xor
"""
_REDUCE = 'reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum'
_COSTS: dict[str, Callable[[Any], Cost]] = {
    **dict.fromkeys(_FREE.split(), _free),
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_REDUCE.split(), _reduce),
    **dict.fromkeys(('reduce_window_max', 'reduce_window_min', 'reduce_window_sum'), _window),
    **dict.fromkeys(('argmax', 'argmin'), _argmax),
    'conv_general_dilated': _convolution,
    'convert_element_type': _convert,
    'dot_general': _dot,
    'exp': _exponential,
    'integer_pow': _integer_power,
    'logistic': _logistic,
    'one_minus_square': _one_minus_square,
    'sort': _sort,
}
