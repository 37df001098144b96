"""Ranges of guest frames as messages show them: the first few, however many there are."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

RANGES_SHOWN = 4


def frame_range(first: int, number: int) -> str:
    """One range."""
    return f"{first:#x}" if number == 1 else f"{first:#x}-{first + number - 1:#x}"


def first_ranges(ranges: Iterable[tuple[int, int]]) -> str:
    """The first of these ``(first, number)``. No more are asked for than one beyond them."""
    few = list(islice(ranges, RANGES_SHOWN + 1))
    shown = ", ".join(frame_range(first, number) for first, number in few[:RANGES_SHOWN])
    return f"{shown}, ..." if len(few) > RANGES_SHOWN else shown


class CountedFrames:
    """Frames that come one by one: how many there are, and as much as first_ranges() shows."""

    def __init__(self) -> None:
        self.number = 0
        self.ranges: list[tuple[int, int]] = []

    def add(self, gfn: int) -> None:
        """Take a frame."""
        self.number += 1
        if self.ranges and sum(self.ranges[-1]) == gfn:
            first, number = self.ranges[-1]
            self.ranges[-1] = first, number + 1
        elif len(self.ranges) <= RANGES_SHOWN:
            self.ranges.append((gfn, 1))
