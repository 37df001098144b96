"""What differs between two images of a guest: configuration, state by name, pages, records.

Whether the state is the same rests on the digests of what each record holds, as verify's digest
does. Names and values come from what is decoded, which is not every byte of a record.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from libxlsr.formats.libxl import RecordType as LibxlRecordType
from libxlsr.libxc.frame_map import CHUNK_FRAMES, FrameMap
from libxlsr.tools.inspect.collector import Collector
from libxlsr.tools.inspect.guest_state import flattened, guest_state
from libxlsr.tools.inspect.state_pieces import Piece, state_pieces
from libxlsr.tools.verify.digest import FRAME_DIGEST_SIZE, GuestDigest

RANGES_MAX = 256
"""Ranges of frames of one kind that are kept."""

_EMPTY_CHUNK = bytes(CHUNK_FRAMES)


@dataclass
class FrameDifferences:
    """Frames that differ in one way."""

    frames: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)
    """``(first, number)``, RANGES_MAX of them at the most."""

    def add(self, gfn: int) -> None:
        """Add a frame; frames come in their order."""
        self.frames += 1
        if self.ranges and sum(self.ranges[-1]) == gfn:
            first, number = self.ranges[-1]
            self.ranges[-1] = (first, number + 1)
        elif len(self.ranges) < RANGES_MAX:
            self.ranges.append((gfn, 1))


@dataclass
class PageDifferences:
    """How the memories differ."""

    same: int = 0
    """Frames that exist in both with the same contents and type."""
    contents: FrameDifferences = field(default_factory=FrameDifferences)
    type: FrameDifferences = field(default_factory=FrameDifferences)
    """Of a PV guest's: the same contents as another kind of page."""
    only_in_a: FrameDifferences = field(default_factory=FrameDifferences)
    only_in_b: FrameDifferences = field(default_factory=FrameDifferences)

    @property
    def any(self) -> bool:
        """Whether a frame differs."""
        return any(
            kind.frames for kind in (self.contents, self.type, self.only_in_a, self.only_in_b)
        )


@dataclass(frozen=True)
class Change:
    """A value that differs. None: the other image has it only. Of a list of names, what is gone
    and what is new; both lists where the same names stand in another order or more
    than once."""

    path: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Difference:
    """All that differs."""

    same_state: bool
    """Whether the guest would not know one from the other: then verify's digests are equal."""
    config: tuple[Change, ...]
    state: tuple[Change, ...]
    not_decoded: tuple[str, ...]
    """Records and devices that differ, none of whose decoded values does."""
    pages: PageDifferences
    device_model: bool
    """Whether the device model's state differs (EMULATOR_CONTEXT), in any byte."""
    records: dict[str, tuple[int, int]]
    """Records of which there are not as many; no part of the guest's state."""


@dataclass(frozen=True)
class Side:
    """One of the two images, read whole."""

    contents: Collector
    digest: GuestDigest


def difference(a: Side, b: Side) -> Difference:
    """What differs between ``a`` and ``b``."""
    one, other = a.digest.parts(), b.digest.parts()
    differing = {name for name in {*one, *other} if one.get(name) != other.get(name)}
    left, right = _pieces(a, differing), _pieces(b, differing)
    device_model = LibxlRecordType.EMULATOR_CONTEXT.name
    pages = _pages(a, b)
    return Difference(
        same_state=not differing and not pages.any,
        config=tuple(changes(_config(a), _config(b))),
        state=tuple(changes(guest_state(left), guest_state(right))),
        not_decoded=tuple(_not_decoded(left, right, differing - {device_model})),
        pages=pages,
        device_model=device_model in differing,
        records=_records(a, b),
    )


def _pieces(side: Side, records: Set[str]) -> list[Piece]:
    """The pieces of a side's state that these records hold."""
    return [piece for piece in state_pieces(side.contents) if piece.record in records]


def _not_decoded(left: list[Piece], right: list[Piece], records: Set[str]) -> Iterator[str]:
    """What of ``records``, which differ, does so in no value."""
    one, other = ({piece.name: piece for piece in pieces} for pieces in (left, right))
    named: set[str] = set()
    for name in sorted({*one, *other}):
        before, after = one.get(name), other.get(name)
        if before is None or after is None or before.values != after.values:
            named.update(piece.record for piece in (before, after) if piece is not None)
        elif before.data != after.data:
            named.add(before.record)
            if before.record in records:
                yield name
    yield from sorted(records - named)


def changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Change]:
    """What differs between nested objects, by path."""
    left, right = dict(flattened(a)), dict(flattened(b))
    paths = sorted({*left, *right})
    for path in paths:
        one, other = left.get(path), right.get(path)
        if _same(one, other) or _has_members(path, one, paths) or _has_members(path, other, paths):
            continue
        if is_set_of_names(one) and is_set_of_names(other):
            before, after = set(one or ()), set(other or ())
            if before != after:
                one, other = sorted(before - after), sorted(after - before)
        yield Change(".".join(path), one, other)


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON, where true is not 1; Python has them equal."""
    return one is other or json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _has_members(path: tuple[str, ...], value: Any, paths: Sequence[tuple[str, ...]]) -> bool:
    """Whether an object is empty in one image and not in the other: its members are changes."""
    place = bisect_right(paths, path)
    return value == {} and place < len(paths) and paths[place][: len(path)] == path


def is_set_of_names(value: Any) -> bool:
    """Whether a value is a set of names, such as CPUID's features."""
    return isinstance(value, list) and all(
        isinstance(item, str) and not item.startswith("0x") for item in value
    )


def _config(side: Side) -> Mapping[str, Any]:
    config = side.contents.config
    return {} if config is None else config.json


def _records(a: Side, b: Side) -> dict[str, tuple[int, int]]:
    one, other = _record_counts(a), _record_counts(b)
    return {
        name: (one[name], other[name])
        for name in sorted({*one, *other})
        if one[name] != other[name]
    }


def _record_counts(side: Side) -> Counter[str]:
    counts = side.contents.record_counts
    return Counter({f"{layer} {name}": number for (layer, name), number in counts.items()})


def _pages(a: Side, b: Side) -> PageDifferences:
    found = PageDifferences()
    one, other = dict(_frames(a).chunks()), dict(_frames(b).chunks())
    for first in sorted({*one, *other}):
        left = a.digest.frames(first, one.get(first, _EMPTY_CHUNK), pv=_is_pv(a))
        right = b.digest.frames(first, other.get(first, _EMPTY_CHUNK), pv=_is_pv(b))
        if left == right:
            found.same += len(left[0]) - left[0].count(0)
        else:
            _compare(found, first, left, right)
    return found


def _compare(
    found: PageDifferences,
    first: int,
    left: tuple[bytes | bytearray, bytearray],
    right: tuple[bytes | bytearray, bytearray],
) -> None:
    for place, (one, other) in enumerate(zip(left[0], right[0])):
        if not one and not other:
            continue
        here = slice(place * FRAME_DIGEST_SIZE, (place + 1) * FRAME_DIGEST_SIZE)
        if not other:
            found.only_in_a.add(first + place)
        elif not one:
            found.only_in_b.add(first + place)
        elif left[1][here] != right[1][here]:
            found.contents.add(first + place)
        elif one != other:
            found.type.add(first + place)
        else:
            found.same += 1


def _frames(side: Side) -> FrameMap:
    memory = side.contents.memory
    return FrameMap() if memory is None else memory.frames


def _is_pv(side: Side) -> bool:
    guest = side.contents.libxc
    return guest is not None and guest.is_pv
