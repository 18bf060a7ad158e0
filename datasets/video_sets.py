"""What is known of the video sets before they are there. Nothing heavy is imported here."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class VideoSet:
    """A set of the paper.

    Attributes:
        classes: how many.
        sizes: annotated videos, by split.
        fps: frames a second that it is prepared with by default.
        max_labels: of one video; None where each has one.
    """

    classes: int
    sizes: Mapping[str, int]
    fps: int
    max_labels: int | None = None


# Sizes of the annotations: of Kinetics-400 in cvdfoundation/kinetics-dataset, of Charades and the
# val of AViD in their files, others as papers round them.
VIDEO_SETS = {
    'kinetics400': VideoSet(400, {'train': 246_534, 'val': 19_906, 'test': 39_805}, fps=25),
    'kinetics600': VideoSet(600, {'train': 390_000, 'val': 30_000, 'test': 60_000}, fps=25),
    'charades': VideoSet(157, {'train': 7985, 'test': 1863}, fps=12, max_labels=64),
    'avid': VideoSet(887, {'train': 410_000, 'val': 46_850}, fps=12),
}
