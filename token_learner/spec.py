"""The grammar of model specs and the table of sizes. Needs no jax.

    SIZE/PATCH[+EXTRA][-SatK][-fuser]

SIZE is a row of `SIZES`, PATCH the side of a patch in pixels, EXTRA the blocks added after
the size's own, S the tokens that TokenLearner makes before block K (counted from 0), and
`-fuser` repeats tokenizer, block and fuser in every block from K on. `L/16+11-16at12` is
the paper's "ViT L/16, 24+11 layers, 16-TL at 12".
"""

import re
from dataclasses import dataclass
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

GRAMMAR = f'SIZE/PATCH[+EXTRA][-SatK][-fuser] with SIZE one of {", ".join(SIZES)}'
_PATTERN = re.compile(
    r'(?P<size>[A-Za-z]+)/(?P<patch>\d+)(\+(?P<extra>\d+))?'
    r'(-(?P<tokens>\d+)at(?P<at>\d+))?(?P<fuser>-fuser)?'
)


@dataclass(frozen=True)
class Spec:
    """A parsed model spec.

    Attributes:
        size: key of `SIZES`.
        patch: side of a patch, pixels.
        extra: blocks added after the size's own.
        tokens: S, or None without TokenLearner.
        at: the block before which TokenLearner stands, from 0; None without it.
        fuser: whether TokenFuser follows each block from `at` on.
    """

    size: str
    patch: int
    extra: int = 0
    tokens: int | None = None
    at: int | None = None
    fuser: bool = False

    @property
    def layers(self) -> int:
        """All blocks, the extra ones included."""
        return SIZES[self.size].layers + self.extra


def parse_spec(text: str) -> Spec:
    """Parses a model spec such as 'B/16-8at6-fuser'.

    Raises:
        ValueError: if the text does not follow the grammar, or names layers or tokens
            that cannot be.
    """
    match = _PATTERN.fullmatch(text)
    if not match or match['size'] not in SIZES:
        raise ValueError(f'{text!r} is not a model spec; write {GRAMMAR}, such as B/16-8at6-fuser')
    spec = Spec(
        size=match['size'],
        patch=int(match['patch']),
        extra=int(match['extra'] or 0),
        tokens=None if match['tokens'] is None else int(match['tokens']),
        at=None if match['at'] is None else int(match['at']),
        fuser=match['fuser'] is not None,
    )
    if spec.patch < 1:
        raise ValueError(f'{text!r} has a patch of {spec.patch} pixels; use 1 or more')
    if spec.tokens is not None and spec.tokens < 1:
        raise ValueError(f'{text!r} asks for {spec.tokens} tokens; use 1 or more')
    if spec.at is not None and spec.at >= spec.layers:
        raise ValueError(
            f'{text!r} puts TokenLearner at layer {spec.at}, but the model has {spec.layers}; '
            f'use 0 to {spec.layers - 1}'
        )
    if spec.fuser and spec.tokens is None:
        raise ValueError(f'{text!r} has a fuser but no tokens to fuse; write -SatK before -fuser')
    return spec
