"""The guides: what they link to is there, nothing is left open, and the site has them all."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
GUIDES = [*ROOT.glob('*.md'), *DOCS.glob('*.md')]


@pytest.mark.parametrize('guide', GUIDES, ids=lambda path: path.name)
def test_links_lead_somewhere_and_nothing_is_left_open(guide):
    text = guide.read_text()
    links = re.findall(r'\]\((?!https?:)([^)#]+)', text)
    assert [link for link in links if not (guide.parent / link).exists()] == []
    if guide.parent == DOCS:  # the site is made of this folder alone
        assert [link for link in links if link.startswith('..')] == []
    assert re.findall(r'^[A-Z]{4,}$', text, re.MULTILINE) == []


def test_the_site_is_made_without_a_warning_and_has_every_page(tmp_path):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(ROOT / 'mkdocs.yml'), site_dir=str(tmp_path), strict=True)
    config.plugins.on_startup(command='build', dirty=False)
    build(config)
    made = {path.stem for path in tmp_path.glob('*.html')}
    assert made == {path.stem for path in DOCS.glob('*.md')} | {'404'}
    listed = re.findall(r'^ .*: (\w+\.\w+)$', (ROOT / 'mkdocs.yml').read_text(), re.MULTILINE)
    assert {Path(page).stem for page in listed if page.endswith('.md')} == made - {'404'}
    for page in tmp_path.glob('*.html'):  # nothing is loaded from elsewhere
        loaded = re.findall(
            r'<(?:script|img|link)[^>]*(?:src|href)="(https?:[^"]+)', page.read_text()
        )
        assert loaded == []
    api = (tmp_path / 'api.html').read_text()
    for name in ('TokenLearner', 'build_vit', 'Dataset', 'Evaluator', 'train_step'):
        assert re.search(rf'<h3 id="[\w.]*{name}"', api), name


def test_the_guide_to_the_modules_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where it draws maps
    scope = {}
    for block in re.findall(r'```python\n(.*?)```', (DOCS / 'modules.md').read_text(), re.DOTALL):
        exec(block, scope)
    assert {'Classifier', 'Layer', 'begin'} <= scope.keys()
