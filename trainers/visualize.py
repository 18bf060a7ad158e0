"""Pictures of where each token looks: of images a PNG, of clips an animated GIF."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure

from datasets.dataset import Unreadable
from datasets.examples import Sample
from token_learner.layers import without_scan
from token_learner.maps import apply_with_maps
from trainers.checkpoints import restore_trained
from trainers.construct import UserError
from trainers.evaluators import Evaluators
from trainers.experiment import Experiment

log = logging.getLogger(__name__)

GIF_FPS = 6


def visualize(
    experiment: Experiment, evaluators: Evaluators, workdir: Path, count: int | None = None
) -> Path:
    """Draws attention_maps.png, of videos attention_maps.gif: some examples and their maps.

    Args:
        experiment: of the model.
        evaluators: the first one's split is drawn from.
        workdir: of the checkpoint; the picture is written there too.
        count: images (by default 10) or videos (8), spread evenly over the split; of a video the
            clip in the middle.

    Returns:
        The picture's path.

    Raises:
        UserError: if there is no checkpoint, the model has no TokenLearner, or one of the examples
            cannot be read.
    """
    state = restore_trained(workdir, experiment)
    examples = experiment.eval_examples(experiment.data.dataset, evaluators.first.split)
    count = min(count or (10 if experiment.clip is None else 8), len(examples))
    rows = (np.arange(count) * 2 + 1) * len(examples) // (2 * count)
    try:
        samples = [examples.sample(int(i), (0,)) for i in rows]
        pixels = np.stack([draw(sample, examples.shape) for sample in samples])
    except Unreadable as error:
        raise UserError(f'an example cannot be read: {error}; mend the data') from error

    pixels = pixels.reshape(count, *experiment.eval_input_shape)
    apply = jax.jit(partial(apply_with_maps, without_scan(experiment.model)))
    shown = experiment.preprocess(jnp.asarray(pixels))
    logits, maps = jax.device_get(apply(state.variables, shown))
    if not maps:
        spec, tokenizer = (experiment.model_settings[k] for k in ('spec', 'tokenizer'))
        raise UserError(
            f'{spec} with tokenizer={tokenizer!r} has no maps to draw; use a spec with -SatK, or '
            'of X2plus1D with tl, and TokenLearner'
        )
    layer, first = next(iter(maps.items()))
    names = experiment.data.dataset.label_names
    captions = [
        f'label {", ".join(names[i] for i in labels_of(sample))}\npredicted {names[k]}'
        for sample, k in zip(samples, logits.argmax(-1), strict=True)
    ]
    clips = pixels if experiment.clip is not None else pixels[:, None]
    covered = first.shape[-1] * experiment.model.cell[-1]
    figure, show = draw_maps(clips, first, captions, covered)
    figure.suptitle(
        f'{experiment.model_settings["spec"]} after {int(state.step)} steps: '
        f'where the tokens of layer {layer} look'
    )
    if experiment.clip is None:
        path = workdir / 'attention_maps.png'
        figure.savefig(path, dpi=100)
    else:
        path = workdir / 'attention_maps.gif'
        animation = FuncAnimation(figure, show, frames=clips.shape[1])
        animation.save(path, PillowWriter(fps=GIF_FPS), dpi=60)
    log.info('picture: %s', path)
    return path


def draw_maps(
    clips: np.ndarray, maps: np.ndarray, captions: list[str], covered: int
) -> tuple[Figure, Callable[[int], Sequence[Any]]]:
    """One row an example: the image, then each token's map over it.

    Each map is scaled to its own range, of a clip that over all times, and stretched over the
    pixels.

    Args:
        clips: [b, T, H, W, channels] uint8, one or three channels; T is 1 for images.
        maps: [b, t, s, h, w], t of them spread over the T frames.
        captions: b texts.
        covered: of each side what the maps cover, from the upper left corner, pixels.

    Returns:
        The figure, of the first frame, and a function that shows another one.
    """
    (b, frames, height, width, _), (times, s) = clips.shape, maps.shape[1:3]
    low, high = (edge(maps, axis=(1, 3, 4), keepdims=True) for edge in (np.min, np.max))
    scaled = (maps - low) / np.maximum(high - low, 1e-12)
    colors, grey = clips.squeeze(-1) if clips.shape[-1] == 1 else clips, clips.mean(axis=-1)
    figure = Figure(figsize=(1.15 * (s + 1) + 2, 1.2 * b + 0.7), layout='constrained')
    axes = figure.subplots(b, s + 1, squeeze=False)
    shown: list[tuple[Any, np.ndarray]] = []  # pictures, and of each its frames
    for i in range(b):
        for j, axis in enumerate(axes[i]):
            picture = (grey if j else colors)[i]
            extent = (0, width, height, 0)
            shown.append(
                (axis.imshow(picture[0], cmap='gray', vmin=0, vmax=255, extent=extent), picture)
            )
            if j:
                heat = axis.imshow(
                    scaled[i, 0, j - 1],
                    cmap='inferno',
                    vmin=0,
                    vmax=1,
                    alpha=0.65,
                    extent=(0, covered, covered, 0),
                    interpolation='bilinear',
                )
                shown.append((heat, np.repeat(scaled[i, :, j - 1], frames // times, axis=0)))
            axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
            if i == 0:
                axis.set_title(f'token {j}' if j else 'input', fontsize=9)
        axes[i, 0].set_ylabel(
            captions[i], rotation=0, ha='right', va='center', fontsize=9, labelpad=6
        )
    bar = figure.colorbar(heat, ax=axes, shrink=0.5, pad=0.01, aspect=40, ticks=[0, 1])
    bar.ax.set_yticklabels(['least', 'most'])
    bar.set_label('weight of a position, each map on a scale of its own', fontsize=9)

    def show(frame: int) -> Sequence[Any]:
        for artist, pictures in shown:
            artist.set_data(pictures[frame])
        return [artist for artist, _ in shown]

    return figure, show


def draw(sample: Sample, shape: tuple[int, ...]) -> np.ndarray:
    """The pixels of a sample, uint8."""
    pixels = np.empty(shape, np.uint8)
    sample.draw(pixels)
    return pixels


def labels_of(sample: Sample) -> list[int]:
    """The labels of a sample, of which -1 is none."""
    labels = sample.label if isinstance(sample.label, list) else [sample.label]
    return [label for label in labels if label >= 0]
