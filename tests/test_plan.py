"""Plans: collectives and operations counted in real programs, and machines that are not there."""

import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.test_main import run
from tests.test_train import make, on
from trainers.collectives import find_collectives
from trainers.plan import abstract_batch, count_flops, make_plan, read_refusal
from trainers.results import count_example
from trainers.state import abstract_state

CONFIG = '--config=configs/imagenet_finetune.py:model=mini/16-8at2,res=224'


def mesh(*shape):
    return on(make(), *shape).mesh


def compiled(function, shardings, *shapes, out):
    args = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=s)
        for shape, s in zip(shapes, shardings, strict=True)
    ]
    return find_collectives(jax.jit(function, out_shardings=out).lower(*args).compile().as_text())


def test_collectives_of_known_size():
    eight = mesh(8)
    whole, rows = NamedSharding(eight, P()), NamedSharding(eight, P('data'))
    total = compiled(lambda x: x.sum(0), [rows], (64, 3), out=whole)
    assert total == {'all-reduce': (1, 3 * 4)}
    gathered = compiled(lambda x: x + 1, [rows], (64, 3), out=whole)
    assert gathered == {'all-gather': (1, 64 * 3 * 4)}


def test_a_collective_in_a_loop_counts_as_often_as_it_runs():
    eight = mesh(8)
    whole, columns = NamedSharding(eight, P()), NamedSharding(eight, P(None, 'data'))

    def function(x, w):
        def body(x, _):
            y = jax.lax.with_sharding_constraint(jnp.tanh(x @ w), columns)
            return jax.lax.with_sharding_constraint(y, whole), None

        return jax.lax.scan(body, x, length=5)[0]

    traffic = compiled(function, [whole, columns], (4, 16), (16, 16), out=whole)
    assert traffic == {'all-gather': (5, 5 * 4 * 16 * 4)}


def planned(*shape, **changes):
    return make_plan(on(make(**changes), *shape), 'cpu:8', None)


@pytest.mark.slow
def test_what_a_plan_says_of_a_small_step():
    experiment = on(make(), 8)
    plan = make_plan(experiment, 'cpu:8', None)
    state = abstract_state(experiment)
    size = 4 * sum(x.size for x in jax.tree.leaves(state.params))
    held = plan['bytes_per_device']
    assert plan['fits']
    assert (plan['batch_size'], plan['batch_per_device'], plan['devices']) == (32, 4, 8)
    assert held['parameters'] == size
    assert 2 * size <= held['optimizer_state'] <= 2 * size + 16
    assert held['batch'] == 4 * (28 * 28 + 4 * 4)  # image; label, place, mask, unreadable
    assert held['peak'] >= held['parameters'] + held['optimizer_state'] + held['temporaries']
    assert plan['flops_per_step'] == 8 * plan['flops_per_device']
    reduced = plan['collectives']['all-reduce']['bytes']
    assert size <= reduced <= 1.01 * size + 1000  # the gradient
    assert set(plan['collectives']) == {'all-reduce'}


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(1, 8, 1), (2, 4, 1)])
def test_fsdp_gathers_parameters_and_no_activations(shape):
    plan = planned(*shape)
    size = planned(8)['bytes_per_device']['parameters']
    assert plan['bytes_per_device']['parameters'] < 1.6 * size / shape[1]
    # Once for the pass forward and once for the one backward.
    assert plan['collectives']['all-gather']['bytes'] <= 2 * size
    assert 'all-to-all' not in plan['collectives']


@pytest.mark.slow
def test_operations_of_a_step():
    experiment = on(make(), 1)
    given = abstract_state(experiment), abstract_batch(experiment)
    plain = count_flops(experiment, *given)
    # Forward once, backward twice that, but for the first layer, which needs no gradient of x.
    forward = 32 * 2e9 * count_example(experiment).gflops
    assert 2.5 * forward < plain < 3.5 * forward
    for change in ({'model.scan': True}, {'microbatches': 2}):
        assert count_flops(on(make(**change), 1), *given) == pytest.approx(plain, rel=1e-2)
    assert count_flops(on(make(**{'model.remat': 'full'}), 1), *given) > 1.1 * plain


def test_what_the_compiler_refuses_with():
    text = (
        'RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory '
        'required for HLO temporaries (23.67G) exceeds available HBM (15.75G). HLO module: x.'
    )
    assert read_refusal(text).startswith('does not fit: 23.67 GiB are needed of 15.75 GiB')
    assert read_refusal('RESOURCE_EXHAUSTED: other') == 'does not fit: RESOURCE_EXHAUSTED: other'


@pytest.mark.slow
def test_plans_for_a_tpu_that_is_not_there(tmp_path):
    path = tmp_path / 'plan.json'
    command = (CONFIG, '--mode=plan', '--topology=v5e:2x2')
    status, out, err = run(*command, '--config.batch_size=64', f'--json={path}')
    assert (status, err) == (0, '')
    plan = json.loads(path.read_text())
    assert plan['fits']
    assert plan['devices'] == 4
    assert 0 < plan['bytes_per_device']['peak'] < plan['chip_bytes'] == 16 * 2**30
    assert 'all-reduce' in out
    status, out, err = run(*command, '--config.batch_size=262144')
    assert status == 1
    assert err.count('\n') == 1, err
    assert 'does not fit' in err
    assert '--config.model.remat=dots' in err


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ((), 'needs --topology'),
        (('--topology=v9:2',), 'one of v4, v5e, v5p, v6e'),
        (('--topology=v5e:3x5',), 'name a shape that is sold'),
        (('--topology=cpu:3',), 'cannot be cut into the 3 parts'),
        (('--topology=cpu:8', '--json=/nowhere/plan.json'), 'has no folder; make /nowhere, or'),
    ],
)
def test_a_plan_of_what_is_not_known(flags, message):
    status, _, err = run(CONFIG, '--mode=plan', *flags)
    assert status == 1
    assert message in err
    assert err.count('\n') == 1


def test_a_plan_on_fake_devices():
    status, out, err = run(
        '--config=configs/digits.py', '--mode=plan', '--topology=cpu:8', '--config.mesh.tensor=2'
    )
    assert (status, err) == (0, '')
    assert '8 devices of 1 processes' in out
    assert 'data=4 fsdp=1 tensor=2' in out
    assert out.splitlines()[-1].startswith('fits')
