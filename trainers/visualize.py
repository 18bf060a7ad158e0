"""Where the tokens of a trained model look, over examples of a split or any files."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from datasets.clips import Clip, EvalClips, Views
from datasets.dataset import Dataset, Unreadable
from datasets.examples import Examples, Images, Sample
from datasets.files import SPLIT, open_files
from token_learner.build import Model
from token_learner.layers import without_scan
from token_learner.maps import apply_with_maps
from token_learner.variables import unflatten_variables
from trainers.augment import Preprocess
from trainers.checkpoints import restore_trained
from trainers.construct import UserError, construct
from trainers.evaluators import Evaluators
from trainers.experiment import Experiment
from trainers.export import read_export
from trainers.pictures import animate_maps, draw_maps, write_animation
from trainers.predict import to_channels

log = logging.getLogger(__name__)

FPS = 6  # of animations
_OF_FILES = 'attention_maps_of_files'
_IMAGES, _CLIPS = 10, 8  # examples that are drawn by default
_ROWS = 32  # of a grid over time; of more clips the first ones are drawn


@dataclass(frozen=True)
class Trained:
    """A model and what goes with it.

    Attributes:
        model: without scan.
        variables: its parameters and running statistics.
        settings: `config.model`.
        preprocess: from uint8 to its input.
        shape: of one example, [h, w, channels] or [t, h, w, channels].
        label_names: of the classes.
        step: that it was trained to.
    """

    model: Model
    variables: Any
    settings: Mapping[str, Any]
    preprocess: Preprocess
    shape: tuple[int, ...]
    label_names: Sequence[str]
    step: int


def visualize(
    experiment: Experiment,
    evaluators: Evaluators,
    workdir: Path,
    files: Sequence[Path] = (),
    *,
    layer: str | None = None,
    tokens: int | None = None,
    count: int | None = None,
) -> Path:
    """Draws attention_maps.png, and of clips .gif and .mp4: examples and their maps.

    Those of files are called attention_maps_of_files.

    Args:
        experiment: of the model.
        evaluators: the first one's split is drawn from where no files are given.
        workdir: of the checkpoint; the pictures are written there too.
        files: images or videos, drawn as they would be evaluated.
        layer: whose maps are drawn, by default the first that has some.
        tokens: how many, the first ones; by default all.
        count: images (by default 10) or videos (8), spread evenly over the split; of a video the
            clip in the middle.

    Returns:
        The path of the .png, or of the .gif.

    Raises:
        UserError: if there is no checkpoint, no such layer, not as many tokens, or an example
            cannot be read.
    """
    dataset, split = experiment.data.dataset, evaluators.first.split
    if files:
        dataset, split = _open(files, dataset.label_names, dataset.videos, dataset.fps), SPLIT
    state = restore_trained(workdir, experiment)
    trained = Trained(
        model=without_scan(experiment.model),
        variables=state.variables,
        settings=experiment.model_settings,
        preprocess=experiment.preprocess,
        shape=experiment.eval_input_shape,
        label_names=dataset.label_names,
        step=int(state.step),
    )
    examples = experiment.eval_examples(dataset, split)
    if not files:
        count = min(count or (_CLIPS if dataset.videos else _IMAGES), len(examples))
    stem = workdir / (_OF_FILES if files else 'attention_maps')
    return _draw(trained, examples, count or len(examples), stem, layer, tokens)


def visualize_export(
    weights: Path,
    files: Sequence[Path],
    folder: Path,
    *,
    layer: str | None = None,
    tokens: int | None = None,
) -> Path:
    """The same for an exported model and files.

    Args:
        weights: a model.safetensors of `--mode=export`.
        files: images, or videos where the model is of videos.
        folder: for the pictures.
        layer: see `visualize`.
        tokens: see `visualize`.

    Raises:
        UserError: as `visualize`.
    """
    exported = read_export(weights)
    about = exported.about
    if about['clip'] and 'fps' not in about:
        raise UserError(f'{weights} does not say its frames a second; export the model again')
    side = about['resolution']
    frames = (about['clip']['frames'],) if about['clip'] else ()
    trained = Trained(
        model=exported.model,
        variables=unflatten_variables(exported.variables),
        settings=about['model'],
        preprocess=exported.preprocess,
        shape=(*frames, side, side, about['channels']),
        label_names=about['label_names'],
        step=about['step'],
    )
    fps = about['fps'] if about['clip'] else None
    dataset = _open(files, trained.label_names, bool(about['clip']), fps)
    geometry = exported.geometry
    examples: Examples
    if about['clip']:
        clip = construct(Clip, about['clip'], 'clip')
        examples = EvalClips(dataset, SPLIT, geometry, clip, Views(), trained.model.cell[0])
    else:
        examples = Images(dataset, SPLIT, geometry)
    return _draw(trained, examples, len(examples), folder / _OF_FILES, layer, tokens)


def _open(files: Sequence[Path], names: Sequence[str], videos: bool, fps: int | None) -> Dataset:
    try:
        return open_files(files, names, videos=videos, fps=fps)
    except ValueError as error:
        raise UserError(f'{error}; name files that the model can take') from error


def _draw(
    trained: Trained,
    examples: Examples,
    count: int,
    stem: Path,
    layer: str | None,
    tokens: int | None,
) -> Path:
    """Draws some examples, spread evenly; the path of the picture."""
    places = (np.arange(count) * 2 + 1) * len(examples) // (2 * count)
    samples, pixels = zip(*_read(examples, places), strict=True)
    clips = to_channels(np.stack(pixels), trained.shape[-1]).reshape(count, *trained.shape)
    apply = jax.jit(partial(apply_with_maps, trained.model))
    shown = trained.preprocess(jnp.asarray(clips))
    spec = trained.settings['spec']
    try:
        logits, found = jax.device_get(apply(trained.variables, shown))
    except ValueError as error:
        raise UserError(f'{spec}: {error}') from error
    if not found:
        raise UserError(
            f'{spec} with tokenizer={trained.settings["tokenizer"]!r} has no maps to draw; use a '
            'spec with -SatK, or of X2plus1D with tl, and TokenLearner'
        )
    maps, what = choose_maps(found, layer, tokens)
    title = f'{spec} after {trained.step:,} steps: where {what} look'
    of_clips = trained.model.of_clips
    captions = [
        _caption(sample, trained.label_names, int(k), ', ' if of_clips else '\n')
        for sample, k in zip(samples, logits.argmax(-1), strict=True)
    ]
    return _write(clips, maps, captions, title, trained.model.cell, stem)


def _write(
    clips: np.ndarray,
    maps: np.ndarray,
    captions: list[str],
    title: str,
    cell: tuple[int, int, int],
    stem: Path,
) -> Path:
    """Writes the pictures; the path of that which shows most."""
    still, gif, mp4 = (stem.with_suffix(ending) for ending in ('.png', '.gif', '.mp4'))
    if clips.ndim == 4:
        draw_maps(clips, maps, captions, title=title, cell=cell).savefig(still)
        log.info('picture: %s', still)
        return still
    count = min(len(clips), max(1, _ROWS // (1 + maps.shape[2])))
    some = f'{title}; {count} of {len(clips)} clips' if count < len(clips) else title
    one = slice(count)
    draw_maps(clips[one], maps[one], captions[one], title=some, cell=cell).savefig(still)
    below = [caption.replace(', ', '\n') for caption in captions]
    frames = list(animate_maps(clips, maps, below, title=title, cell=cell))
    write_animation(frames, FPS, gif, mp4)
    log.info('pictures: %s, %s and %s', still, gif, mp4)
    return gif


def choose_maps(
    found: Mapping[Any, np.ndarray], layer: str | None, tokens: int | None
) -> tuple[np.ndarray, str]:
    """The maps that are drawn, and what is said of them.

    Args:
        found: by layer, [b, t, s, h, w].
        layer: one of them; None is the first.
        tokens: how many of s, the first ones; None is all.

    Raises:
        UserError: if there is no such layer, or not as many tokens.
    """
    maps = {str(key): value for key, value in found.items()}
    name = next(iter(maps)) if layer is None else layer
    if name not in maps:
        raise UserError(f'--layer={name} has no maps; use one of {", ".join(maps)}')
    s = maps[name].shape[2]
    if tokens is not None and not 1 <= tokens <= s:
        raise UserError(f'--tokens={tokens} of layer {name}, which has {s}; use 1 to {s}')
    which = f'the {s} tokens' if tokens in (None, s) else f'the first {tokens} of {s} tokens'
    return maps[name][:, :, :tokens], f'{which} of layer {name}'


def _read(examples: Examples, places: np.ndarray) -> Iterator[tuple[Sample, np.ndarray]]:
    """The examples at some places, and their pixels."""
    for place in places.tolist():
        name = examples.name(place)
        try:
            sample = examples.sample(place, (0,))
            name = sample.id
            pixels = np.empty(examples.shape, np.uint8)
            sample.draw(pixels)
        except Unreadable as error:
            raise UserError(
                f'example {name} cannot be read: {error}; mend the data, or name other files'
            ) from error
        yield sample, pixels


def _caption(sample: Sample, names: Sequence[str], predicted: int, between: str) -> str:
    """What an example is, and what it is taken for; the name of one without labels."""
    labels = sample.label if isinstance(sample.label, list) else [sample.label]
    known = ', '.join(names[label] for label in labels if label >= 0)
    first = f'label {known}' if known else sample.id
    return f'{first}{between}predicted {names[predicted]}'
