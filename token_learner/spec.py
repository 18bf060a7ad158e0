"""The grammar of model specs and the table of sizes. Needs no jax.

    [ViViT-]SIZE/PATCH[xTUBELET][+EXTRA][-REDUCTION][-fuser]

SIZE is a row of `SIZES`, PATCH the side of a patch in pixels, EXTRA the blocks added after
the size's own. `ViViT-` is a model of clips, of which a patch is a tubelet of TUBELET frames:
`ViViT-L/16x2`. REDUCTION is one of

- `SatK`: S tokens a frame, made before block K (counted from 0). `L/16+11-16at12` is the
  paper's "ViT L/16, 24+11 layers, 16-TL at 12". `-fuser` repeats tokenizer, block and fuser in
  every block from K on. Token merging may take several places, `SatKatK...`.
- `poolGatK[atK...]`: average pooling with equal windows at each place, so that the last grid is
  GxG. `L/16-pool2at9at18` is the paper's "2x2 pool at 9 and 18", whose count shows that it names
  the last grid and not the window.

A bottleneck model of clips is

    X2plus1D-BACKBONE[:LAYER[_LAYER...][xN]]

BACKBONE is a row of `BACKBONES`. The LAYERs of `LAYERS` stand in the last N residual modules of
its last block, in place of a 2D and a 1D convolution: `X2plus1D-M:conv2d_tlx3` has "Conv2D +
TokenLearner" in three. Without N they stand in all that can have them: the block's first module
halves the grid in its `conv2d`, so that without one it stays as it is.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple


class Size(NamedTuple):
    """One row of the size table."""

    width: int
    layers: int
    mlp_dim: int
    heads: int


SIZES = {
    'mini': Size(64, 4, 256, 4),
    'Ti': Size(192, 12, 768, 3),
    'S': Size(384, 12, 1536, 6),
    'B': Size(768, 12, 3072, 12),
    'L': Size(1024, 24, 4096, 16),
    'H': Size(1280, 32, 5120, 16),
}


class Backbone(NamedTuple):
    """One row of the table of bottleneck models.

    Attributes:
        stem: channels of the stem.
        outer: channels between the residual modules of each block.
        inner: channels inside them.
        depths: residual modules of each block, the first of which halves the grid.
        query: channels of the queries and keys of multi-head attention, in all heads.
        heads: of multi-head attention.
        head: width of the layer before the last.
    """

    stem: int
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    depths: tuple[int, ...]
    query: int
    heads: int
    head: int


BACKBONES = {
    'mini': Backbone(8, (16, 32), (16, 48), (1, 3), 16, 8, 64),
    'M': Backbone(24, (24, 48, 96, 192), (54, 108, 216, 432), (3, 5, 11, 7), 128, 8, 2048),
}

# What stands between the two 1x1 convolutions of a residual module, see
# `token_learner.space_time`.
LAYERS = ('conv2d', 'conv1d', 'mixer', 'spatial', 'temporal', 'joint', 'tl')
PLAIN = ('conv2d', 'conv1d')

GRAMMAR = (
    'SIZE/PATCH[+EXTRA][-SatK[atK...] or -poolGatK[atK...]][-fuser] with SIZE one of '
    f'{", ".join(SIZES)}, such as B/16-8at6-fuser or L/16-pool2at9at18, and for clips '
    'ViViT-SIZE/PATCHxFRAMES..., such as ViViT-L/16x2-16at12, or '
    f'X2plus1D-BACKBONE[:LAYER[_LAYER...][xN]] with BACKBONE one of {", ".join(BACKBONES)}, such '
    'as X2plus1D-M:conv2d_tlx3'
)
_PATTERN = re.compile(
    r'(?P<video>ViViT-)?(?P<size>[A-Za-z]+)/(?P<patch>\d+)(x(?P<tubelet>\d+))?(\+(?P<extra>\d+))?'
    r'(-(?P<pool>pool)?(?P<count>\d+)(?P<at>(at\d+)+))?(?P<fuser>-fuser)?',
    re.ASCII,
)
_BOTTLENECK = re.compile(
    r'X2plus1D-(?P<backbone>[A-Za-z]+)(:(?P<layers>[a-z0-9_]+?)(x(?P<replaced>0|[1-9][0-9]*))?)?'
)


@dataclass(frozen=True)
class BottleneckSpec:
    """A parsed spec of a bottleneck model.

    Attributes:
        backbone: key of `BACKBONES`.
        layers: those of the replaced modules; `PLAIN` if none is.
        replaced: how many of the last block's modules have them, the last ones.
    """

    backbone: str
    layers: tuple[str, ...] = PLAIN
    replaced: int = 0


@dataclass(frozen=True)
class Spec:
    """A parsed spec of a ViT or ViViT.

    Attributes:
        size: key of `SIZES`.
        patch: side of a patch, pixels.
        extra: blocks added after the size's own.
        tokens: S, or None without tokens.
        pool: G, the side of the last grid, or None without pooling.
        at: the blocks before which the reduction stands, from 0; empty without one.
        fuser: whether a fuser follows each block from the reduction on.
        tubelet: frames of a patch of clips; None for images.
    """

    size: str
    patch: int
    extra: int = 0
    tokens: int | None = None
    pool: int | None = None
    at: tuple[int, ...] = ()
    fuser: bool = False
    tubelet: int | None = None

    @property
    def layers(self) -> int:
        """All blocks, the extra ones included."""
        return SIZES[self.size].layers + self.extra


def parse_spec(text: str) -> Spec | BottleneckSpec:
    """Parses a model spec such as 'B/16-8at6-fuser' or 'X2plus1D-M:tlx3'.

    Raises:
        ValueError: if the text does not follow the grammar, or names layers, tokens,
            modules or grids that cannot be.
    """
    match = _match(text)
    if match is None:
        near = _nearest(text)
        hint = f'did you mean {near}? ' if near else ''
        raise ValueError(f'{text!r} is not a model spec; {hint}write {GRAMMAR}')
    return _read(text, match)


def _read(text: str, match: re.Match[str]) -> Spec | BottleneckSpec:
    if match.re is _BOTTLENECK:
        return _read_bottleneck(text, match)
    if (match['video'] is None) != (match['tubelet'] is None):
        raise ValueError(
            f'{text!r} is half a model of clips; write both, as in ViViT-{match["size"]}/'
            f'{match["patch"]}x2, or neither'
        )
    count = None if match['count'] is None else int(match['count'])
    spec = Spec(
        size=match['size'],
        patch=int(match['patch']),
        tubelet=None if match['tubelet'] is None else int(match['tubelet']),
        extra=int(match['extra'] or 0),
        tokens=None if match['pool'] else count,
        pool=count if match['pool'] else None,
        at=tuple(int(layer) for layer in (match['at'] or '').split('at')[1:]),
        fuser=match['fuser'] is not None,
    )
    _check(text, spec)
    return spec


def _match(text: str) -> re.Match[str] | None:
    """By which of the patterns it can be read, with a size or backbone of the tables."""
    match = _BOTTLENECK.fullmatch(text)
    if match and match['backbone'] in BACKBONES:
        return match
    match = _PATTERN.fullmatch(text)
    return match if match and match['size'] in SIZES else None


def _read_bottleneck(text: str, match: re.Match[str]) -> BottleneckSpec:
    if match['layers'] is None:
        return BottleneckSpec(match['backbone'])
    layers = tuple(match['layers'].split('_'))
    if unknown := [layer for layer in layers if layer not in LAYERS]:
        raise ValueError(
            f'{text!r} has no layer {unknown[0]!r} to offer; use some of {", ".join(LAYERS)}, '
            'joined by _'
        )
    if 'conv2d' in layers[1:] or len({*layers}) < len(layers):
        raise ValueError(f'{text!r} has a layer twice or conv2d not first; write each layer once')
    modules = BACKBONES[match['backbone']].depths[-1]
    most = modules if layers[0] == 'conv2d' else modules - 1
    replaced = most if match['replaced'] is None else int(match['replaced'])
    if replaced > modules:
        raise ValueError(
            f'{text!r} replaces {replaced} modules, but the last block has {modules}; use '
            f'1 to {most}'
        )
    if replaced > most:
        raise ValueError(
            f'{text!r} replaces the module that halves the grid, which {match["layers"]} cannot; '
            f'use 1 to {most}, or put conv2d_ before'
        )
    if replaced < 1:
        raise ValueError(
            f'{text!r} replaces no module; use 1 to {most}, or leave {match["layers"]} out'
        )
    if layers == PLAIN:
        return BottleneckSpec(match['backbone'])
    return BottleneckSpec(match['backbone'], layers, replaced)


def _nearest(text: str) -> str | None:
    """What is a spec with names as in the tables, or with one mark put right besides.

    Raises:
        ValueError: if it follows the grammar with such names, but is none all the same.
    """
    if len(text) > 100:
        return None
    names = {name.lower(): name for name in ('ViViT', 'X2plus1D', *SIZES, *BACKBONES)}
    words = re.split('([A-Za-z]+2plus1[A-Za-z]+|[A-Za-z]+)', re.sub('(?i)^vit-', '', text))
    cased = ''.join(names.get(word.lower(), word) for word in words)
    if match := _match(cased):
        _read(cased, match)
        return cased
    for near in _mended(cased):
        if match := _match(near):
            with suppress(ValueError):
                _read(near, match)
                return near
    return None


def _mended(text: str) -> Iterator[str]:
    """Texts with a mark more, or another one; numbers stay whole."""
    for mark in ('/', '-', 'at', ':'):
        for i in range(len(text), -1, -1):
            before, here = text[i - 1 : i], text[i : i + 1]
            if not (before.isdigit() and here.isdigit()):
                yield text[:i] + mark + text[i:]
            if not here.isalnum():
                yield text[:i] + mark + text[i + 1 :]


def _check(text: str, spec: Spec) -> None:
    if spec.patch < 1:
        raise ValueError(f'{text!r} has a patch of {spec.patch} pixels; use 1 or more')
    if spec.tubelet is not None and spec.tubelet < 1:
        raise ValueError(f'{text!r} has tubelets of {spec.tubelet} frames; use 1 or more')
    if spec.tokens is not None and spec.tokens < 1:
        raise ValueError(f'{text!r} asks for {spec.tokens} tokens; use 1 or more')
    if spec.pool is not None and spec.pool < 1:
        raise ValueError(f'{text!r} pools to a {spec.pool}x{spec.pool} grid; use 1 or more')
    for layer in spec.at:
        if layer >= spec.layers:
            raise ValueError(
                f'{text!r} reduces at layer {layer}, but the model has {spec.layers}; '
                f'use 0 to {spec.layers - 1}'
            )
    if any(a >= b for a, b in pairwise(spec.at)):
        raise ValueError(f'{text!r} does not name its places in order; write each once, rising')
    if spec.fuser and spec.pool is not None:
        raise ValueError(
            f'{text!r} has a fuser after spatial pooling, which keeps a grid and makes no tokens '
            'to fuse; leave out -fuser, or write -SatK'
        )
    if spec.fuser and spec.tokens is None:
        raise ValueError(f'{text!r} has a fuser but no tokens to fuse; write -SatK before -fuser')
    if spec.fuser and len(spec.at) > 1:
        raise ValueError(
            f'{text!r} has a fuser and several places; a fuser repeats the tokenizer by itself, '
            'name its first block only'
        )
