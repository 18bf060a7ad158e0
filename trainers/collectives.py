"""What a compiled program sends between its devices, read from its text."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')

_BYTES = {'pred': 1, 'bf16': 2}  # the others end with their bits
_START = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) .*\{$')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$')
_CALLED = re.compile(r'(?:calls|to_apply|body|branch_computations)=\{?((?:%?[\w.\-]+(?:, )?)+)')


class Traffic(NamedTuple):
    """How often a kind of transfer happens in a step, and its bytes on each device."""

    times: int
    bytes: int


class _Instruction(NamedTuple):
    name: str
    type: str
    opcode: str
    rest: str


def find_collectives(text: str) -> dict[str, Traffic]:
    """Counts the collectives of a compiled program.

    Those in a loop count as often as it runs. Bytes are those that go into the operation on one
    device; of an all-gather those that come out.

    Args:
        text: the program after compilation, as `compiled.as_text()` gives it.

    Returns:
        Kind -> traffic, for those that occur.
    """
    computations, entry = _parse(text)
    totals: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    seen = set()
    for channel, kind, size, times in _walk(computations, entry, 1):
        if channel in seen:
            continue  # one transfer behind several computations stands in each of them
        if channel is not None:
            seen.add(channel)
        totals[kind][0] += times
        totals[kind][1] += size * times
    return {kind: Traffic(*totals[kind]) for kind in KINDS if kind in totals}


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    """The instructions of each computation, and the name of the one that is run."""
    computations: dict[str, list[_Instruction]] = {}
    entry, current = '', []
    for line in text.splitlines():
        if line and not line[0].isspace() and (start := _START.match(line)):
            current = computations.setdefault(start[1], [])
            entry = start[1] if line.startswith('ENTRY') else entry
        elif instruction := _INSTRUCTION.match(line):
            current.append(_Instruction(*instruction.groups()))
    return computations, entry


def _walk(
    computations: dict[str, list[_Instruction]], name: str, times: int
) -> Iterator[tuple[str | None, str, int, int]]:
    """Channel, kind, bytes and number of runs of the collectives in a computation."""
    types = {i.name: i.type for i in computations[name]}
    for instruction in computations[name]:
        kind = instruction.opcode.removesuffix('-start')
        if kind in KINDS:
            size = _operand_bytes(instruction, types)
            if kind == 'all-gather':
                size *= _gathered(instruction, size)
            # A compiler for TPUs writes a reduce-scatter as this fusion.
            fused = kind == 'all-reduce' and 'all-reduce-scatter' in name
            channel = re.search(r'channel_id=(\d+)', instruction.rest)
            yield channel and channel[1], 'reduce-scatter' if fused else kind, size, times
            continue
        runs = times * _trip_count(instruction, computations)
        for group in _CALLED.findall(instruction.rest):
            for called in re.findall(r'[\w.\-]+', group):
                if called in computations:
                    yield from _walk(computations, called, runs)


def _operand_bytes(instruction: _Instruction, types: dict[str, str]) -> int:
    operands = instruction.rest.partition(')')[0]
    return sum(_type_bytes(types.get(name, '')) for name in re.findall(r'%([\w.\-]+)', operands))


def _gathered(instruction: _Instruction, operand: int) -> int:
    """How many devices an all-gather is over, by the size of what comes out."""
    out = _type_bytes(instruction.type)
    if instruction.opcode.endswith('-start'):
        out -= operand  # its type holds both
    return out // operand if operand else 0


def _type_bytes(text: str) -> int:
    total = 0
    for kind, shape in re.findall(r'\b([a-z]+\d*\w*)\[([\d,]*)\]', text):
        size = _BYTES.get(kind) or max(1, int((re.search(r'\d+', kind) or ['8'])[0]) // 8)
        total += size * math.prod(int(n) for n in shape.split(',') if n)
    return total


def _trip_count(instruction: _Instruction, computations: dict[str, list[_Instruction]]) -> int:
    """How often a loop runs; 1 of what is none, or whose length is not in the program."""
    if instruction.opcode != 'while':
        return 1
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', instruction.rest):
        return int(known[1])
    condition = re.search(r'condition=%?([\w.\-]+)', instruction.rest)
    limits = [
        int(value[0])
        for i in (computations[condition[1]] if condition else [])
        if i.opcode == 'constant' and (value := re.match(r'\d+', i.rest))
    ]
    return max(limits, default=1)
