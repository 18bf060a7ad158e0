"""A trained model as files that need less than this code base, or nothing of it."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from datasets.geometry import GEOMETRIES, Geometry
from token_learner.build import Model, build_model, replace_settings
from token_learner.pretrained import to_augreg, to_huggingface, write_huggingface
from token_learner.variables import flatten_variables, unflatten_variables
from token_learner.vit import ViT
from trainers.augment import Preprocess
from trainers.checkpoints import restore_trained
from trainers.construct import UserError, construct_named
from trainers.experiment import Experiment

log = logging.getLogger(__name__)

PLATFORMS = ('cpu', 'cuda', 'tpu')


class Exported(NamedTuple):
    """What model.safetensors holds.

    Attributes:
        variables: path -> array, float32; see `token_learner.variables`.
        about: the model's settings (`model`), `label_names`, `resolution`, `channels`, `mean`,
            `std`, `clip`, `fps` (of videos) and `eval_geometry`, as in the config, `loss`, which is
            `Experiment.output_activation`, and the `step`.
    """

    variables: dict[str, np.ndarray]
    about: dict[str, Any]

    @property
    def model(self) -> Model:
        """Built anew, without scan."""
        return build_model(self.about['model'], len(self.about['label_names']))

    @property
    def preprocess(self) -> Preprocess:
        """From uint8 to the model's input."""
        return Preprocess(tuple(self.about['mean']), tuple(self.about['std']))

    @property
    def geometry(self) -> Geometry:
        """Which part of an image or of frames it is evaluated on."""
        settings, side = self.about['eval_geometry'], self.about['resolution']
        return construct_named(GEOMETRIES, settings, 'eval_geometry', size=side)


def export(experiment: Experiment, workdir: Path) -> Path:
    """Writes workdir/export from the newest checkpoint; averaged parameters where there are.

    - model.safetensors: the parameters and running statistics, and in its metadata what
      `Exported.about` says.
    - program.jax_export: from those and images [b, resolution, resolution, channels], or clips
      [b, t, ...], uint8 to logits [b, classes] float32, for any b, on CPU, GPU and TPU. The
      resolution is that of evaluation. `jax.export` runs it.
    - labels.txt: the classes.
    - augreg.npz and huggingface/, of models of images that those code bases have.

    Returns:
        The folder.

    Raises:
        UserError: if there is no checkpoint.
    """
    state = restore_trained(workdir, experiment)
    variables = jax.device_get(state.variables)
    flat = {path: np.asarray(x) for path, x in flatten_variables(variables).items()}
    settings = experiment.model_settings
    approximate = ('vector_attention', 'chebyshev') in settings.items()
    settings = replace_settings(
        settings,
        attention='xla',
        vector_attention='chebyshev' if approximate else 'blockwise',
        remat='none',
        scan=False,
    )
    data, config = experiment.data, experiment.config
    about = {
        'model': settings,
        'resolution': data.eval_resolution,
        'channels': data.dataset.channels,
        'mean': data.mean,
        'std': data.std,
        'clip': config['clip'],
        'fps': data.dataset.fps,
        'eval_geometry': config['eval_geometry'],
        'loss': experiment.output_activation,
        'step': int(state.step),
        'label_names': data.dataset.label_names,
    }
    folder, draft = workdir / 'export', workdir / 'export.tmp'
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    metadata = {'format': 'token_learner', 'about': json.dumps(about)}
    save_file(flat, draft / 'model.safetensors', metadata=metadata)
    (draft / 'labels.txt').write_text('\n'.join(data.dataset.label_names) + '\n', encoding='utf-8')
    exported = Exported(flat, about)
    program, model = make_program(exported, experiment.eval_input_shape), exported.model
    (draft / 'program.jax_export').write_bytes(program)
    if isinstance(model, ViT) and not model.of_clips:
        _export_for_others(variables['params'], model, about, draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    log.info('export: %s', folder)
    return folder


def _export_for_others(params: Any, model: ViT, about: dict[str, Any], folder: Path) -> None:
    try:
        arrays: dict[str, Any] = {**to_augreg(params, model)}
        np.savez(folder / 'augreg.npz', **arrays)
    except ValueError as error:
        log.info('export without augreg.npz, which others could load: %s', error)
    try:
        theirs, config = to_huggingface(params, model, about['resolution'])
    except ValueError as error:
        log.info('export without huggingface/, which others could load: %s', error)
        return
    names = dict(enumerate(about['label_names']))
    config |= {'id2label': names, 'label2id': {name: number for number, name in names.items()}}
    write_huggingface(folder / 'huggingface', theirs, config)
    channels, side = about['channels'], about['resolution']
    processor = {
        'image_processor_type': 'ViTImageProcessor',
        'size': {'height': side, 'width': side},
        'image_mean': list(about['mean']) * (channels if len(about['mean']) == 1 else 1),
        'image_std': list(about['std']) * (channels if len(about['std']) == 1 else 1),
    }
    text = json.dumps(processor, indent=2)
    (folder / 'huggingface' / 'preprocessor_config.json').write_text(text + '\n')


def make_program(exported: Exported, shape: tuple[int, ...]) -> bytes:
    """The serialised program from variables and images, or clips, of this shape to logits."""
    (batch,) = jax_export.symbolic_shape('b')
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.uint8)
    shapes = {
        path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in exported.variables.items()
    }
    predict = jax.jit(predictor(exported))
    return bytes(jax_export.export(predict, platforms=PLATFORMS)(shapes, images).serialize())


def predictor(exported: Exported) -> Any:
    """A function from variables by path and images [b, h, w, channels], or clips, to logits."""
    model, preprocess = exported.model, exported.preprocess

    def predict(flat: dict[str, jax.Array], images: jax.Array) -> jax.Array:
        logits: Any = model.apply(unflatten_variables(flat), preprocess(images))
        return logits.astype(jnp.float32)

    return predict


def read_export(path: Path) -> Exported:
    """Reads a model.safetensors that `export` wrote.

    Raises:
        UserError: if it is none.
    """
    try:
        with safe_open(path, framework='numpy') as file:
            metadata = file.metadata() or {}
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f'{path} cannot be read ({error}); name a model.safetensors') from error
    if metadata.get('format') != 'token_learner':
        raise UserError(
            f'{path} was not exported here; convert it by training from it (config.init_from), or '
            'name a model.safetensors of --mode=export'
        )
    exported = Exported(flat, json.loads(metadata['about']))
    try:
        _ = exported.model
    except (TypeError, ValueError) as error:
        raise UserError(f'{path}: its model cannot be built ({error})') from error
    return exported
