"""A guest's memory as a row of cells, so few of them that they can be drawn.

Each cell stands for as many frames, a power of two. Cells in a row that hold the same are one
entry, ``[first cell, number of cells, {type: frames in each}]``; where nothing was named there is
none. The last cell may reach beyond ``end``, where memory ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from libxlsr.formats.page_types import PAGE_TYPE_NAMES
from libxlsr.libxc.frame_map import CHUNK_FRAMES, NAMED, TYPE_MASK, FrameMap

CELLS_MAX = 1 << 13

Cell = dict[str, int]


def memory_map(frames: FrameMap, end: int) -> dict[str, Any]:
    """The map: ``end``, ``frames_per_cell``, ``cells`` (how many there are) and ``runs``."""
    size = 1
    while size * CELLS_MAX < end:
        size *= 2
    runs: list[list[Any]] = []
    for index, content in _cells(frames, size):
        if runs and runs[-1][0] + runs[-1][1] == index and runs[-1][2] == content:
            runs[-1][1] += 1
        else:
            runs.append([index, 1, content])
    return {"end": end, "frames_per_cell": size, "cells": -(-end // size), "runs": runs}


def _cells(frames: FrameMap, size: int) -> Iterator[tuple[int, Cell]]:
    """The cells in which a frame was named."""
    current, content = -1, Cell()  # a cell of more frames than a chunk comes in several pieces
    for first, chunk in frames.chunks():
        for start in range(0, CHUNK_FRAMES, size):
            index = (first + start) // size
            if index != current:
                if content:
                    yield current, content
                current, content = index, {}
            _count(chunk[start : start + size], content)
    if content:
        yield current, content


def _count(piece: bytearray, content: Cell) -> None:
    for byte in set(piece):
        if byte & NAMED:
            name = PAGE_TYPE_NAMES[byte & TYPE_MASK]
            content[name] = content.get(name, 0) + piece.count(byte)
