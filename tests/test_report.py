"""The page of a run: what it holds, that it holds together alone, and how it looks."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from PIL import Image

from configs import digits
from tests.test_train import on
from trainers.evaluators import make_evaluators
from trainers.experiment import make_experiment
from trainers.report import main, make_page, report
from trainers.train import train

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which('chromium')
EVIL = '<script>alert("x")</script>&amp;'


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A workdir of a run of four steps."""
    workdir = tmp_path_factory.mktemp('runs') / 'finished'
    config = digits.get_config('model=mini/14-2at1')
    config.update({'total_steps': 4, 'log_every_steps': 2, 'eval_every_epochs': 64 / 4000})
    config.schedule.warmup_epochs = 0.0
    experiment = on(make_experiment(config), 1)
    workdir.mkdir()
    train(experiment, make_evaluators(experiment), workdir)
    return workdir


@pytest.fixture
def copied(finished, tmp_path):
    """Its files, to be changed."""
    folder = tmp_path / 'run'
    folder.mkdir()
    for file in finished.glob('*.json*'):
        shutil.copy(file, folder)
    return folder


class Page(HTMLParser):
    """Counts tags, and checks that they are closed in order."""

    VOID = ('meta', 'img', 'wbr')

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.text = [], [], [], ''
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == 'id']
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.text += ' ' if tag in ('td', 'th', 'b', 'p', 'h1') else ''

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.open[-1:] != ['style']:
            self.text += data

    def count(self, name):
        return [tag for tag, _ in self.tags].count(name)


def test_a_finished_run_on_one_page(finished):
    assert report(finished) == finished / 'report.html'
    page = Page((finished / 'report.html').read_text())
    results = json.loads((finished / 'results.json').read_text())
    for text in (
        *('mini/14-2at1 on digits', 'Finished', 'after 4 steps', 'n = 1,000', 'digits/test/top5'),
        *(f'{results["params"]:,}', 'optimizer.weight_decay', 'packages.jax', 'revision'),
        f'{100 * results["metrics"]["digits/test/top1"]["value"]:.2f} %',
        'training examples that could not be read',
    ):
        assert text in page.text, text
    assert page.count('svg') == 6  # loss, top-1, top-5, rate, gradient norm, wait
    assert len(page.ids) == len(set(page.ids))
    assert page.count('script') == page.count('link') == 0


def test_the_page_needs_nothing_else(finished):
    text = make_page(finished)
    found = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')\s>]+)', text)
    assert all(link.startswith(('#', 'data:')) for link in found)
    assert '@import' not in text


def test_an_unfinished_run_says_so(copied):
    (copied / 'results.json').unlink()
    page = Page(make_page(copied))
    assert 'Unfinished: step 4 of 4 was logged' in page.text
    assert 'digits/test/top1, n = 1,000, step 4' in page.text
    (copied / 'metrics.jsonl').unlink()
    page = Page(make_page(copied))
    assert 'step 0 of 4 was logged' in page.text
    assert 'Nothing was evaluated yet.' in page.text


def test_what_came_from_the_run_is_escaped(copied):
    config = json.loads((copied / 'config.json').read_text())
    config['model']['spec'] = config['dataset']['name'] = EVIL
    config['evaluators'][EVIL] = EVIL
    (copied / 'config.json').write_text(json.dumps(config))
    name = f'{EVIL}/test/top1'
    with (copied / 'metrics.jsonl').open('a') as file:
        for step in (2, 4):
            file.write(json.dumps({'step': step, name: 0.5, f'a/b/{EVIL}': 1.0}) + '\n')
    (copied / 'nonfinite.json').write_text(json.dumps({'step': 3, 'ids': [EVIL]}))
    (copied / 'environment.json').write_text(json.dumps({EVIL: EVIL, 'packages': {}}))
    (copied / f'classes_{EVIL.replace("/", "")}.csv').write_text(
        f'class,videos,right,top1,taken_for,times\n"{EVIL.replace(chr(34), "")}",1,1,1.0,,0\n'
    )
    text = make_page(copied)
    page = Page(text)
    assert page.count('script') == 0
    assert page.text.count('alert(') >= 7
    assert '&amp;amp;' in text


def test_skipped_steps_and_bad_samples_are_counted(copied):
    with (copied / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 4, "train/unreadable": 3, "train/skipped_steps": 2}\n{"step": 5, "tr')
    (copied / 'results.json').unlink()
    page = Page(make_page(copied))
    assert re.search(r'could not be read\s+3\s', page.text)
    assert re.search(r'without an update .*?\)\s+2\s', page.text)


def test_pictures_and_tables_of_the_run_are_in_it(copied):
    names = ('attention_maps.gif', 'attention_maps.png', 'attention_maps_of_files.png')
    for name in names:
        Image.new('RGB', (64, 48), 'red').save(copied / name)
    (copied / 'classes_a_4x3.csv').write_text('class,videos,right\nleft,10,9\n')
    page = Page(make_page(copied))
    sources = [attrs['src'] for tag, attrs in page.tags if tag == 'img']
    for source, name in zip(sources, names, strict=True):
        data = (copied / name).read_bytes()
        assert base64.b64decode(source.partition(',')[2]) == data
    assert 'classes_a_4x3.csv' in page.text


def test_what_is_no_workdir_is_told_of_in_one_line(copied, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    (copied / 'config.json').write_text('{')
    for folder, message in (
        (tmp_path / 'none', 'is no folder; name the workdir'),
        (tmp_path / 'empty', 'has no config.json; name the workdir'),
        (copied, 'config.json is damaged'),
    ):
        assert main([str(folder)]) == 1
        error = capsys.readouterr().err
        assert error.startswith('error: ')
        assert error.count('\n') == 1
        assert message in error
        assert not (folder / 'report.html').exists()


@pytest.mark.skipif(CHROMIUM is None, reason='needs chromium')
def test_a_browser_shows_it(finished, tmp_path):
    path, shot = report(finished), tmp_path / 'shot.png'
    flags = '--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking'
    more = '--disable-component-update --disable-sync --hide-scrollbars --window-size=400,900'
    command = [CHROMIUM, *flags.split(), *more.split(), f'--user-data-dir={tmp_path / "data"}']
    subprocess.run(
        [*command, f'--screenshot={shot}', f'file://{path}'],
        check=True,
        capture_output=True,
        timeout=120,
    )
    picture = Image.open(shot).convert('L')
    assert picture.size == (400, 900)
    low, high = picture.getextrema()
    assert low < 60  # letters
    assert high > 240  # on paper
    assert picture.crop((392, 0, 400, 900)).getextrema()[0] > 200  # nothing is cut at the right
