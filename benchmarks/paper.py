"""What a table of the paper holds: its rows, and how its models are trained and measured.

`paper_images`, `paper_videos` and `paper_bottleneck` have the tables. Figures are strings, digit
for digit as printed; nothing here is read by the models or the counter.
"""

from dataclasses import dataclass, field

from configs.common import FEW_SHOT_SETS

Printed = dict[str, str]


@dataclass(frozen=True)
class Recipe:
    """How the models of a table are trained to the end, and what is compared of them.

    Attributes:
        config: file that trains them.
        accuracies: by column what evaluators call it, without the views that a row names.
        dataset: that they are trained and evaluated on; None is any, which is named.
        split: that they are evaluated on; None is any.
        classes: of the head that is counted.
        clip: its frames, and the stride from one to the next; None for images.
        fps: frames a second of the videos; None is any.
    """

    config: str
    accuracies: Printed
    dataset: str | None = None
    split: str | None = None
    classes: int = 1000
    clip: tuple[int, int] | None = None
    fps: int | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table, or a point of a figure.

    Attributes:
        name: as the paper labels it.
        spec: that builds it; None for a model that is not ours to build.
        resolution: side of the image or clip in pixels; None where that is not ours to know.
        paper: printed figures by column, see `paper_markdown`: accuracies (all percent), gflops (of
            one view), views, params_m and words.
        settings: of `config.model`, where the row needs others than the defaults.
        overrides: of the config's other keys.
        views: that a video is evaluated in, clips x crops of each, such as '4x3'; '' for images.
        note: why ours differs from the printed figure.
        trained: side in training, where it is another.
    """

    name: str
    spec: str | None
    resolution: int | None
    paper: Printed = field(default_factory=dict)
    settings: Printed = field(default_factory=dict)
    overrides: Printed = field(default_factory=dict)
    views: str = ''
    note: str = ''
    trained: int | None = None


def other(name: str, paper: Printed, resolution: int | None = None, note: str = '') -> Row:
    """A model of another kind that the paper compares with."""
    note = f'Quoted by the paper; not ours to build. {note}'.strip()
    return Row(name, None, resolution, paper, note=note)


@dataclass(frozen=True)
class Table:
    """A table or a figure.

    Attributes:
        title: its number and content.
        rows: in the paper's order.
        recipe: of its models.
        more: recipes that the same models are trained with as well, each with its own columns.
        counted: 'model', or 'layers', those that a bottleneck model has in place of others.
    """

    title: str
    rows: tuple[Row, ...]
    recipe: Recipe
    more: tuple[Recipe, ...] = ()
    counted: str = 'model'

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """All of them."""
        return (self.recipe, *self.more)

    def shape(self, row: Row) -> tuple[int, ...]:
        """[h, w, channels] of an image of a row of ours, or [t, h, w, channels] of a clip."""
        assert row.resolution is not None
        time = () if self.recipe.clip is None else self.recipe.clip[:1]
        return (*time, row.resolution, row.resolution, 3)


FINETUNED = Recipe(
    'configs/imagenet_finetune.py',
    {'top1': 'imagenet2012/validation/top1', 'real': 'imagenet2012_real/validation/top1'},
    'imagenet2012',
    'validation',
)
# Few-shot accuracies of a model that is only pre-trained, on any set.
PRETRAINED = Recipe(
    'configs/jft_pretrain.py',
    {
        'imagenet_5shot': f'fewshot_lsr_rank/imagenet2012/{FEW_SHOT_SETS["imagenet2012"][1]}/5shot',
        'mean_5shot': 'fewshot_lsr_rank/mean/5shot',
    },
)
