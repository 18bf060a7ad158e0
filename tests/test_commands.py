"""Every command of README.md and docs/: parsed as it would be, and run by a test in a small form.

The commands are those of `sh` blocks and those between backticks. docs/reproduce.md is an output of
`benchmarks.reproduce`, whose commands tests/test_reproduce.py builds.
"""

import argparse
import importlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
import yaml

import main
from benchmarks.bottleneck_counts import last_block
from datasets.images import IMAGE_SETS
from token_learner.x2plus1d import X2plus1D
from trainers.evaluators import make_evaluators
from trainers.experiment import make_experiment
from trainers.launch import FLAG_MODES, check_flags

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for path in [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted(ROOT.glob('docs/**/*.md'))]
    if path.name != 'reproduce.md'
]
pytestmark = pytest.mark.filterwarnings('ignore:the load_module')  # of ml_collections

# Which test runs a kind of command, in full or with less data, a smaller model and fewer steps. A
# command of a kind that is not here fails.
RUN_BY = {
    'make demo': '.ci/run',
    'make demo-video': '.ci/run',
    'make lint': '.ci/run',
    'make test': '.ci/run',
    'make test-all': '.ci/run',
    'make .venv-beam/.ready': 'tests/test_beam.py::test_a_pipeline_makes_the_same_files',
    'make ablation': 'tests/test_benchmarks.py::test_the_ablation_s_table_and_plot',
    'benchmarks.ablation': 'tests/test_benchmarks.py::test_the_ablation_s_table_and_plot',
    'make format': 'here',
    'make lock': 'here',
    'make docs': 'here',
    'pip install': 'tests/test_package.py::test_only_the_library_is_in_the_wheel',
    'tfds build': 'here',
    'main.py digits train': 'tests/test_main.py::test_what_a_finished_run_leaves',
    'main.py digits eval test': 'tests/test_main.py::test_evaluation_on_its_own',
    'main.py digits visualize': 'tests/test_main.py::test_the_picture_is_drawn',
    'main.py moving_digits train': 'tests/test_video_modes.py::trained',
    'main.py moving_digits visualize': (
        'tests/test_video_modes.py::test_video_files_are_drawn_as_the_split_would_be'
    ),
    'main.py visualize': 'tests/test_visualize.py::test_files_are_drawn_as_the_split_would_be',
    'main.py digits export': 'tests/test_extending.py::teacher',
    'main.py digits_mean train': 'tests/test_package.py::test_the_code_in_the_readme_runs',
    'main.py digits_sharp train': 'here',
    'main.py digits_v11 train': 'here',
    'main.py digits_v11 visualize': 'tests/test_main.py::test_the_picture_is_drawn',
    'main.py jft_pretrain plan': 'tests/test_plan.py::test_plans_for_a_tpu_that_is_not_there',
    'main.py kinetics400 plan': (
        'tests/test_benchmarks.py::test_a_model_of_the_kinetics_tables_planned'
    ),
    'main.py small_digits_config train': (
        'tests/test_extending.py::test_a_dataset_trains_and_is_evaluated'
    ),
    'main.py distill_config train': 'tests/test_extending.py::test_a_task_trains_and_measures',
    'main.py jft_pretrain train': 'tests/test_image_experiments.py::pretrained',
    'main.py jft_pretrain eval fewshot': (
        'tests/test_image_experiments.py::test_five_shots_recognise_the_digits'
    ),
    'main.py imagenet_finetune train': 'tests/test_image_experiments.py::finetuned',
    'main.py imagenet_finetune eval real': (
        'tests/test_image_experiments.py::test_real_is_over_the_examples_with_labels'
    ),
    'main.py imagenet_finetune export': (
        'tests/test_image_experiments.py::test_the_export_runs_without_this_code_and_predicts'
    ),
    'main.py predict': (
        'tests/test_image_experiments.py::test_the_export_runs_without_this_code_and_predicts'
    ),
    'main.py imagenet_finetune plan': 'tests/test_plan.py::test_plans_for_a_tpu_that_is_not_there',
    'main.py kinetics400 train': 'tests/test_videos.py::test_from_mp4_files_to_views',
    'main.py kinetics400 eval multiview': 'tests/test_videos.py::test_from_mp4_files_to_views',
    'main.py kinetics400 visualize': (
        'tests/test_video_modes.py::test_maps_are_drawn_over_the_frames_of_clips'
    ),
    'main.py charades train': 'tests/test_videos.py::test_from_mp4_files_to_views',
    'main.py charades eval multiview': 'tests/test_videos.py::test_from_mp4_files_to_views',
    'main.py avid train': 'tests/test_videos.py::test_from_mp4_files_to_views',
    'datasets.make_fake': 'tests/conftest.py::fakes',
    'datasets.prepare': 'tests/test_prepare.py::whole',
    'datasets.inspect': 'tests/test_inspect.py::test_the_numbers_are_those_of_the_set',
    'datasets.from_folders': 'tests/test_from_folders.py::test_folders_and_tar_files',
    'trainers.charades': 'tests/test_charades.py::test_the_program',
    'trainers.plots': 'tests/test_plots.py::test_the_program_writes_and_refuses',
    'trainers.report': 'tests/test_report.py::finished',
    'benchmarks.where_to_insert': (
        'tests/test_plots.py::test_where_to_insert_counts_every_place_and_shows_runs'
    ),
    'benchmarks.input': 'tests/test_benchmarks.py::INPUT',
    'benchmarks.kinetics_plans': (
        'tests/test_benchmarks.py::test_a_model_of_the_kinetics_tables_planned'
    ),
    'benchmarks.largest_batch': ('tests/test_benchmarks.py::test_the_largest_batch_of_a_machine'),
    'benchmarks.kill_resume': 'tests/test_main.py::test_a_stopped_run_goes_on_and_ends_the_same',
    'benchmarks.paper_tables': (
        'tests/test_paper_tables.py::test_the_document_is_this_program_s_output'
    ),
    'benchmarks.parity': 'tests/test_parity.py',
    'benchmarks.records': (
        'tests/test_benchmarks.py::test_records_of_other_lengths_are_read_in_turn'
    ),
    'benchmarks.reproduce': 'tests/test_reproduce.py::test_the_guide_is_the_program_s_output',
    'benchmarks.step': (
        'tests/test_benchmarks.py::test_step_times_models_with_settings_of_their_own'
    ),
    'benchmarks.vector_attention': (
        'tests/test_benchmarks.py::test_the_forms_of_vector_attention_side_by_side'
    ),
    'docs/launch/single_machine.sh': 'here',
    'docs/launch/slurm.sh': 'here',
    'docs/launch/kubernetes.sh': 'here',
    **{
        f'docs/launch/tpu_pod.sh {action}': 'here'
        for action in ('create', 'install', 'start', 'watch', 'stop', 'resume', 'delete')
    },
}


class Command(NamedTuple):
    """A command of a page: its words, and variables of its environment."""

    page: str
    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def kind(self):
        program, *rest = self.words
        if program.endswith('python') and rest[0] == '-m':
            return rest[1]
        if program.endswith('python'):
            flags = dict(w[2:].split('=', 1) for w in rest[1:] if w.startswith('--'))
            config = Path(flags.get('config', '').partition(':')[0]).stem
            named = (config, flags.get('mode', 'train'), flags.get('evaluator'))
            return ' '.join(['main.py', *filter(None, named)])
        if program.endswith('tpu_pod.sh') or program in ('make', 'tfds', 'pip'):
            return f'{program} {rest[0]}'
        return next(w for w in self.words if w.startswith('docs/launch/'))


def find_commands(path):
    text = path.read_text()
    for block in re.findall(r'^ *```sh\n(.*?)^ *```', text, re.DOTALL | re.MULTILINE):
        exported = {}
        for line in re.sub(r'\\\n\s*', ' ', block).splitlines():
            words = list(itertools.takewhile(lambda w: w != '|', shlex.split(line, comments=True)))
            own = dict(w.split('=', 1) for w in itertools.takewhile(is_assignment, words))
            words = words[len(own) :]
            if words[:1] == ['export']:
                exported |= dict(w.split('=', 1) for w in words[1:])
            elif words:
                environment = tuple((exported | own).items())
                yield Command(path.name, tuple(words), environment)
    rest = re.sub(r'```.*?```', '', text, flags=re.DOTALL)
    for line in re.findall(r'`((?:python -m|python main|make) [^`]+)`', rest):
        yield Command(path.name, tuple(shlex.split(' '.join(line.split()))))


def is_assignment(word):
    return re.match(r'[A-Z_]+=', word) is not None


COMMANDS = list(dict.fromkeys(c for path in PAGES for c in find_commands(path)))
# Files of one's own that the pages show, such as a fork of a config.
FILES = {
    m[1]: block
    for path in PAGES
    for block in re.findall(r'```python\n(.*?)```', path.read_text(), re.DOTALL)
    if (m := re.match(r'# ((?:configs|experiments)/\w+\.py)\n', block))
}


@pytest.fixture(scope='module', autouse=True)
def own(tmp_path_factory):
    """The pages' own files, in a folder that Python imports from."""
    root = tmp_path_factory.mktemp('own')
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    sys.path.append(str(root))  # behind the checkout, whose configs they import
    yield root
    sys.path.remove(str(root))
    for name in [name for name in sys.modules if name.partition('.')[0] == 'experiments']:
        del sys.modules[name]


def of(*programs):
    found = [c for c in COMMANDS if c.words[0].endswith(programs)]
    return pytest.mark.parametrize('command', found, ids=lambda c: f'{c.page}: {c.kind}')


def test_every_command_has_a_test_that_runs_it():
    assert len(COMMANDS) > 60
    assert {c.kind for c in COMMANDS} - RUN_BY.keys() == set()
    for kind, place in RUN_BY.items():
        file, _, name = place.partition('::')
        if file == 'here':
            continue
        text = (ROOT / file).read_text()
        assert re.search(rf'^def {name}\(|^{name} = ' if name else '', text, re.MULTILINE), place
        assert file != '.ci/run' or kind in text


TRACED = set()


def parse_main(argv, own, monkeypatch):
    """The flags as main.py has them, and the config as it is given to the trainer."""
    argv = [
        f'--config={own}/{a.removeprefix("--config=")}'
        if a.removeprefix('--config=').partition(':')[0] in FILES
        else a
        for a in argv
    ]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', ['main.py', *argv])  # where ml_collections looks as well
    main.FLAGS.unparse_flags()
    for name in [name for name in main.FLAGS if name.startswith('config.')]:
        delattr(main.FLAGS, name)  # an override of the command before
    rest = main.parse_flags(sys.argv)
    return main.FLAGS, rest[1:]


def trace(experiment):
    """Traces the model, once each: do spec, resolution and settings go together?"""
    shape, model = experiment.input_shape, experiment.model.clone(num_classes=1)
    key = json.dumps([{**experiment.model_settings, 'head_bias': 0.0}, shape])
    if key in TRACED:
        return
    if isinstance(model, X2plus1D):
        frames, height, width, _ = shape
        model, shape = last_block(model), (frames, height // 8, width // 8, shape[-1])
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    TRACED.add(key)


def check_main(argv, own, monkeypatch):
    flags, rest = parse_main(argv, own, monkeypatch)
    check_flags(flags.mode, {name: flags[name].value for name in FLAG_MODES}, rest)
    if flags.weights:
        assert rest
        return
    assert flags.config.is_locked
    assert (flags.topology if flags.mode == 'plan' else flags.workdir) is not None
    if 'experiments.distill' in str(flags.config):
        return  # reads its teacher; tests/test_extending.py has one
    experiment = make_experiment(flags.config)
    evaluators = make_evaluators(experiment, flags.evaluator)
    assert flags.evaluator is None or flags.evaluator in evaluators
    trace(experiment)


MAIN = [c for c in COMMANDS if c.words[1:2] == ('main.py',)]


@pytest.mark.parametrize('command', MAIN, ids=lambda c: f'{c.page}: {c.kind}')
def test_main_takes_the_command(command, own, monkeypatch):
    check_main(command.words[2:], own, monkeypatch)


class ParsedError(Exception):
    """The arguments were taken."""


MODULES = [c for c in COMMANDS if c.words[1:2] == ('-m',)]


@pytest.mark.parametrize('command', MODULES, ids=lambda c: f'{c.page}: {c.kind}')
def test_a_program_takes_the_command(command, monkeypatch, capsys):
    _, _, name, *args = command.words
    args = ['kinetics400' if a == 'NAME' else a for a in args]
    package = ROOT / name.replace('.', '/')
    module = importlib.import_module(f'{name}.__main__' if package.is_dir() else name)
    parse = argparse.ArgumentParser.parse_args

    def stop(parser, *rest):
        parse(parser, *rest)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
    monkeypatch.setattr(sys, 'argv', [name, *args])
    if not hasattr(module, 'argparse'):
        assert args == []
        return
    try:
        with pytest.raises(ParsedError):
            module.main()
    except SystemExit:
        if args:  # without any it is the program that is mentioned
            pytest.fail(capsys.readouterr().err)


@of('make')
def test_make_has_the_target(command):
    targets = [w for w in command.words[1:] if '=' not in w]
    made = subprocess.run(['make', '-n', *targets], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


@of('tfds')
def test_tfds_has_the_set(command):
    assert command.words[2] in IMAGE_SETS


LAUNCHES = [c for c in COMMANDS if any(w.startswith('docs/launch/') for w in c.words)]


def launch(folder, words, environment=()):
    """What a launch script prints among stand-ins for the cloud's programs, which print theirs."""
    for name in ('gcloud', 'srun', 'scontrol'):
        (folder / name).write_text('#!/bin/sh\nprintf "%s\\n" "$0" "$@"\n')
        (folder / name).chmod(0o755)
    place = {'PATH': f'{folder}:{os.environ["PATH"]}', 'SLURM_SUBMIT_DIR': str(ROOT)}
    environment = os.environ | place | {'PYTHON': str(folder / 'srun')} | dict(environment)
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def started(script, printed):
    """The arguments of main.py, as the machines that it starts on take them."""
    if script.endswith('kubernetes.sh'):
        *_, job = yaml.safe_load_all(printed)
        (container,) = job['spec']['template']['spec']['containers']
        return container['args']
    words = shlex.split(printed) if script.endswith('tpu_pod.sh') else printed.splitlines()
    return [word for word in words[words.index('main.py') :] if word.startswith('--')]


@pytest.mark.parametrize('command', LAUNCHES, ids=lambda c: c.kind)
def test_a_launch_script_starts_main(command, own, tmp_path, monkeypatch):
    first = next(i for i, w in enumerate(command.words) if w.startswith('docs/launch/'))
    script, *args = command.words[first:]
    printed = launch(tmp_path, [script, *args], command.environment)
    if any(w.startswith('configs/') for w in args):
        argv = started(script, printed)
        assert {w for w in args if w.startswith('--')} < set(argv)
        check_main(argv, own, monkeypatch)
    else:
        assert f'{tmp_path}/gcloud' in printed


@pytest.mark.parametrize(
    'script', ['single_machine.sh', 'tpu_pod.sh start', 'slurm.sh', 'kubernetes.sh']
)
def test_flags_reach_main_as_they_were_given(script, tmp_path):
    flag, workdir = """--config.init_from.new=("^it's/", '$HOME `x`')""", '/shared/my runs/$1'
    script, *action = f'docs/launch/{script}'.split()
    names = {'TPU': 'a', 'ZONE': 'b', 'IMAGE': 'c', 'CLAIM': 'd', 'NODES': '1', 'GPUS': '8'}
    printed = launch(tmp_path, [script, *action, 'configs/a.py', workdir, flag], names.items())
    assert {'--config=configs/a.py', f'--workdir={workdir}', flag} < {*started(script, printed)}
