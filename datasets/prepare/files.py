"""Which file has an annotated video, in the folders as people have them.

Files are found by their names: anywhere below the folder, flat, by split, by label, with any of the
usual extensions. Case counts, as ids differ by it. Of Kinetics, a file that has the id but not the
times of the annotation is the video's if there is no other (one without times only if it lasts as
long as annotated); of Charades, a folder of frames may take the place of a file. A file is of one
video, or of none.
"""

import os
import re
from collections import defaultdict, deque
from collections.abc import Container, Iterator
from pathlib import Path

from datasets.prepare.annotations import EXTENSIONS, Annotated, Annotations

_FOLDERS = {
    'train': {'train', 'training'},
    'val': {'val', 'validate', 'validation'},
    'test': {'test', 'testing'},
}

_CLIP = re.compile(r'(.+)_(\d{6,})_(\d{6,})')  # of Kinetics: YouTube's id, start and end


class Files:
    """The files of a set's videos."""

    def __init__(self, root: Path, annotations: Annotations) -> None:
        """Looks through the folder, once.

        Args:
            root: folder of the videos; links in it are followed.
            annotations: of the set.

        Raises:
            ValueError: if it is no folder.
        """
        if not root.is_dir():
            raise ValueError(f'{root} is no folder; name the folder of the videos')
        self._root = root
        videos = [video for split in annotations.videos.values() for video in split]
        ids = {video.id for video in videos}.union(*annotations.refused.values())
        self._clips = annotations.name.startswith('kinetics')
        self._files: dict[str, list[str]] = defaultdict(list)  # by id
        self._others: dict[str, list[str]] = defaultdict(list)  # by YouTube's id, of no video
        sources = {_youtube_id(id) for id in ids} if self._clips else set()
        for stem, path in _walk(root, ids if annotations.name == 'charades' else ()):
            if stem in ids:
                self._files[stem].append(path)
            elif (source := _youtube_id(stem)) in sources:
                self._others[source].append(path)
        self._videos: dict[str, list[Annotated]] = defaultdict(list)  # by file
        for video in videos:
            if len(found := self._candidates(video)) == 1:
                self._videos[found[0]].append(video)

    def find(self, video: Annotated) -> Path:
        """The file, or the folder of frames, of a video.

        Raises:
            ValueError: if there is none, more than one, or one that is another video's as well.
        """
        found = self._candidates(video)
        if not found:
            raise ValueError('its file is missing')
        if len(found) > 1:
            raise ValueError(f'several files: {", ".join(sorted(map(self._name, found)))}')
        for other in self._videos[found[0]]:
            if other != video:
                raise ValueError(
                    f'its file {self._name(found[0])} is also that of {other.split} {other.id}'
                )
        return Path(found[0])

    def _candidates(self, video: Annotated) -> list[str]:
        """Files that may be the video's; those in a folder of its split or label, if there are."""
        found = self._files.get(video.id) or []
        if not found and self._clips:
            found = self._others.get(_youtube_id(video.id)) or []
        label = video.label or ''
        for names in (_FOLDERS[video.split], {label, label.replace(' ', '_')}):
            if len(found) > 1:
                found = [path for path in found if names & self._parents(path)] or found
        if len(found) > 1:  # links
            found = list({os.path.realpath(path): path for path in found}.values())
        return found

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self._root)

    def _parents(self, path: str) -> set[str]:
        return set(self._name(path).split(os.sep)[:-1])


def other_file(path: Path, id: str, seconds: float) -> str | None:
    """The name of a video's file if it has other times than annotated, or none; else None.

    Args:
        path: of the file, or of the folder of frames.
        id: of the video.
        seconds: that the video lasts.

    Raises:
        ValueError: if the name has no times and the video not the annotated length: it is likely to
            be what the annotated part was to be cut from.
    """
    if id in (path.name, stem := os.path.splitext(path.name)[0]):
        return None
    start, end = map(int, _CLIP.fullmatch(id).groups()[1:])
    if not _CLIP.fullmatch(stem) and abs(seconds - (end - start)) > max(1, (end - start) / 10):
        raise ValueError(
            f'its file {path.name} lasts {seconds:.1f} s, annotated are {end - start} s'
        )
    return path.name


def _youtube_id(stem: str) -> str:
    match = _CLIP.fullmatch(stem)
    return match[1] if match else stem


def _walk(root: Path, framed: Container[str]) -> Iterator[tuple[str, str]]:
    """Stems and paths of video files, and of folders with such a name that hold frames.

    Names that begin with '.' and __MACOSX are left out. Every folder is looked at once, however
    many links lead there, and by its own name rather than a link's.
    """
    folders, seen = deque([str(root)]), set()
    while folders:
        folder = folders.popleft()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            found = sorted((x for x in entries if not is_left_out(x.name)), key=lambda x: x.name)
        for entry in found:
            stem, extension = os.path.splitext(entry.name)
            if entry.is_dir():
                if entry.name in framed and os.path.exists(_first_frame(entry.path)):
                    yield entry.name, entry.path
                elif entry.is_symlink():
                    folders.append(entry.path)
                else:
                    folders.appendleft(entry.path)
            elif extension.lower() in EXTENSIONS and entry.is_file():
                yield stem, entry.path


def is_left_out(name: str) -> bool:
    """Whether this is of a system's own, not of the set."""
    return name.startswith('.') or name == '__MACOSX'


def _first_frame(folder: str) -> str:
    return os.path.join(folder, f'{os.path.basename(folder)}-000001.jpg')
