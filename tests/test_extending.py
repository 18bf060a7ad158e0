"""The examples of docs/extending.md: the page's own text, written to files and run."""

import importlib.util
import re
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from token_learner import build_model
from token_learner.maps import apply_with_maps
from trainers.checkpoints import open_checkpoints
from trainers.checks import check_data, check_model
from trainers.construct import UserError
from trainers.evaluators import make_evaluators
from trainers.experiment import make_experiment
from trainers.export import export
from trainers.plan import abstract_batch
from trainers.predict import predict_files
from trainers.sharding import put_batch
from trainers.state import abstract_state, create_state
from trainers.step import make_train_step, train_step
from trainers.visualize import visualize

PAGE = (Path(__file__).parents[1] / 'docs' / 'extending.md').read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
FILES = {m[1]: block for block in BLOCKS if (m := re.match(r'# (experiments/\w+\.py)\n', block))}
SNIPPETS = [block for block in BLOCKS if block not in FILES.values()]
SLOTS = 'experiments.slots:SlotPooling'


@pytest.fixture(scope='module', autouse=True)
def folder(tmp_path_factory):
    """The page's files, in a folder that Python imports from."""
    root = tmp_path_factory.mktemp('root')
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text.replace('/tmp/teacher', str(root / 'teacher')))
    sys.path.insert(0, str(root))
    yield root
    sys.path.remove(str(root))
    for name in [name for name in sys.modules if name.partition('.')[0] == 'experiments']:
        del sys.modules[name]


def read_config(path, arg):
    """As main.py reads it, by its path."""
    spec = importlib.util.spec_from_file_location('read_config', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


def digits(arg):
    return read_config(Path(__file__).parents[1] / 'configs' / 'digits.py', arg)


def train_two_steps(config, workdir=None):
    """The loop's own step on its own batches; a checkpoint in the workdir."""
    experiment = make_experiment(config.lock(), devices=jax.devices()[:1])
    check_model(experiment)
    evaluators = make_evaluators(experiment)
    check_data(experiment, evaluators)
    state, step = create_state(experiment), make_train_step(experiment)
    before = jax.device_get(state.params)
    with closing(experiment.train_batches()) as batches:
        for _ in range(2):
            state, sums = step(state, put_batch(next(batches), experiment.mesh))
    assert float(sums['n']) == config.batch_size
    moved = jax.tree.map(lambda old, new: np.abs(old - new).max(), before, dict(state.params))
    assert sum(x > 0 for x in jax.tree.leaves(moved)) > 10
    if workdir:
        with open_checkpoints(workdir, experiment) as checkpoints:
            checkpoints.save(2, state)
            checkpoints.finish()
    return experiment, evaluators, state


def test_the_page_has_the_examples():
    assert {Path(name).stem for name in FILES} == {
        *('slots', 'small_digits', 'small_digits_config', 'distill', 'distill_config')
    }
    assert len(SNIPPETS) == 1


def test_a_tokenizer_trains_is_counted_drawn_and_exported(tmp_path):
    exec(SNIPPETS[0], {})
    config = digits('model=mini/7-4at2')
    config.model.tokenizer = SLOTS
    experiment, evaluators, state = train_two_steps(config, tmp_path)
    assert state.params['encoder']['tokenizer_2']['queries'].shape == (4, 64)
    assert visualize(experiment, evaluators, tmp_path, count=2).stat().st_size > 1000
    path = export(experiment, tmp_path) / 'model.safetensors'
    assert list(predict_files(path, [])) == []


@pytest.mark.parametrize(
    ('spec', 'shape'),
    [('mini/7-4at2-fuser', (2, 28, 28, 1)), ('ViViT-mini/16x2-2at1', (2, 4, 32, 32, 3))],
)
def test_a_tokenizer_goes_with_fusers_clips_and_loops(spec, shape):
    model = build_model({'spec': spec, 'tokenizer': SLOTS, 'dtype': 'bfloat16'}, 5)
    images = jnp.zeros(shape)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    logits, maps = jax.eval_shape(lambda v: apply_with_maps(model, v, images), variables)
    assert logits.shape == (2, 5)
    assert all(x.shape[2] == int(re.search(r'-(\d)at', spec)[1]) for x in maps.values())
    assert maps
    looped = build_model({'spec': spec, 'tokenizer': SLOTS, 'scan': True, 'remat': 'full'}, 5)
    assert jax.eval_shape(looped.init, jax.random.key(0), images)


def test_a_tokenizer_goes_into_a_bottleneck_model():
    model = build_model({'spec': 'X2plus1D-mini:conv2d_tlx2', 'tokenizer': SLOTS}, 5)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4, 32, 32, 3)))
    assert any(
        'queries' in jax.tree_util.keystr(k) for k, _ in jax.tree.leaves_with_path(variables)
    )


@pytest.mark.slow
def test_a_dataset_trains_and_is_evaluated(folder):
    config = read_config(folder / 'experiments' / 'small_digits_config.py', 'model=mini/8-2at2')
    experiment, evaluators, state = train_two_steps(config)
    metrics = evaluators['test'](state)
    assert metrics['small_digits/test/top1'].n == 297
    dataset = experiment.data.dataset
    assert len(dataset.split('train')) == 1500
    example = dataset.split('test')[0]
    assert (example['image'].shape, example['image'].dtype) == ((8, 8, 1), np.uint8)
    assert example['image'].max() == 255


@pytest.fixture(scope='module')
def teacher(folder):
    experiment, _, _ = train_two_steps(digits('model=mini/7'), folder / 'teacher')
    export(experiment, folder / 'teacher')
    return experiment


@pytest.mark.slow
def test_a_task_trains_and_measures(folder, teacher):
    path = folder / 'experiments' / 'distill_config.py'
    experiment, evaluators, state = train_two_steps(read_config(path, 'model=mini/7-2at2'))
    found = evaluators['agreement'](state)['digits/test/teacher/agreement']
    assert found.n == 1000
    assert 0 <= found.value <= 1
    assert experiment.output_activation == 'softmax'
    for changes in ({'mixup': 0.2}, {'microbatches': 2}):
        config = read_config(path, 'model=mini/7-2at2')
        config.update(changes)
        other = make_experiment(config)
        batch, state = abstract_batch(other), abstract_state(other)
        jax.eval_shape(partial(train_step, other), state, batch)


@pytest.mark.slow
def test_the_loss_is_least_where_the_student_is_the_teacher(folder, teacher):
    from experiments.distill import distill, read_teacher

    export = folder / 'teacher' / 'export'
    loss = distill(export=export, temperature=2.0, share=1.0)
    batch = next(teacher.eval_batches(teacher.data.dataset, 'test', 8))
    batch = {key: jnp.asarray(batch[key]) for key in ('image', 'label')}
    logits = read_teacher(export)(batch)
    slope = jax.grad(lambda x: loss(x, batch).sum())(logits)
    np.testing.assert_allclose(slope, 0, atol=1e-5)
    shifted = logits + 0.1 * batch['label'][:, None]  # the same probabilities
    np.testing.assert_allclose(jax.grad(lambda x: loss(x, batch).sum())(shifted), 0, atol=1e-5)
    assert jnp.abs(jax.grad(lambda x: loss(x, batch).sum())(logits.at[:, 0].add(1.0))).max() > 1e-2


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'tokenizer': 'experiments.none:SlotPooling'}, "No module named 'experiments.none'"),
        ({'tokenizer': 'experiments.slots:Slots'}, "has no attribute 'Slots'"),
        ({'tokenizer': 'experiments.small_digits:load'}, 'is no class of Module'),
        ({'fuser': 'math:sqrt', 'spec': 'mini/4-8at2-fuser'}, 'is no class of Module'),
        ({'tokenizer': SLOTS, 'version': 'v1.1'}, 'does nothing to tokenizer='),
    ],
)
def test_a_model_that_cannot_be_made_is_refused(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build_model({'spec': 'mini/4-8at2', **change}, 5)


def test_settings_of_one_s_own_are_checked(folder):
    path = folder / 'experiments' / 'small_digits_config.py'
    for key, value, message in [
        ('name', 'experiments.small_digits:laod', 'config.dataset.name=.* cannot be imported'),
        ('num_tets', 3, r'config\.dataset\.num_tets is not a known key'),
    ]:
        config = read_config(path, None)
        config.dataset[key] = value
        with pytest.raises(UserError, match=message):
            make_experiment(config)
