"""Files of Charades' official form: written, read and scored by its rules, or refused."""

import numpy as np
import pytest

from datasets.prepare.annotations import CHARADES_CODES
from trainers.charades import main, read_submission, read_videos, score, write_submission

IDS = [f'VID{number:02}' for number in range(12)]
CLASSES = len(CHARADES_CODES)


@pytest.fixture(scope='module')
def official(tmp_path_factory):
    """A CSV of 12 videos, of which the fourth and the ninth have no actions, and the class file."""
    folder = tmp_path_factory.mktemp('charades')
    rng = np.random.default_rng(0)
    rows = ['id,subject,actions,length']
    for number, id in enumerate(IDS):
        labels = [] if number in (3, 8) else [*rng.permutation(CLASSES)[:40], number, number]
        times = [f'c{label:03} {k}.50 {k + 3}.00' for k, label in enumerate(labels)]
        rows.append(f'{id},"A, B",{";".join(times)},30.00')
    (folder / 'test.csv').write_text('\n'.join(rows) + '\n')
    names = ''.join(f'{code} Holding {code}\n' for code in CHARADES_CODES)
    (folder / 'classes.txt').write_text(names)
    return folder


def scores(seed=0):
    return np.random.default_rng(seed).normal(size=(len(IDS), CLASSES)).astype(np.float32)


def by_hand(values, videos):
    """The official steps, of the classes that have a positive; `values` by id."""
    aps, counts = [], []
    for label, code in enumerate(CHARADES_CODES):
        rows = []
        for video in videos:
            there = video.actions and video.id in values
            own = values[video.id][label] if there else -float('inf')
            rows.append((own, any(action.label == code for action in video.actions)))
        ranking = sorted(rows, key=lambda row: -row[0])
        places = [place for place, (_, hit) in enumerate(ranking, 1) if hit]
        if places:
            aps.append(sum(k / place for k, place in enumerate(places, 1)) / len(places))
            counts.append(len(places))
    return sum(aps) / len(aps), float(np.dot(aps, counts) / sum(counts))


def test_what_is_written_is_read(tmp_path, caplog):
    values = scores()
    values[0, :3] = 1e-30, -123456.789, 0.1
    values[5, 7] = np.nan
    write_submission(tmp_path / 'a.txt', IDS, values, annotated=14)
    assert 'a.txt has 11 of 14 videos; the official mAP ranks the others last' in caplog.text
    found = read_submission(tmp_path / 'a.txt')
    assert list(found) == [id for id in IDS if id != 'VID05']
    for id, own in found.items():
        np.testing.assert_array_equal(own.astype(np.float32), values[IDS.index(id)])


@pytest.mark.parametrize('lacking', [(), (0, 1, 3, 11)], ids=['whole', 'lacking'])
def test_the_official_figures(official, lacking):
    videos = read_videos(official / 'test.csv')
    submission = {id: scores()[k] for k, id in enumerate(IDS) if k not in lacking}
    found = score({**submission, 'OTHER': scores()[0]}, videos)
    mean, weighted = by_hand(submission, videos)
    assert found.precisions.mean == pytest.approx(mean, rel=0, abs=1e-12)
    assert found.precisions.weighted == pytest.approx(weighted, rel=0, abs=1e-12)
    assert (found.annotated, found.with_actions, found.unknown) == (12, 10, 1)
    assert found.missing == tuple(IDS[k] for k in lacking if k != 3)


def test_the_program(official, tmp_path, capsys):
    file = tmp_path / 'submission.txt'
    write_submission(file, IDS, scores(), len(IDS))
    files = [file, '--annotations', official / 'test.csv', '--classes', official / 'classes.txt']
    assert main([str(name) for name in files]) == 0
    out = capsys.readouterr().out
    found = score(read_submission(file), read_videos(official / 'test.csv')).precisions
    *classes, counts, mean, weighted = out.splitlines()
    assert len(classes) == CLASSES
    number = int(np.flatnonzero(found.positives)[0])
    count = found.positives[number]
    line = f'{CHARADES_CODES[number]} {found.of_class[number]:.6f} of {count:4}'
    assert classes[number] == f'{line} Holding {CHARADES_CODES[number]}'
    assert counts.startswith('12 videos annotated, 10 of them with actions; of these 0 missing')
    there = int((found.positives > 0).sum())
    of_those = f'{found.mean:.6f} over the {there} of 157 classes that have a video'
    assert mean == f'mAP nan; {of_those}'
    assert weighted == f'wAP {found.weighted:.6f}'


def changed(lines, number, edit):
    return [edit(line) if i == number else line for i, line in enumerate(lines)]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda x: x[1:], 'lacks 1 of 10 videos with actions, the first VID00; --allow_missing'),
        (lambda x: [*x, x[4]], ':13 has the id VID04 a second time; give each video one line'),
        (lambda x: changed(x, 1, lambda y: y[: y.rindex(' ')]), ':2 has 156 scores; give an id'),
        (lambda x: changed(x, 1, lambda y: f'{y} 0.5'), ':2 has 158 scores; give an id and 157'),
        (lambda x: changed(x, 2, lambda y: y[: y.rindex(' ')] + ' nan'), ':3 has a score that is'),
        (lambda x: changed(x, 2, lambda y: y[: y.rindex(' ')] + ' -inf'), 'that is not finite; '),
        (lambda x: changed(x, 0, lambda y: y[: y.rindex(' ')] + ' x'), ':1 has a score that is no'),
        (lambda x: [], 'lacks 10 of 10 videos'),
    ],
    ids=['missing', 'doubled', 'few', 'many', 'nan', 'infinite', 'text', 'empty'],
)
def test_bad_submissions(official, tmp_path, capsys, change, message):
    file = tmp_path / 'submission.txt'
    write_submission(file, IDS, scores(), len(IDS))
    file.write_text('\n'.join(change(file.read_text().splitlines())))
    assert message in error(capsys, file, official / 'test.csv')


def error(capsys, *args):
    """The only line of the error that the program ends with."""
    file, annotations, *more = map(str, args)
    capsys.readouterr()
    assert main([file, '--annotations', annotations, *more]) == 1
    said = capsys.readouterr().err
    assert said.startswith('error: ')
    assert said.count('\n') == 1, said
    return said


def test_missing_videos_are_ranked_last_where_asked(official, tmp_path, capsys):
    file, annotations = tmp_path / 'submission.txt', str(official / 'test.csv')
    write_submission(file, IDS[1:], scores()[1:], len(IDS))
    assert main([str(file), '--annotations', annotations, '--allow_missing']) == 0
    assert 'of these 1 missing; 0 ids not annotated' in capsys.readouterr().out


def test_bad_class_and_annotation_files(official, tmp_path, capsys):
    file, annotations = tmp_path / 'submission.txt', official / 'test.csv'
    write_submission(file, IDS, scores(), len(IDS))
    names = (official / 'classes.txt').read_text().splitlines()
    for wrong, count in ((names[1:], 156), ([*names, 'c157 More'], 158), (names[::-1], 157)):
        (tmp_path / 'classes.txt').write_text('\n'.join(wrong))
        said = error(capsys, file, annotations, '--classes', tmp_path / 'classes.txt')
        assert f'has {count} lines that are not the 157 classes c000 to c156 in order; give' in said
    other = tmp_path / 'other.csv'
    for row, message in (('VID00,,,', 'annotated twice, differently'), ('NEW,,c157 0 1,', 'none')):
        other.write_text(annotations.read_text() + row + '\n')
        assert message in error(capsys, file, other)
    assert 'No such file' in error(capsys, tmp_path / 'nowhere.txt', annotations)
