"""Clips of videos: which frames, which part of them, and what they are labelled with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets.box import Box
from datasets.dataset import Action, Dataset, Unreadable, VideoSource
from datasets.examples import Sample, check_channels
from datasets.geometry import Geometry
from datasets.image import Picture

LABEL_MODES = ('video', 'overlap')


@dataclass(frozen=True)
class Clip:
    """What a clip is.

    Attributes:
        frames: T of them.
        stride: from one to the next, in frames of the video. A video that has fewer than it
            `covers` is looped.
        label_mode: of clips to train on: the labels of the whole 'video', or of the actions that
            'overlap' the clip, ends included (a clip without any is a negative one). What is
            evaluated always has those of the video.
    """

    frames: int
    stride: int
    label_mode: str

    def __post_init__(self) -> None:
        for name in ('frames', 'stride'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}={getattr(self, name)} is too small; use 1 or more')
        if self.label_mode not in LABEL_MODES:
            raise ValueError(
                f'label_mode={self.label_mode!r} is not known; use one of {", ".join(LABEL_MODES)}'
            )

    @property
    def span(self) -> int:
        """Frames of the video from one clip to where the next may begin."""
        return self.frames * self.stride

    @property
    def covers(self) -> int:
        """Frames of the video from the first of the clip to its last."""
        return (self.frames - 1) * self.stride + 1

    def places(self, start: int, num_frames: int) -> np.ndarray:
        """Which frames of a video are in the clip that begins there, [T]."""
        return np.arange(start, start + self.span, self.stride) % num_frames


@dataclass(frozen=True)
class Views:
    """The views of a video that is evaluated: some clips, and of each some crops.

    Attributes:
        clips: spread evenly over the video, from its first frame to its last (google-deepmind/dmvr,
            `sample_linspace_sequence`); 1 is the one in the middle, and None stands for all, one
            after the other, the last of which ends with the video.
        crops: along the long side of the frames, see `Geometry.crops`.
    """

    clips: int | None = 1
    crops: int = 1

    def __post_init__(self) -> None:
        if min(1 if self.clips is None else self.clips, self.crops) < 1:
            raise ValueError(
                f'{self.clips} clips and {self.crops} crops are no views; use 1 or more, or '
                'clips=None in the config for all of a video'
            )

    def __str__(self) -> str:
        """As in the names of metrics: 4x3, clips by crops."""
        return f'{"all" if self.clips is None else self.clips}x{self.crops}'

    def starts(self, num_frames: int, span: int) -> np.ndarray:
        """The first frames of the clips of a video, each of which spans so many, [clips]."""
        last = max(0, num_frames - span)
        if self.clips is None:
            return np.minimum(np.arange(0, max(num_frames, 1), span), last)
        if self.clips == 1:
            return np.array([last // 2])
        return np.linspace(0, last, self.clips).astype(int)


class _Clips:
    """What the clips of a split have in common, whatever they are for.

    Attributes:
        looped: how many of the split's videos have fewer frames than a clip covers.
    """

    pixels = 'video'

    def __init__(
        self, dataset: Dataset, split: str, geometry: Geometry, clip: Clip, least_frames: int = 1
    ) -> None:
        self._source: VideoSource = dataset.split(split)
        self._geometry, self._clip, self._least = geometry, clip, least_frames
        self._prefix, self.max_labels = f'{dataset.name}/{split}', dataset.max_labels
        self.shape: tuple[int, ...] = (
            *(clip.frames, geometry.size, geometry.size),
            dataset.channels,
        )
        self.numbers: Mapping[str, np.ndarray] = {}
        self.looped = int(np.sum(self._source.num_frames < clip.covers))

    def _length(self, video: int) -> int:
        """Frames of a video.

        Raises:
            Unreadable: if they do not fill a tubelet of the model.
        """
        length = int(self._source.num_frames[video])
        if length < self._least:
            frames = f'{length} frame' + 's' * (length > 1)
            raise Unreadable(f'it has {frames}, fewer than the {self._least} of a tubelet')
        return length

    def _label(self, actions: Sequence[Action]) -> Any:
        """Classes of actions, each once; or the class of the one that there is, else -1.

        Raises:
            Unreadable: if there are several where each video has one.
        """
        labels = sorted({action.label for action in actions})
        if self.max_labels is not None:
            return labels
        if len(labels) > 1:
            raise Unreadable(f'it has {len(labels)} labels, where each video of the set has one')
        return labels[0] if labels else -1


class TrainClips(_Clips):
    """A random clip of each video of a split, [T, size, size, channels].

    A video with fewer than `least_frames` is unreadable.
    """

    def __len__(self) -> int:
        return len(self._source)

    def name(self, index: int) -> str:
        """By the place of its video."""
        return f'{self._prefix}[{index}]'

    def sample(self, index: int, seed: tuple[int, ...]) -> Sample:
        """A clip, of which one part is to be cut of all frames."""
        clip, num_frames = self._clip, self._length(index)
        room = max(1, num_frames - clip.covers + 1)
        # Another stream than that of the geometry.
        places = clip.places(int(np.random.default_rng((*seed, 1)).integers(room)), num_frames)
        kept, where = np.unique(places, return_inverse=True)
        video = self._source.read(index, kept.tolist())
        actions = video.actions
        if clip.label_mode == 'overlap':
            first, last = video.times[0], video.times[-1]
            actions = tuple(a for a in actions if a.start <= last and a.end >= first)
        if self.max_labels is None and not actions:
            raise Unreadable('it has no label to train on')

        def draw(out: np.ndarray) -> None:
            picture = Picture(video.frames[0])
            box = self._geometry.box(picture.height, picture.width, seed)
            draw_frames(video.frames, where, [box], self._geometry, out[None])

        return Sample(video.id, self._label(actions), draw)


class EvalClips(_Clips):
    """All clips of the views of a split, video by video: [crops, T, size, size, channels].

    Every clip is an example with the id of its video. In a batch `video_number` is the place of
    its video in the split and `clip_number` its own in the video, both [b] int32. The clips of a
    video with fewer than `least_frames` are unreadable.

    Attributes:
        clips_of: how many clips each video has, [videos].
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        geometry: Geometry,
        clip: Clip,
        views: Views,
        least_frames: int = 1,
    ) -> None:
        super().__init__(dataset, split, geometry, clip, least_frames)
        geometry.crops(256, 256, views.crops)  # so that it is told now if there are none
        self._views, self.shape = views, (views.crops, *self.shape)
        starts = [views.starts(int(n), clip.span) for n in self._source.num_frames]
        self.clips_of = np.array([len(s) for s in starts], np.int32)
        self._starts = np.concatenate([np.zeros(0, int), *starts])
        self.numbers = {
            'video_number': np.repeat(np.arange(len(starts), dtype=np.int32), self.clips_of),
            'clip_number': np.concatenate(
                [np.zeros(0, np.int32), *(np.arange(n, dtype=np.int32) for n in self.clips_of)]
            ),
        }

    def __len__(self) -> int:
        return len(self._starts)

    def name(self, index: int) -> str:
        """By the place of its video, and its own."""
        video, clip = (self.numbers[key][index] for key in ('video_number', 'clip_number'))
        return f'{self._prefix}[{video}], clip {clip}'

    def sample(self, index: int, seed: tuple[int, ...]) -> Sample:
        """A clip, of which several parts may be cut of all frames."""
        del seed
        number = int(self.numbers['video_number'][index])
        places = self._clip.places(self._starts[index], self._length(number))
        kept, where = np.unique(places, return_inverse=True)
        video = self._source.read(number, kept.tolist())

        def draw(out: np.ndarray) -> None:
            picture = Picture(video.frames[0])
            boxes = self._geometry.crops(picture.height, picture.width, self._views.crops)
            draw_frames(video.frames, where, boxes, self._geometry, out)

        return Sample(video.id, self._label(video.actions), draw)


def draw_frames(
    frames: Sequence[np.ndarray | bytes],
    where: np.ndarray,
    boxes: Sequence[Box],
    geometry: Geometry,
    out: np.ndarray,
) -> None:
    """Cuts the same parts of every frame.

    Args:
        frames: different ones.
        where: which of them is where in the clip, [T].
        boxes: parts.
        geometry: whose size the parts become.
        out: filled in, [crops, T, size, size, channels].

    Raises:
        Unreadable: if a frame is damaged, or has other channels.
    """
    for number, frame in enumerate(frames):
        first, *others = np.flatnonzero(where == number)
        picture = Picture(frame)
        check_channels(picture.channels, out)
        picture.draw(boxes, out[:, first], exact=geometry.exact)
        if others:
            out[:, others] = out[:, first, None]
