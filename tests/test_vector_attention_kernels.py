import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import run_script
from jax.experimental.pallas.tpu import force_tpu_interpret_mode
from jax.sharding import AbstractDevice, AbstractMesh

from token_learner import vector_attention_gpu, vector_attention_tpu

TPU, GPU = vector_attention_tpu.attend, vector_attention_gpu.kernels(interpret=True)


def arguments(b, n, m, c, dtype=jnp.float32, scale=1.0):
    """Query, key, value and the gradient of the output."""
    rng = np.random.default_rng(0)
    shapes, scales = [(b, n, c), (b, m, c), (b, m, c), (b, n, c)], (scale, scale, 1, 1)
    return [
        (size * rng.normal(size=shape)).astype(dtype)
        for shape, size in zip(shapes, scales, strict=True)
    ]


def both(attend):
    """The output and the gradients."""

    @jax.jit
    def run(query, key, value, grad):
        out, pull_back = jax.vjp(attend, query, key, value)
        return out, *pull_back(grad)

    return run


def by_hand(*args):
    """Eq. 3 and its gradients, all pairs in memory, in double precision."""
    q, k, v, g = (np.asarray(x, np.float64) for x in args)
    q, g, k, v = q[:, :, None], g[:, :, None], k[:, None], v[:, None]
    p = np.exp(q * k - (q * k).max(2, keepdims=True))
    p /= p.sum(2, keepdims=True)
    out = (p * v).sum(2, keepdims=True)
    ds = p * g * (v - out)
    return out[:, :, 0], (ds * k).sum(2), (ds * q).sum(1), (p * g).sum(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('attend', 'args', 'tolerance'),
    [
        (TPU, arguments(1, 70, 11, 130, scale=8.0), 1e-5),
        (GPU, arguments(2, 70, 90, 20, scale=8.0), 1e-5),
        (TPU, arguments(2, 5, 9, 20, jnp.bfloat16), 5e-3),
        (GPU, arguments(1, 5, 9, 20, jnp.bfloat16), 5e-3),
    ],
    ids=['tpu', 'gpu', 'tpu in bfloat16', 'gpu in bfloat16'],
)
def test_outputs_and_gradients(attend, args, tolerance, monkeypatch):
    """No length is a whole number of blocks; at scale 8 the logits reach hundreds."""
    monkeypatch.setattr(vector_attention_tpu, '_UNROLL', 4)
    monkeypatch.setattr(vector_attention_tpu, '_ROWS', 32)
    with contextlib.nullcontext() if attend is GPU else force_tpu_interpret_mode():
        results = both(attend)(*args)
    for ours, exact, arg in zip(results, by_hand(*args), [args[2], *args[:3]], strict=True):
        assert (ours.shape, ours.dtype) == (exact.shape, arg.dtype)
        assert np.abs(np.asarray(ours, np.float64) - exact).max() < tolerance * np.abs(exact).max()


COMPILE = """
import os

# Other tests may compile for a TPU at this moment; none is there that has to be locked.
os.environ['ALLOW_MULTIPLE_LIBTPU_LOAD'] = '1'

from trainers.topology import open_topology

devices, _ = open_topology('v5e:2x2')

import jax
from token_learner.vector_attention_tpu import attend


def both(query, key, value, grad):
    out, pull_back = jax.vjp(attend, query, key, value)
    return out, *pull_back(grad)


place = jax.sharding.SingleDeviceSharding(devices[0])
x = jax.ShapeDtypeStruct((4, 4096, 432), 'bfloat16', sharding=place)
memory = jax.jit(both).lower(x, x, x, x).compile().memory_analysis()
print(memory.temp_size_in_bytes / (x.size * 4))
"""


@pytest.mark.slow
def test_compiles_for_a_tpu(tmp_path):
    """In memory linear in the tokens: at once a few arrays like the output, not 4,096 of them."""
    assert 1 < float(run_script(tmp_path, COMPILE)) < 12


@pytest.mark.filterwarnings('ignore:The Pallas Triton backend is deprecated:DeprecationWarning')
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_lowers_for_a_gpu(dtype):
    """To the language of Triton, as two kernels; no GPU is needed for it."""
    query, key = (jax.ShapeDtypeStruct((2, n, 432), dtype) for n in (512, 300))
    device = AbstractDevice(device_kind='NVIDIA H100', platform='gpu', num_cores=None)
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
        traced = both(vector_attention_gpu.attend).trace(query, key, key, query)
        text = traced.lower(lowering_platforms=('cuda',)).as_text()
    assert text.count('gpu.triton') == 2
