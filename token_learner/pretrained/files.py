"""Files of other code bases."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from token_learner.pretrained.names import OURS


def read(path: str | Path) -> tuple[dict[str, np.ndarray], str]:
    """Reads the parameters in a file, and tells from their names where they come from.

    Args:
        path: a .npz file, of which pickled arrays are refused; a .safetensors file; or a folder
            of Hugging Face with a model.safetensors in it.

    Returns:
        Path -> array and the source, as `rename` and `convert` take them. Of the variables of a
        Flax model only those below 'params/', and a bare ViTModel's or VivitModel's as a
        classifier has them.

    Raises:
        ValueError: if the file cannot be read, or the names are of no known source.
        ModuleNotFoundError: for a .safetensors file, if the package safetensors is not installed.
    """
    path = Path(path)
    file = path / 'model.safetensors' if path.is_dir() else path
    if file.suffix not in ('.npz', '.safetensors'):
        raise ValueError(f'{path} is no .npz, no .safetensors and no folder; give one of these')
    try:
        flat = _read_npz(file) if file.suffix == '.npz' else _read_safetensors(file)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        line = ' '.join(str(error).split())
        raise ValueError(f'{file} cannot be read ({line}); get the file anew') from error
    if any(name.startswith('params/') for name in flat):
        flat = {k.removeprefix('params/'): v for k, v in flat.items() if k.startswith('params/')}
    if 'embeddings.cls_token' in flat:
        kernel = flat.get('embeddings.patch_embeddings.projection.weight')
        root = 'vivit' if kernel is not None and kernel.ndim == 5 else 'vit'
        flat = {f'{root}.{name}': array for name, array in flat.items()}
    return flat, _source(flat, file)


def write_huggingface(
    folder: str | Path, flat: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> None:
    """Writes what `to_huggingface` returns as a folder that transformers opens."""
    from safetensors.numpy import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
    save_file(dict(flat), folder / 'model.safetensors', metadata={'format': 'pt'})


def _source(flat: Mapping[str, np.ndarray], file: Path) -> str:
    if flat.keys() & {'vit.embeddings.cls_token', 'vivit.embeddings.cls_token'}:
        return 'huggingface'
    if 'Transformer/posembed_input/pos_embedding' in flat:
        return 'scenic' if 'output_projection/kernel' in flat else 'augreg'
    if 'position_embedding' in flat:
        return OURS
    some = ', '.join(sorted(flat)[:3]) or 'nothing'
    raise ValueError(
        f'{file} holds {some}, ...: no Vision Transformer of scenic, augreg or huggingface; '
        'use another file'
    )


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    # numpy alone would take a pickle for one, and a .npy.
    with zipfile.ZipFile(file), np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{file} is read with the package safetensors; pip install safetensors'
        ) from error
    try:
        return load_file(file)
    except (SafetensorError, TypeError) as error:  # the latter for types that numpy has not
        raise ValueError(str(error)) from error
