"""The guides: what they link to is there, and nothing is left open."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDES = [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')]


@pytest.mark.parametrize('guide', GUIDES, ids=lambda path: path.name)
def test_links_lead_somewhere_and_nothing_is_left_open(guide):
    text = guide.read_text()
    links = re.findall(r'\]\((?!https?:)([^)#]+)', text)
    assert [link for link in links if not (guide.parent / link).exists()] == []
    assert re.findall(r'^[A-Z]{4,}$', text, re.MULTILINE) == []
