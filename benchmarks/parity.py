"""Compares our modules with recorded outputs of other implementations.

    python -m benchmarks.parity FOLDER

A case is one of

- Scenic's: NAME.npz with parameters (`params/...`), inputs (`input/...`), the output and `meta`:
  the class and constructor arguments that made it;
- vision_transformer's: a checkpoint NAME.npz, and NAME_io.npz with `images` and `logits`;
- Hugging Face's: a folder with config.json, model.safetensors, and io.npz with `pixel_values`, the
  channels before height and width, and `logits`.

The parameters are converted by `token_learner.pretrained.convert`, our module is applied, and the
largest absolute error is printed. Exit status 1 if an error is above what `FAMILIES` allows, a part
of the output's largest magnitude.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from token_learner import TokenFuser, TokenLearner, TokenLearnerV11, ViT, ViViT
from token_learner.encoder import Factory
from token_learner.pretrained import HUGGINGFACE_GELUS, convert, read

IO = '_io.npz'
AUGREG_HEADS = 4  # the files do not say

Arrays = Mapping[str, Any]
Run = Callable[[Path], tuple[np.ndarray, np.ndarray]]


def make_token_learner(args: Mapping[str, Any], name: str | None = None) -> nn.Module:
    pooling = 'sum' if args.get('use_sum_pooling', True) else 'mean'
    return TokenLearner(args['num_tokens'], pooling=pooling, name=name)


def make_token_learner_v11(args: Mapping[str, Any], name: str | None = None) -> nn.Module:
    hidden = args.get('bottleneck_dim', 64)
    return TokenLearnerV11(args['num_tokens'], hidden=hidden, name=name)


def make_token_fuser(args: Mapping[str, Any], name: str | None = None) -> nn.Module:
    norm = 'full' if args.get('use_normalization', True) else 'grid'
    return TokenFuser(beta='mlp', hidden=args.get('bottleneck_dim', 64), norm=norm, name=name)


def make_vit(args: Mapping[str, Any]) -> nn.Module:
    """Our ViT, or of clips ViViT, for the arguments of Scenic's TokenLearnerViT."""
    if args['classifier'] != 'gap':
        raise ValueError(f'classifier {args["classifier"]!r} has no counterpart here')
    tokenizer = args['tokenizer']
    make: Callable[..., ViT] = ViT
    patch = tuple(tokenizer['patches']['size'])
    if tokenizer['type'] == 'video':
        method = tokenizer['temporal_encoding_config']['method']
        if method != '3d_conv':
            raise ValueError(f'temporal encoding {method!r} has no counterpart here')
        make, patch = ViViT, (patch[2], *patch[:2])
    v11 = tokenizer.get('use_v11', True)
    make_tokenizer = make_token_learner_v11 if v11 else make_token_learner
    reductions: tuple[tuple[int, Factory], ...] = ()
    fuser: Factory | None = None
    if tokenizer['type'] in ('dynamic', 'video'):
        reductions = ((tokenizer['tokenlearner_loc'], partial(make_tokenizer, tokenizer)),)
        fuser = partial(make_token_fuser, {}) if tokenizer['use_tokenfuse'] else None
    return make(
        num_classes=args['num_classes'],
        patch=patch,
        width=args['hidden_size'],
        layers=args['num_layers'],
        heads=args['num_heads'],
        mlp_dim=args['mlp_dim'],
        reductions=reductions,
        fuser=fuser,
        representation=args.get('representation_size'),
    )


MAKE = {
    'TokenLearnerModule': make_token_learner,
    'TokenLearnerModuleV11': make_token_learner_v11,
    'TokenFuser': make_token_fuser,
    'TokenLearnerViT': make_vit,
}


def as_grid(x: jax.Array) -> jax.Array:
    """[b, h*w, c] as a grid [b, h, w, c]; Scenic takes both.

    Positions that make no square make a column: only v1.0 looks at neighbours, and Scenic's
    takes squares only.
    """
    if x.ndim != 3:
        return x
    b, positions, c = x.shape
    side = math.isqrt(positions)
    return x.reshape(b, side, side, c) if side**2 == positions else x[:, :, None]


def apply(model: nn.Module, params: Any, inputs: Arrays) -> np.ndarray:
    """Our output in the shape and meaning of the recorded one."""
    if isinstance(model, TokenFuser):
        # Recorded before the residual is added, and with the positions in one axis.
        grid = as_grid(inputs['original'])
        out = model.apply({'params': params}, inputs['tokens'], grid) - grid
        return np.asarray(out).reshape(inputs['original'].shape)
    (x,) = inputs.values()
    return np.asarray(
        jax.jit(model.apply)({'params': params}, x if isinstance(model, ViT) else as_grid(x))
    )


def below(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def run_scenic(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Our output of a case, and the recorded one."""
    arrays = load(path)
    meta = json.loads(str(arrays['meta']))
    if meta['module'] not in MAKE:
        raise ValueError(f'module {meta["module"]} has no counterpart here')
    model = MAKE[meta['module']](meta['args'])
    params = convert(below(arrays, 'params/'), source='scenic', model=model)
    with jax.default_matmul_precision('highest'):
        ours = apply(model, params, jax.tree.map(jnp.asarray, below(arrays, 'input/')))
    expected = arrays['output']
    return ours, expected.reshape(ours.shape) if expected.size == ours.size else expected


def run_augreg(path: Path) -> tuple[np.ndarray, np.ndarray]:
    flat, source = read(path)
    kernel = flat['embedding/kernel']
    model = ViT(
        num_classes=flat['head/bias'].size,
        patch=kernel.shape[:2],
        width=kernel.shape[-1],
        layers=sum(name.endswith('LayerNorm_0/scale') for name in flat),
        heads=AUGREG_HEADS,
        mlp_dim=next(x.size for name, x in flat.items() if name.endswith('Dense_0/bias')),
        head='token' if 'cls' in flat else 'gap',
        representation=flat['pre_logits/bias'].size if 'pre_logits/bias' in flat else None,
    )
    case = load(path.with_name(f'{path.stem}{IO}'))
    return run_vit(model, convert(flat, source=source, model=model), case['images'], case['logits'])


def run_huggingface(path: Path) -> tuple[np.ndarray, np.ndarray]:
    flat, source = read(path)
    config = json.loads((path / 'config.json').read_text())
    of_clips = config['model_type'] == 'vivit'
    make: Callable[..., ViT] = ViViT if of_clips else ViT
    model = make(
        num_classes=flat['classifier.bias'].size,
        patch=tuple(config['tubelet_size']) if of_clips else (config['patch_size'],) * 2,
        width=config['hidden_size'],
        layers=config['num_hidden_layers'],
        heads=config['num_attention_heads'],
        mlp_dim=config['intermediate_size'],
        head='token',
        gelu=HUGGINGFACE_GELUS[config['hidden_act']],
    )
    case = load(path / 'io.npz')
    images = np.moveaxis(case['pixel_values'], -3, -1)
    return run_vit(model, convert(flat, source=source, model=model), images, case['logits'])


def run_vit(
    model: ViT, params: Any, images: np.ndarray, logits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    with jax.default_matmul_precision('highest'):
        return np.asarray(jax.jit(model.apply)({'params': params}, jnp.asarray(images))), logits


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


# The beginning of a name, what runs the case, and the error allowed: Hugging Face's LayerNorm adds
# 1e-12 to the variance, ours 1e-6.
FAMILIES: dict[str, tuple[Run, float]] = {
    'token_learner_': (run_scenic, 1e-5),
    'token_fuser': (run_scenic, 1e-5),
    'vit_': (run_scenic, 1e-5),
    'vivit_': (run_scenic, 1e-5),
    'augreg_vit_': (run_augreg, 1e-5),
    'hf_vit': (run_huggingface, 1e-4),
    'hf_vivit': (run_huggingface, 1e-4),
}


def measure(path: Path, run: Run) -> tuple[float, float]:
    """The largest absolute error of a case, and the output's largest magnitude."""
    ours, expected = run(path)
    if ours.shape != expected.shape:
        raise ValueError(f'output is {ours.shape}, recorded {expected.shape}')
    return float(np.abs(ours - expected).max()), float(np.abs(expected).max())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path)
    folder = parser.parse_args(argv).folder
    names = sorted(p.name for p in folder.glob('*') if p.suffix == '.npz' or p.is_dir())
    names = [name for name in names if not name.endswith(IO)]
    if not names:
        print(f'error: {folder} holds no cases; name a folder of cases', file=sys.stderr)
        return 2
    failed = compared = 0
    for name in names:
        family = next((start for start in FAMILIES if name.startswith(start)), None)
        if family is None:
            print(f'{name:32} skipped: no known family begins so')
            continue
        compared += 1
        run, tolerance = FAMILIES[family]
        try:
            error, scale = measure(folder / name, run)
        except (ValueError, KeyError, OSError, BadZipFile, FlaxError) as problem:
            print(f'{name:32} FAILED: {problem}')
            failed += 1
            continue
        good = error <= tolerance * scale
        failed += not good
        print(f'{name:32} max error {error:.2e}  of {scale:.3g}  {"ok" if good else "FAILED"}')
    print(f'{compared} compared, {failed} failed, {len(names) - compared} skipped')
    return 1 if failed or not compared else 0


if __name__ == '__main__':
    sys.exit(main())
