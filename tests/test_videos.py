"""Prepared video sets as they are read: real mp4 files, prepared by the real program."""

import json
import shutil

import av
import cv2
import numpy as np
import pytest
import simplejpeg
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from configs import imagenet_finetune
from datasets import load_dataset
from datasets.clips import Clip, EvalClips, TrainClips, Views
from datasets.geometry import Resize
from datasets.make_fake import main as make_fake
from datasets.pipeline import Reading, eval_batches, train_batches
from datasets.prepare.__main__ import main as prepare
from tests.conftest import run_script
from tests.forked import one_device, run
from trainers.charades import read_submission, read_videos, score
from trainers.checkpoints import open_checkpoints
from trainers.experiment import make_experiment
from trainers.state import create_state

LENIENT = Reading(threads=0, max_unreadable=1.0)


def prepare_fake(root, name, *more):
    """Prepares a fake set of runs/fake's form; its folder."""
    of_set = root / name
    files = sorted((of_set / 'annotations').glob('*_*'))
    annotations = [str(x) for x in files if 'classes' not in x.name]
    args = [f'--videos={of_set / "videos"}', f'--out={root}', '--short_side=48', *more]
    assert prepare([name, '--annotations', *annotations, *args]) == 0


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp('sets')
    assert make_fake(['kinetics400', 'charades', f'--out={root}', '--examples=40']) == 0
    prepare_fake(root, 'kinetics400', '--classes=8')
    prepare_fake(root, 'charades', '--fps=6')
    return root


def test_frames_are_those_of_the_files(sets):
    source = load_dataset('kinetics400', str(sets)).split('val')
    video = source.read(3, [17, 2, 2, 40])
    (path,) = (sets / 'kinetics400' / 'videos').rglob(f'{video.id}.mp4')
    with av.open(str(path)) as file:
        originals = [frame.to_ndarray(format='rgb24') for frame in file.decode(video=0)]
    assert source.num_frames[3] == len(originals)
    np.testing.assert_allclose(video.times, np.array([17, 2, 2, 40]) / 25, atol=1e-6)
    for frame, n in zip(video.frames, (17, 2, 2, 40), strict=True):
        small = cv2.resize(originals[n], (64, 48), interpolation=cv2.INTER_AREA)
        assert np.abs(simplejpeg.decode_jpeg(frame) - small.astype(float)).mean() < 3


def test_labels_are_numbers_of_names(sets):
    dataset = load_dataset('kinetics400', str(sets))
    assert len(dataset.label_names) == 8
    assert dataset.label_names == tuple(sorted(dataset.label_names))
    source = dataset.split('train')
    for index in range(len(source)):
        ((label, start, end),) = source.read(index, [0]).actions
        (path,) = (sets / 'kinetics400' / 'videos').rglob(f'{source.read(index, [0]).id}.mp4')
        assert path.parent.name == dataset.label_names[label]
        assert (start, round(end * 25)) == (0, source.num_frames[index])


def test_charades_has_its_actions_and_rate(sets):
    dataset = load_dataset('charades', str(sets), fps=6)
    assert len(dataset.label_names) == 157
    clip = Clip(8, 1, 'overlap')
    examples = TrainClips(dataset, 'train', Resize(16), clip)
    batch = next(train_batches(examples, batch_size=40, seed=0, reading=LENIENT))
    assert batch['labels'].shape == (40, 64)
    assert (batch['labels'] < 157).all()
    assert set((batch['labels'] >= 0).sum(1).tolist()) > {0, 1}
    whole = EvalClips(dataset, 'test', Resize(16), clip, Views(clips=None))
    source = dataset.split('test')
    assert whole.clips_of.tolist() == [-(-n // 8) for n in source.num_frames.tolist()]
    with pytest.raises(OSError, match=r'charades_12fps is not there; prepare it: .*--fps=12'):
        load_dataset('charades', str(sets)).split('train').read(0, [0])


def test_only_the_records_with_the_frames_are_read(sets):
    source = load_dataset('kinetics400', str(sets)).split('train')
    read = []
    records = source._records
    source._records = type('Spy', (), {'__getitem__': lambda _, i: read.append(i) or records[i]})()
    source.read(1, [33, 34, 47])
    source.read(0, [3, 20])
    first = -(-int(source.num_frames[0]) // 16)
    assert read == [first + 2, 0, 1]


def rewrite(path, change):
    """Writes a file of records anew; `change` maps each record to another."""
    reader = ArrayRecordReader(str(path))
    records = [reader.read([i])[0] for i in range(reader.num_records())]
    reader.close()
    writer = ArrayRecordWriter(str(path), 'group_size:1,uncompressed')
    for number, record in enumerate(records):
        writer.write(change(number, record))
    writer.close()


@pytest.fixture
def copy(sets, tmp_path):
    shutil.copytree(sets / 'kinetics400_25fps', tmp_path / 'kinetics400_25fps')
    return tmp_path


def damaged(copy, change, size=10):
    folder = copy / 'kinetics400_25fps' / '1.0.0'
    rewrite(next(folder.glob('*-val.array_record*')), change)
    dataset = load_dataset('kinetics400', str(copy))
    examples = EvalClips(dataset, 'val', Resize(16), Clip(4, 4, 'video'), Views())
    (batch,) = eval_batches(examples, batch_size=size, reading=LENIENT)
    assert (batch['mask'] + batch['unreadable']).tolist() == [1] * 10
    return batch


def test_damage_costs_the_video_and_is_told_of(copy):
    def change(number, record):
        example = tf_example_pb2.Example.FromString(record)
        features = example.features.feature
        if number == 0:
            return b'nothing of the kind'
        if features['id'].bytes_list.value[0] in labelled:
            features['labels'].bytes_list.value[0] = b'no such motion'
        if features['id'].bytes_list.value[0] in swapped:
            features['part'].int64_list.value[0] += 1
        if features['id'].bytes_list.value[0] in short:
            del features['frames'].bytes_list.value[-1]
        if features['id'].bytes_list.value[0] in without:
            del features['starts']
        if features['id'].bytes_list.value[0] in cut:
            frames = features['frames'].bytes_list.value
            frames[:] = [frame[:200] for frame in frames]
        return example.SerializeToString(deterministic=True)

    source = load_dataset('kinetics400', str(copy)).split('val')
    ids = [source.read(i, [0]).id for i in range(10)]
    labelled, swapped, cut, short, without = ({ids[i].encode()} for i in (2, 4, 6, 7, 8))
    first = source.num_frames[0]
    batch = damaged(copy, change)
    bad = np.flatnonzero(batch['unreadable']).tolist()
    centre_reads_record_0 = (first - 16) // 2 < 16
    assert bad == ([0] if centre_reads_record_0 else []) + [2, 4, 6, 7, 8]
    assert batch['error'][2] == "the label 'no such motion' is not in the vocabulary"
    assert 'is not part' in batch['error'][4]
    assert 'damaged JPEG file' in batch['error'][6]
    assert batch['label'][[2, 4, 6, 7, 8]].tolist() == [-1] * 5
    assert not batch['video'][[2, 4, 6, 7, 8]].any()


def test_an_index_of_other_files_is_refused(copy):
    path = copy / 'kinetics400_25fps' / '1.0.0' / 'val.index.npy'
    np.save(path, np.load(path)[:-1])
    with pytest.raises(ValueError, match=r'records of val, and .* is of .* prepare it'):
        load_dataset('kinetics400', str(copy))


def test_a_set_that_is_not_merged_is_refused(copy):
    (copy / 'kinetics400_25fps' / '1.0.0' / 'dataset_info.json').unlink()
    with pytest.raises(ValueError, match=r'is not complete; go on .* or end it with --merge'):
        load_dataset('kinetics400', str(copy))


@pytest.mark.slow
def test_worker_processes_read_the_same_and_no_tensorflow(sets, tmp_path):
    code = (
        'import sys\n'
        'from absl import app\n'
        'from datasets import load_dataset\n'
        'from datasets.clips import Clip, TrainClips\n'
        'from datasets.geometry import JitterCrop\n'
        'from datasets.pipeline import Reading, train_batches\n'
        'def main(argv):\n'
        f'    dataset = load_dataset("kinetics400", {str(sets)!r})\n'
        '    clips = TrainClips(dataset, "train", JitterCrop(32, 40), Clip(4, 2, "video"))\n'
        '    make = lambda n: train_batches(clips, batch_size=6, seed=1,\n'
        '                                   reading=Reading(workers=n))\n'
        '    for _, a, b in zip(range(9), make(0), make(2)):\n'
        '        assert all((a[k] == b[k]).all() for k in a)\n'
        '    print("tensorflow" in sys.modules)\n'
        'if __name__ == "__main__":\n'
        '    app.run(main)\n'
    )
    assert run_script(tmp_path, code) == 'False\n'


@pytest.fixture(scope='module')
def others(sets):
    """The two sets that only training needs; all four are there then."""
    assert make_fake(['kinetics600', 'avid', f'--out={sets}', '--examples=40']) == 0
    prepare_fake(sets, 'kinetics600', '--classes=8')
    prepare_fake(sets, 'avid')
    prepare_fake(sets, 'charades')
    return sets


@pytest.fixture(scope='module')
def image_model(tmp_path_factory):
    """A workdir with a checkpoint of a model of images."""
    workdir, config = (
        tmp_path_factory.mktemp('image_model'),
        imagenet_finetune.get_config('runlocal'),
    )
    config.model.spec, config.dataset.resolution = 'mini/16-2at2', 64
    experiment = make_experiment(config)
    with open_checkpoints(workdir, experiment) as checkpoints:
        checkpoints.save(1, create_state(experiment))
        checkpoints.finish()
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize('name', ['kinetics400', 'kinetics600', 'charades', 'avid'])
def test_from_mp4_files_to_views(others, image_model, tmp_path, name):
    of_images = name.startswith('kinetics')  # those of Charades and AViD begin anew
    command = [
        *('main.py', f'--config=configs/{name}.py:runlocal'),
        *(f'--config.dataset.data_dir={others}', f'--workdir={tmp_path}'),
        '--config.total_steps=2',
    ]
    if of_images:
        command += ['--config.model.spec=ViViT-mini/16x2-2at2', '--config.dataset.resolution=32']
        command += [f'--config.init_from.path={image_model}']
    status, _, err = run(*command, env=one_device())
    assert status == 0, err[-2000:]
    results = json.loads((tmp_path / 'results.json').read_text())
    split = 'test' if name == 'charades' else 'val'
    manifest = json.loads(next(others.glob(f'{name}_*fps/1.0.0/manifest.json')).read_text())
    assert manifest['splits'][split]['readable'] == 10
    labelled = 10 - manifest['splits'][split]['unlabelled']
    views = {'charades': 'allx1', 'avid': '1x1'}.get(name, '4x3')
    several = name == 'charades'
    ranked = ('map@allx1_max', 'wap@allx1_probs', 'map@allx1_logits')
    shares = (f'top5@{views}_logits', f'top1_strict@{views}_probs', f'mean_class@{views}_logits')
    for metric in ('top1@1x1_center', *(ranked if several else shares)):
        assert results['metrics'][f'{name}/{split}/{metric}']['n'] == labelled
    for count, value in (('annotated', 10), ('readable', 10), ('scored', labelled)):
        assert results['metrics'][f'{name}/{split}/{count}@{views}']['value'] == value
    with np.load(tmp_path / f'scores_{name}_{split}_{views}.npz') as file:
        assert len(set(file['ids'].tolist())) == 10
    tables = {path.name.partition('_')[0] for path in tmp_path.glob('*.csv')}
    assert tables == (set() if name == 'charades' else {'classes', 'confusions'})
    assert results['steps'] == 2
    if several:
        own = read_submission(tmp_path / 'submission_charades_test_allx1_max.txt')
        annotated = read_videos(others / 'charades/annotations/Charades_v1_test.csv')
        official = score(own, annotated).precisions
        for metric, value in (('map', official.mean), ('wap', official.weighted)):
            assert results['metrics'][f'charades/test/{metric}@allx1_max']['value'] == value
    if not of_images:
        assert (results['resolution'], results['eval_resolution']) == (32, 40)
        return
    begun = json.loads((tmp_path / 'init_from.json').read_text())['parameters']
    made = {row['path']: row['action'] for row in begun if row['action'] != 'loaded'}
    assert made == {
        **{'embedding/kernel': 'inflated', 'position_embedding': 'inflated'},
        **{'head/kernel': 'skipped', 'head/bias': 'skipped'},
    }
