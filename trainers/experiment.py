"""Everything that a config describes, built and checked before the first step."""

import json
import logging
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from datasets.clips import Clip, EvalClips, TrainClips, Views
from datasets.dataset import Dataset
from datasets.examples import Examples, Images
from datasets.geometry import GEOMETRIES, Geometry
from datasets.pipeline import Batch, Reading, eval_batches, train_batches, train_ids
from datasets.registry import DATASETS
from token_learner.build import Model, build_model
from token_learner.checks import check_choice, check_positive
from token_learner.layers import stack_layers, unstack_layers, without_scan
from token_learner.pretrained import INFLATIONS
from trainers.augment import AUGMENTATIONS, Preprocess
from trainers.construct import construct, construct_named
from trainers.loss import LOSSES, Loss
from trainers.mixup import check_mixup
from trainers.optimizer import OPTIMIZERS, SCHEDULES
from trainers.sharding import Rules, batch_share, check_batch_size, make_mesh

log = logging.getLogger(__name__)

Settings = Mapping[str, Any]

# What follows on an update that is left out because the loss or gradient is not finite.
NONFINITE = ('stop', 'skip')

# What BatchNorm normalises by in training: the statistics of the batch, or of each microbatch.
BATCH_STATISTICS = ('batch', 'microbatch')


@dataclass(frozen=True)
class Data:
    """The dataset, the split to train on and the sizes of the images.

    Attributes:
        dataset: all splits.
        split: name of the one to train on.
        resolution: side of the images that the model is trained on, pixels.
        eval_resolution: of those that it is evaluated on.
        mean: of the pixels, scaled to 0..1; one number for all channels, or one for each.
        std: likewise.
        data_dir: where the dataset lies.
    """

    dataset: Dataset
    split: str
    resolution: int
    eval_resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_dir: str


def make_data(
    *,
    name: str,
    data_dir: str,
    split: str,
    resolution: int,
    eval_resolution: int | None,
    mean: Sequence[float],
    std: Sequence[float],
    **settings: Any,
) -> Data:
    """From the section `config.dataset`; what is not named here the dataset reads itself."""
    dataset = open_dataset(name, data_dir, **settings)
    dataset.split(split)
    if eval_resolution is None:
        eval_resolution = resolution
    check_positive('resolution', resolution)
    check_positive('eval_resolution', eval_resolution)
    for key, value in (('mean', mean), ('std', std)):
        if len(value) not in (1, dataset.channels):
            raise ValueError(f'{key}={value} is not one number; use one, or one for each channel')
    if min(std) <= 0:
        raise ValueError(f'std={std} is no standard deviation; use positive numbers')
    return Data(dataset, split, resolution, eval_resolution, tuple(mean), tuple(std), data_dir)


def open_dataset(name: str, data_dir: str, **settings: Any) -> Dataset:
    """Opens a dataset by its name."""
    named = {'name': name, **settings}
    return construct_named(DATASETS, named, 'config.dataset', data_dir=data_dir)


@dataclass(frozen=True)
class InitFrom:
    """Weights to begin with, see `trainers.initialize`.

    Attributes:
        path: a workdir, a checkpoint, or a file or folder of public weights; '' begins anew.
        new: expressions of our parameters that keep their initial values.
        unused: expressions of parameters of the source that may be left out.
        inflate: of an image model's patches for clips, 'central' or 'average'.
        resize_time: whether positions of another number of times are resized.
    """

    path: str
    new: Sequence[str]
    unused: Sequence[str]
    inflate: str
    resize_time: bool

    def __post_init__(self) -> None:
        check_choice('inflate', self.inflate, INFLATIONS)


@dataclass(frozen=True)
class Experiment:
    """The parts of an experiment; see `make_experiment`, which builds them."""

    config: Settings  # as resolved, for the record
    seed: int
    batch_size: int
    microbatches: int
    batch_statistics: str
    nonfinite: str
    ema: float
    mixup: float
    total_steps: int
    log_every_steps: int
    eval_every_steps: int
    checkpoint: Settings
    model_settings: Settings
    data: Data
    clip: Clip | None  # of videos
    model: Model
    loss: Loss
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    optimizer_name: str
    mesh: Mesh
    sharding: Rules
    train_geometry: Geometry
    eval_geometry: Geometry
    preprocess: Preprocess
    reading: Reading
    evaluators: Mapping[str, Settings]
    init_from: InitFrom

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[h, w, channels] of one image, or [t, h, w, channels] of one clip, to train on."""
        return self._shape(self.data.resolution)

    @property
    def eval_input_shape(self) -> tuple[int, ...]:
        """The same of one to evaluate on."""
        return self._shape(self.data.eval_resolution)

    @property
    def output_activation(self) -> str:
        """How logits are read, a key of `trainers.loss.PROBABILITIES`: as the loss does.

        With a loss of one's own 'softmax' where each example has one label, else 'sigmoid'.
        """
        name: str = self.config['loss']['name']
        if name in LOSSES:
            return name
        return 'softmax' if self.data.dataset.max_labels is None else 'sigmoid'

    def _shape(self, side: int) -> tuple[int, ...]:
        time = () if self.clip is None else (self.clip.frames,)
        return *time, side, side, self.data.dataset.channels

    def init_variables(self, key: jax.Array) -> Any:
        """The model's variables before training, the layers one by one."""
        images = jnp.zeros((1, *self.input_shape), jnp.float32)
        return without_scan(self.model).init(key, images)

    @cached_property
    def abstract_variables(self) -> Any:
        """Shapes of the model's variables, traced once."""
        return jax.eval_shape(self.init_variables, jax.random.key(0))

    def apply(self, variables: Any, images: jax.Array, **options: Any) -> Any:
        """`model.apply` for variables with the layers one by one, inside a jitted function.

        With config.model.scan they are stacked here; kernels are cut over the mesh.
        """
        if self.model.scan:
            variables = stack_layers(variables, self.model)
        with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
            out = self.model.apply(variables, images, **options)
        if 'mutable' not in options:
            return out
        logits, mutable = out
        return logits, unstack_layers(mutable)

    def train_batches(self, start_step: int = 0) -> Generator[Batch, None, None]:
        """This process's share of the training batches from a step on, for ever.

        Nothing is set up before the first one is asked for.
        """
        yield from train_batches(
            self._train_examples(),
            batch_size=self.batch_size,
            seed=self.seed,
            start_step=start_step,
            reading=self.reading,
        )

    def _train_examples(self) -> Examples:
        dataset, split, geometry = self.data.dataset, self.data.split, self.train_geometry
        if self.clip is None:
            return Images(dataset, split, geometry)
        clips = TrainClips(dataset, split, geometry, self.clip, self.model.cell[0])
        _tell_looped(f'{dataset.name}/{split}', clips.looped, len(clips), self.clip.covers)
        return clips

    def train_ids(self, step: int) -> list[str]:
        """The examples that the update with this number, counted from 1, is made from."""
        return train_ids(
            self._train_examples(), batch_size=self.batch_size, seed=self.seed, step=step - 1
        )

    def eval_examples(
        self,
        dataset: Dataset,
        split: str,
        geometry: Geometry | None = None,
        views: Views | None = None,
    ) -> Examples:
        """Those of `eval_batches`."""
        geometry = geometry or self.eval_geometry
        if self.clip is None:
            return Images(dataset, split, geometry)
        views = views or Views()
        clips = EvalClips(dataset, split, geometry, self.clip, views, self.model.cell[0])
        videos = len(clips.clips_of)
        _tell_looped(f'{dataset.name}/{split}', clips.looped, videos, self.clip.covers)
        return clips

    def eval_batches(
        self,
        dataset: Dataset,
        split: str,
        batch_size: int,
        geometry: Geometry | None = None,
        views: Views | None = None,
    ) -> Generator[Batch, None, None]:
        """This process's share of one exact pass over a split.

        Args:
            dataset: of images, or of videos where the model is of videos.
            split: of it.
            batch_size: of the global batch, in images or clips.
            geometry: instead of that of `config.eval_geometry`.
            views: of videos; by default one in the middle.
        """
        examples = self.eval_examples(dataset, split, geometry, views)
        return eval_batches(examples, batch_size=batch_size, reading=self.reading)


@cache  # once for each split
def _tell_looped(split: str, looped: int, videos: int, frames: int) -> None:
    if looped:
        log.warning(
            '%s: %d of %d videos are shorter than the %d frames that a clip covers, and are looped',
            *(split, looped, videos, frames),
        )


def make_experiment(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Experiment:
    """Builds the experiment that a config describes.

    Args:
        config: with the keys of `configs.common.default_config`.
        devices: of the mesh; by default all there are.

    Raises:
        UserError: if anything in the config cannot be used.
    """
    settings = json.loads(config.to_json())  # in the config's order, which to_dict sorts
    return construct(assemble, settings, 'config', config=settings, devices=devices)


def assemble(
    *,
    config: Settings,
    devices: Sequence[jax.Device] | None,
    seed: int,
    batch_size: int,
    microbatches: int,
    batch_statistics: str,
    nonfinite: str,
    ema: float,
    mixup: float,
    epochs: float,
    total_steps: int | None,
    loss: Settings,
    model: Settings,
    dataset: Settings,
    clip: Settings,
    train_geometry: Settings,
    eval_geometry: Settings,
    augment: Mapping[str, Settings],
    reading: Settings,
    optimizer: Settings,
    schedule: Settings,
    mesh: Settings,
    sharding: Rules,
    evaluators: Mapping[str, Settings],
    eval_every_epochs: float,
    log_every_steps: int,
    checkpoint: Settings,
    init_from: Settings,
) -> Experiment:
    """Builds an experiment from the keys of a config.

    `configs.common.default_config` says what they are.

    Raises:
        UserError: if anything in the config cannot be used.
    """
    data = construct(make_data, dataset, 'config.dataset')
    made_clip = construct(Clip, clip, 'config.clip') if data.dataset.videos else None
    if clip and made_clip is None:
        raise ValueError(f'clip is for videos, and {data.dataset.name} has images; leave it empty')
    made_mesh = construct(make_mesh, mesh, 'config.mesh', devices=devices)
    share, shares = batch_share(made_mesh, jax.process_index())
    if seed < 0:
        raise ValueError(f'seed={seed} is negative; use 0 or more')
    check_positive('microbatches', microbatches)
    check_batch_size(batch_size, made_mesh, microbatches)
    check_choice('batch_statistics', batch_statistics, BATCH_STATISTICS)
    check_choice('nonfinite', nonfinite, NONFINITE)
    if not 0 <= ema < 1:
        raise ValueError(f'ema={ema} is no decay; use 0 (none) or more and less than 1')
    check_mixup(mixup, batch_size, microbatches, shares)
    steps_per_epoch = len(data.dataset.split(data.split)) / batch_size
    if total_steps is None:
        if not 0 < epochs < math.inf:
            raise ValueError(f'epochs={epochs} is not possible; use more than 0, or total_steps')
        total_steps = round(epochs * steps_per_epoch)
    check_positive('total_steps', total_steps)
    check_positive('log_every_steps', log_every_steps)
    if not 0 <= eval_every_epochs < math.inf:
        raise ValueError(
            f'eval_every_epochs={eval_every_epochs} is not possible; use 0 (at the end) or more'
        )
    eval_every_steps = math.ceil(eval_every_epochs * steps_per_epoch)
    augmentations = [
        construct_named(AUGMENTATIONS, {'name': name, **settings}, f'config.augment.{name}')
        for name, settings in augment.items()
    ]
    made_loss = construct_named(LOSSES, loss, 'config.loss')
    if loss['name'] == 'softmax' and data.dataset.max_labels is not None:
        raise ValueError(
            f"loss.name='softmax' is for one label an example, and {data.dataset.name} has any "
            "number; use 'sigmoid'"
        )
    learning_rate = construct_named(
        SCHEDULES,
        schedule,
        'config.schedule',
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
    )
    return Experiment(
        config=config,
        seed=seed,
        batch_size=batch_size,
        microbatches=microbatches,
        batch_statistics=batch_statistics,
        nonfinite=nonfinite,
        ema=ema,
        mixup=mixup,
        total_steps=total_steps,
        log_every_steps=log_every_steps,
        eval_every_steps=eval_every_steps,
        checkpoint=checkpoint,
        model_settings=model,
        data=data,
        clip=made_clip,
        model=construct(
            partial(build_model, model, len(data.dataset.label_names)), {}, 'config.model'
        ),
        loss=made_loss,
        schedule=learning_rate,
        optimizer=construct_named(
            OPTIMIZERS, optimizer, 'config.optimizer', schedule=learning_rate
        ),
        optimizer_name=optimizer['name'],  # known to be there by now
        mesh=made_mesh,
        sharding=sharding,
        train_geometry=construct_named(
            GEOMETRIES, train_geometry, 'config.train_geometry', size=data.resolution
        ),
        eval_geometry=construct_named(
            GEOMETRIES, eval_geometry, 'config.eval_geometry', size=data.eval_resolution
        ),
        preprocess=Preprocess(data.mean, data.std, tuple(augmentations)),
        reading=construct(Reading, reading, 'config.reading', share=share, shares=shares),
        evaluators=evaluators,
        init_from=construct(InitFrom, init_from, 'config.init_from'),
    )
