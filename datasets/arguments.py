"""Paths as they are given on the command line or in a config."""

import os
import re
from pathlib import Path


def as_path(text: str) -> Path:
    """A path, of which `~` is a home folder; one of nobody's stays as it is."""
    return Path(os.path.expanduser(text))


def split_and_path(text: str) -> tuple[str | None, Path]:
    """The two of SPLIT=PATH; None and the path where no split is named, as in ./a=b."""
    split, equals, path = text.partition('=')
    if not equals or not re.fullmatch(r'\w+', split):
        return None, as_path(text)
    return split, as_path(path)
