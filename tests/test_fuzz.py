"""What is read from outside is used or refused in one line, whatever it is."""

import contextlib
import csv
import io
import json
import re
import sys

import numpy as np
import pytest
import simplejpeg
from absl import flags
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import main
from configs import imagenet_finetune
from configs.common import parse_arg
from datasets.box import Box
from datasets.dataset import Unreadable
from datasets.image import Picture
from datasets.prepare.annotations import CHARADES_CODES, read_annotations
from datasets.prepare.decode import encode_frame
from datasets.prepared import Labels, find_version
from datasets.videos import open_set
from token_learner.spec import BACKBONES, LAYERS, SIZES, BottleneckSpec, Spec, parse_spec
from trainers.charades import read_classes, read_submission, read_videos

settings.register_profile(
    'ci',
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile('ci')

TEXT = st.text(st.characters(exclude_categories=()), max_size=30)


@contextlib.contextmanager
def one_line(*names):
    """Either nothing is raised, or a ValueError of one line that has these names."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        assert len(message.splitlines()) == 1, message
        for name in names:
            assert str(name) in message


NUMBER = st.integers(1, 40)


@st.composite
def specs(draw):
    """Class, attributes and text of a spec."""
    size = draw(st.sampled_from(sorted(SIZES)))
    patch, tubelet = draw(NUMBER), draw(st.none() | NUMBER)
    extra = draw(st.integers(0, 12))
    layers = SIZES[size].layers + extra
    kind = draw(st.sampled_from(['', 'tokens', 'pool']))
    count = draw(NUMBER) if kind else None
    places = st.sets(st.integers(0, layers - 1), min_size=1, max_size=3)
    at = tuple(sorted(draw(places))) if kind else ()
    fuser = kind == 'tokens' and len(at) == 1 and draw(st.booleans())
    made = {'tokens': count} if kind == 'tokens' else {'pool': count} if kind else {}
    text = f'{size}/{patch}' if tubelet is None else f'ViViT-{size}/{patch}x{tubelet}'
    text += f'+{extra}' if extra else ''
    if kind:
        text += f'-{"pool" * (kind == "pool")}{count}' + ''.join(f'at{k}' for k in at)
    text += '-fuser' * fuser
    made |= {'size': size, 'patch': patch, 'extra': extra, 'at': at, 'fuser': fuser}
    return Spec, made | {'tubelet': tubelet}, text


@st.composite
def bottleneck_specs(draw):
    """Likewise."""
    name = draw(st.sampled_from(sorted(BACKBONES)))
    layers = tuple(draw(st.lists(st.sampled_from(LAYERS[1:]), unique=True, max_size=3)))
    layers = ('conv2d',) * draw(st.booleans()) + layers
    if layers in ((), ('conv2d', 'conv1d')):
        return BottleneckSpec, {'backbone': name}, f'X2plus1D-{name}'
    most = BACKBONES[name].depths[-1] - (layers[0] != 'conv2d')
    count = draw(st.integers(1, most))
    made = {'backbone': name, 'layers': layers, 'replaced': count}
    return BottleneckSpec, made, f'X2plus1D-{name}:{"_".join(layers)}x{count}'


@given(specs() | bottleneck_specs())
def test_specs_of_the_grammar_mean_what_they_say(made):
    kind, attributes, text = made
    assert parse_spec(text) == kind(**attributes)


PIECES = ['ViViT-', 'X2plus1D-', 'M', 'B', '/', '16', 'x', '2', '+', '-', 'pool', 'at', 'fuser']
PIECES += [':', '_', 'tl', 'conv2d', '0', '\u0663', '\n', '9' * 5000]


@given(TEXT | st.lists(st.sampled_from(PIECES), max_size=9).map(''.join))
def test_any_other_spec_is_refused_in_one_line(text):
    with one_line():
        try:
            spec = parse_spec(text)
        except ValueError as error:
            for near in re.findall(r'did you mean (\S+)\? write', str(error)):
                parse_spec(near)
            raise
        assert text.isascii()
        assert isinstance(spec, Spec | BottleneckSpec)


CELL = st.sampled_from(['', 'a', '1', '9' * 400, 'c000 1 ' + '9' * 400, 'a"b', 'x\ny']) | TEXT
COLUMNS = {
    'kinetics400': {
        'label': st.sampled_from(['a', 'b, c', '"d"', '', ' e', 'f\ng']) | TEXT,
        'youtube_id': st.sampled_from(['x', 'y', '..', '']) | TEXT,
        'time_start': st.sampled_from(['0', '1.5', '1', '9' * 400]),
        'time_end': st.sampled_from(['10', '11.0']),
    },
    'charades': {
        'id': st.sampled_from(['x', 'y', '/', '']) | TEXT,
        'actions': st.sampled_from(['', 'c000 1 2', 'c156 0 1;c001 2.5 1', 'c157 0 1']) | CELL,
    },
}


@st.composite
def tables(draw, columns):
    """A CSV file with these columns, rightly written or not."""
    rows = [list(columns), *draw(st.lists(st.tuples(*columns.values()), max_size=4))]
    if draw(st.booleans()):
        rows.insert(draw(st.integers(0, len(rows))), draw(st.lists(CELL, max_size=5)))
    if draw(st.booleans()):
        return '\n'.join(','.join(row) for row in rows).encode(errors='replace')
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue().encode(errors='replace')


def read(name, path):
    """The annotations of a file, with as many labels as it has."""
    try:
        return read_annotations(name, [f'train={path}'])
    except ValueError as error:
        if not (counted := re.search('annotations have .* --classes=([0-9]+)$', str(error))):
            raise
        return read_annotations(name, [f'train={path}'], classes=int(counted[1]))


def expected_id(row):
    """What a row's video is called."""
    if 'id' in row:
        return row['id']
    start, end = (int(float(row[f'time_{key}'])) for key in ('start', 'end'))
    return f'{row["youtube_id"]}_{start:06d}_{end:06d}'


@pytest.mark.parametrize('name', COLUMNS)
def test_annotations_in_csv(tmp_path, name):
    path, used = tmp_path / 'file.csv', []

    @given(tables(COLUMNS[name]) | st.binary(max_size=60))
    def check(data):
        path.write_bytes(data)
        found = None
        with one_line(path):
            found = read(name, path)
        if found is None:
            return
        lines = csv.reader(io.StringIO(data.decode('utf-8-sig'), newline=''), strict=True)
        header, *rows = filter(None, lines)
        expected = {expected_id(dict(zip(header, row, strict=True))) for row in rows}
        videos, refused = found.videos['train'], found.refused['train']
        assert {*(video.id for video in videos), *refused} == expected
        assert len(videos) + len(refused) == len(expected)
        used.append(found)
        vocabulary_and_ids_are_text(found)

    check()
    assert len(used) > 5


def accounted(found):
    """How many videos there are, refused ones included."""
    return sum(len(of) for by_split in (found.videos, found.refused) for of in by_split.values())


def vocabulary_and_ids_are_text(found):
    for name in (*found.vocabulary, *(v.id for of in found.videos.values() for v in of)):
        name.encode()


PAIRS = st.lists(st.tuples(TEXT, TEXT | st.none() | st.integers()), max_size=4)


def test_annotations_in_json(tmp_path):
    path = tmp_path / 'file.json'

    @given(PAIRS.map(dict).map(json.dumps).map(str.encode) | st.binary(max_size=40))
    def check(data):
        path.write_bytes(data)
        with one_line(path):
            found = read_annotations('avid', [f'train={path}'])
            assert accounted(found) == len(set(json.loads(data)))
            vocabulary_and_ids_are_text(found)

    check()


SCORES = st.lists(st.sampled_from(['0', '1e3', '-2.5', 'nan', '1e999', 'x', '\u0661']), max_size=4)


def test_files_of_charades_scorer(tmp_path):
    path = tmp_path / 'file'

    @given(
        st.binary(max_size=80)
        | st.tuples(TEXT, SCORES, st.sampled_from([150, 156, 157])).map(
            lambda made: ' '.join([made[0], *made[1], *'1' * (made[2] - len(made[1]))]).encode(
                errors='replace'
            )
        )
    )
    def check(data):
        path.write_bytes(data)
        with one_line(path):
            for scores in read_submission(path).values():
                assert scores.shape == (len(CHARADES_CODES),)
                assert np.isfinite(scores).all()
        with one_line(path):
            read_classes(path)
        with one_line(path):
            read_videos(path)

    check()


NAMES = st.sampled_from(['model', 'res', 'runlocal', 'batch', 'x']) | TEXT
ITEMS = st.lists(st.tuples(NAMES, st.sampled_from(['=', '']), TEXT).map(''.join), max_size=3)


@given(ITEMS.map(','.join))
def test_arguments_of_configs(text):
    with one_line():
        found = parse_arg(text, model='B/16', res=224, runlocal=False, rate=0.1)
        kinds = {'model': str, 'res': int, 'runlocal': bool, 'rate': float}
        assert {k: type(v) for k, v in found.items()} == kinds
    with one_line():
        imagenet_finetune.get_config(text)


KEYS = ['batch_size', 'seed', 'model.spec', 'model.scan', 'model.representation', 'optimizer']
KEYS += ['schedule.learning_rate', 'evaluators.test.split', 'model.x', 'x', '', '.', 'a.b.c', '__x']
VALUES = st.sampled_from(['1', '-1', '1.5', 'true', 'None', '', '{}', '(1,', '[]', '1e400']) | TEXT


def test_overrides_of_configs(capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['main.py'])

    @settings(max_examples=50)
    @given(st.sampled_from(KEYS), VALUES)
    def check(key, value):
        flags.FLAGS.unparse_flags()
        try:
            main.parse_flags(['main.py', '--config=configs/digits.py', f'--config.{key}={value}'])
            said = 0
        except SystemExit as stop:
            said = stop.code
        lines = capsys.readouterr().err.splitlines()
        assert [line[:7] for line in lines] == ['error: '] * said

    check()


def test_versions_and_labels_of_prepared_sets(tmp_path):
    (tmp_path / '1.²').mkdir()
    (tmp_path / '1.²' / 'dataset_info.json').write_text('{}')
    assert find_version(tmp_path) == tmp_path / '1.²'

    @given(st.lists(TEXT, max_size=3), st.binary(max_size=4) | st.integers() | TEXT | st.none())
    def check(names, label):
        with contextlib.suppress(Unreadable):
            assert 0 <= Labels(names)(label) < len(names)

    check()


def test_manifests_of_prepared_sets(tmp_path):
    (tmp_path / 'dataset_info.json').write_text('{}')
    manifest = {'name': 'x', 'fps': 1, 'frames_per_record': 4, 'splits': {}}
    counts = st.dictionaries(st.sampled_from(['annotated', 'readable']), st.just(0))
    values = st.sampled_from([None, 1, [], {}]) | st.dictionaries(st.just('a'), counts)
    entries = st.fixed_dictionaries({}, optional=dict.fromkeys(manifest, values))
    texts = entries.map(lambda found: json.dumps({**found}).encode()) | st.binary(max_size=20)
    texts |= st.dictionaries(st.sampled_from(sorted(manifest)), values).map(
        lambda found: json.dumps(manifest | found).encode()
    )

    @given(texts, st.binary(max_size=8))
    def check(data, names):
        (tmp_path / 'manifest.json').write_bytes(data)
        (tmp_path / 'vocabulary.txt').write_bytes(names)
        with one_line(tmp_path):
            assert open_set(tmp_path).splits == {}

    check()


def photograph(form, mode='RGB'):
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(70, 90, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form)
    return file.getvalue()


PIXELS = np.random.default_rng(0).integers(256, size=(70, 90, 3), dtype=np.uint8)
FILES = [
    *(photograph(form) for form in ('BMP', 'GIF', 'JPEG', 'PNG', 'WEBP')),
    photograph('JPEG', 'CMYK'),
    photograph('PNG', 'P'),
    encode_frame(PIXELS, 85),  # with restart markers
    simplejpeg.encode_jpeg(PIXELS),
]


@st.composite
def damaged(draw):
    """The bytes of an image of which some are lost, changed or added."""
    data = bytearray(draw(st.sampled_from(FILES)))
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, min(len(data), 700)) | st.integers(0, len(data)))
        lost = draw(st.integers(0, 2))
        data[at : at + lost] = draw(st.binary(max_size=3) | st.just(b'\xff\xd9'))
    return bytes(data)


@settings(max_examples=300)
@given(damaged() | st.binary(max_size=60), st.booleans())
def test_images(data, exact):
    with contextlib.suppress(Unreadable):
        picture = Picture(data)
        part = Box(0, 0, picture.height, picture.width)
        whole = picture.cut(part, 16, exact=exact)
        corner = picture.cut(Box(0, 0, 1, 1), 16, exact=exact)
        assert whole.shape == corner.shape == (16, 16, 3)


HEADER = 'label,youtube_id,time_start,time_end'


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('kinetics400', f'{HEADER}\na,x,{"9" * 400},1', ':2 has the time'),
        ('kinetics400', 'time_start,time_end,youtube_id,label\n1,2,x,a, b', ':2 has more columns'),
        ('avid', '{"a.mp4": "\\ud800"}', 'is no text'),
    ],
)
def test_annotations_that_were_once_let_through(tmp_path, name, text, message):
    path = tmp_path / 'file'
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_annotations(name, [f'train={path}'], classes=1)


def test_digits_of_a_spec_are_ascii():
    with pytest.raises(ValueError, match='is not a model spec'):
        parse_spec('B/\u0661\u0666')
