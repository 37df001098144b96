"""Damages a stream where it hurts: lengths, counts, types, order, frame lists, headers.

Random bytes are refused at the first header and test nothing after it. ``damage()`` changes one
thing in an otherwise right stream, chosen by a seed: the same parts and seed give the same bytes.
Some damage leaves a right stream (a flipped bit of a page's contents, PAGE_DATA sent twice), so
that the thing to assert is: it is restored or it is a StreamError, and never anything else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from libxlsr.formats import libxc, libxl
from libxlsr.testing.parts import Part, join

_LENGTHS = (
    0,
    1,
    4,
    7,
    8,
    9,
    128 << 20,
    (128 << 20) + 1,
    0x7FFFFFFF,
    0xFFFFFFF8,
    0xFFFFFFF9,
    2**32 - 1,
)
_COUNTS = (0, 1, 2, 1023, 1025, 0xFFFF, 0x00FFFFFF, 0x1FFFFFFF, 0x20000000, 2**32 - 1)


@dataclass(frozen=True)
class Damaged:
    """A damaged stream, and what was done to it in words."""

    data: bytes
    what: str


def damage(parts: Sequence[Part], seed: int) -> Damaged:
    """``parts`` with one thing wrong. They are left as they are."""
    choose = random.Random(seed)
    copies = [replace(part) for part in parts]
    kinds = list(_KINDS)
    choose.shuffle(kinds)
    for kind in kinds:
        damaged = kind(copies, choose)
        if damaged is not None:
            return damaged
    raise ValueError("nothing to damage in an empty stream")


def _records(parts: list[Part]) -> list[Part]:
    return [part for part in parts if part.type is not None]


def _lie_about_length(parts: list[Part], choose: random.Random) -> Damaged | None:
    records = _records(parts)
    if not records:
        return None
    part = choose.choice(records)
    true_length = len(part.body)
    near = [true_length + step for step in (-4096, -8, -1, 1, 8, 4096) if true_length + step >= 0]
    part.length = choose.choice([*_LENGTHS, *near])
    return Damaged(join(parts), f"{part.name} says it is {part.length:#x} bytes long")


def _change_type(parts: list[Part], choose: random.Random) -> Damaged | None:
    records = _records(parts)
    if not records:
        return None
    part = choose.choice(records)
    known = libxl.RecordType if part.layer == "libxl" else libxc.RecordType
    part.type = choose.choice([*map(int, known), max(known) + 1, 0x7FFFFFFF, 2**31, 2**32 - 1])
    return Damaged(join(parts), f"{part.name} has type {part.type:#x}")


def _drop(parts: list[Part], choose: random.Random) -> Damaged | None:
    if not parts:
        return None
    part = parts.pop(choose.randrange(len(parts)))
    return Damaged(join(parts), f"{part.name} is left out")


def _duplicate(parts: list[Part], choose: random.Random) -> Damaged | None:
    if not parts:
        return None
    index = choose.randrange(len(parts))
    parts.insert(index, parts[index])
    return Damaged(join(parts), f"{parts[index].name} comes twice")


def _swap(parts: list[Part], choose: random.Random) -> Damaged | None:
    if len(parts) < 2:
        return None
    one, other = choose.sample(range(len(parts)), 2)
    parts[one], parts[other] = parts[other], parts[one]
    return Damaged(join(parts), f"{parts[one].name} and {parts[other].name} change places")


def _truncate(parts: list[Part], choose: random.Random) -> Damaged | None:
    """Near the beginning or the end of a part, where readers go wrong."""
    if not parts:
        return None
    index = choose.randrange(len(parts))
    part = parts[index]
    before = join(parts[:index])
    own = join([part])
    kept = min(choose.choice([0, 1, 4, 7, 8, 9, 12, max(len(own) - 1, 0), len(own) // 2]), len(own))
    return Damaged(before + own[:kept], f"cut after {kept} bytes of {part.name}")


def _soil_padding(parts: list[Part], choose: random.Random) -> Damaged | None:
    records = [part for part in _records(parts) if len(part.body) % 8]
    if not records:
        return None
    part = choose.choice(records)
    padding = bytearray(-len(part.body) % 8)
    padding[choose.randrange(len(padding))] = choose.randrange(1, 256)
    part.padding = bytes(padding)
    return Damaged(join(parts), f"{part.name} has padding {part.padding.hex()}")


def _flip_bit(parts: list[Part], choose: random.Random) -> Damaged | None:
    """In a header or the first bytes of a record, where the fields are."""
    if not parts:
        return None
    index = choose.randrange(len(parts))
    own = bytearray(join([parts[index]]))
    if not own:
        return None
    bit = choose.randrange(8 * min(len(own), 64))
    own[bit // 8] ^= 1 << bit % 8
    data = join(parts[:index]) + bytes(own) + join(parts[index + 1 :])
    return Damaged(data, f"bit {bit % 8} of byte {bit // 8} of {parts[index].name} is flipped")


def _flip_bit_of_state(parts: list[Part], choose: random.Random) -> Damaged | None:
    """Anywhere in what is neither a header nor memory: configuration, registers, policies."""
    state = [part for part in parts if part.body and not part.is_page_data]
    if not state:
        return None
    part = choose.choice(state)
    body = bytearray(part.body_bytes())
    bit = choose.randrange(8 * len(body))
    body[bit // 8] ^= 1 << bit % 8
    part.body = bytes(body)
    return Damaged(
        join(parts), f"bit {bit % 8} of byte {bit // 8} of {part.name}'s body is flipped"
    )


def _change_count(parts: list[Part], choose: random.Random) -> Damaged | None:
    return _change_frame_list(parts, choose, count=True)


def _flip_bit_of_frame(parts: list[Part], choose: random.Random) -> Damaged | None:
    return _change_frame_list(parts, choose, count=False)


def _change_frame_list(parts: list[Part], choose: random.Random, *, count: bool) -> Damaged | None:
    batches = [part for part in parts if part.is_page_data and len(part.body) >= 16]
    if not batches:
        return None
    part = choose.choice(batches)
    body = bytearray(part.body_bytes())
    true_count = int.from_bytes(body[:4], "little")
    if count:
        value = choose.choice([*_COUNTS, true_count - 1, true_count + 1]) & 0xFFFFFFFF
        body[:4] = value.to_bytes(4, "little")
        what = f"{part.name} says it has {value} frames"
    else:
        entries = max(min(true_count, (len(body) - 8) // 8), 1)
        entry, bit = choose.randrange(entries), choose.randrange(64)
        body[8 + 8 * entry + bit // 8] ^= 1 << bit % 8
        what = f"bit {bit} of frame {entry} of {part.name} is flipped"
    part.body = bytes(body)
    return Damaged(join(parts), what)


_KINDS: tuple[Callable[[list[Part], random.Random], Damaged | None], ...] = (
    _lie_about_length,
    _change_type,
    _drop,
    _duplicate,
    _swap,
    _truncate,
    _soil_padding,
    _flip_bit,
    _flip_bit_of_state,
    _change_count,
    _flip_bit_of_frame,
)
