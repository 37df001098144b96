"""A byte for each guest frame: whether it was named, its last type, whether its contents came.

A guest of 16 GiB takes 4 MiB. Chunks are made where frames are named, CHUNKS_MAX of them at the
most; a hostile image can name frames all over 2**40 of them, and no more than that is kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from libxlsr.formats.page_data import PageData, runs
from libxlsr.formats.page_types import WITHOUT_DATA

CHUNK_SHIFT = 16
CHUNK_FRAMES = 1 << CHUNK_SHIFT
CHUNKS_MAX = 1 << 10
"""64 MiB: a guest of 256 GiB."""

NAMED = 0x80
HAS_DATA = 0x40
TYPE_MASK = 0x0F

# What a frame's byte becomes when it is named, by its type.
_VALUES = bytes(
    NAMED | page_type | (0 if page_type in WITHOUT_DATA else HAS_DATA) for page_type in range(16)
).ljust(256, b"\0")
# What it keeps when it is named again: that there were contents before.
_KEPT = bytes(byte & HAS_DATA for byte in range(256))
_ALL_NAMED = bytes(range(NAMED, 256))
_SCATTERED = 8
"""Frames in a run, on average, below which they are taken one by one."""


class FrameMap:
    """What became of each frame, as PAGE_DATA records are added."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}
        self.end = 0
        """One more than the highest frame that is kept track of."""
        self.untracked = 0
        """Entries for frames that aren't."""
        self._counts: Counter[int] | None = None

    def add(self, batch: PageData) -> int:
        """Take a record's frames; how many of them had contents before and were sent again."""
        self._counts = None
        values = batch.types.translate(_VALUES)
        if batch.is_consecutive:
            return self._add_run(batch.gfns[0], values)
        places = list(runs(batch.gfns))
        if len(places) * _SCATTERED > batch.count:
            return self._add_scattered(batch.gfns, values)
        return sum(self._add_run(batch.gfns[begin], values[begin:end]) for begin, end in places)

    def get(self, gfn: int) -> int:
        """The byte of a frame: NAMED, HAS_DATA and its type; 0 if it was never named."""
        chunk = self._chunks.get(gfn >> CHUNK_SHIFT)
        return chunk[gfn & CHUNK_FRAMES - 1] if chunk is not None else 0

    def type_of(self, gfn: int) -> int | None:
        """The type that a frame was last named with; None if it never was."""
        byte = self.get(gfn)
        return byte & TYPE_MASK if byte else None

    def chunks(self) -> Iterator[tuple[int, bytearray]]:
        """``(first frame, a byte for each of CHUNK_FRAMES)``, in the frames' order."""
        for index in sorted(self._chunks):
            yield index << CHUNK_SHIFT, self._chunks[index]

    def counts(self) -> Counter[int]:
        """How many frames have each byte; those that were never named are not counted."""
        if self._counts is not None:
            return self._counts
        counts: Counter[int] = Counter()
        for chunk in self._chunks.values():
            left = chunk
            while left:
                # bytes.count() takes its time over a byte that is everywhere; these two don't.
                byte = bytes(left[:1])
                rest = bytearray() if left == byte * len(left) else left.translate(None, byte)
                counts[byte[0]] += len(left) - len(rest)
                left = rest
        del counts[0]
        self._counts = counts
        return counts

    def ranges(self, values: bytes, end: int) -> Iterator[tuple[int, int]]:
        """``(first, number)`` of each longest run of frames below ``end`` with one of these bytes;
        0 stands for frames that were not named, of those in chunks in which one was."""
        wanted = re.compile(b"[" + re.escape(values) + b"]+")
        begin = position = 0
        for first, chunk, limit in self._below(end):
            for match in wanted.finditer(chunk, 0, limit):
                if first + match.start() > position:
                    if position > begin:
                        yield begin, position - begin
                    begin = first + match.start()
                position = first + match.end()
        if position > begin:
            yield begin, position - begin

    def gaps(self, end: int) -> Iterator[tuple[int, int]]:
        """``(first, number)`` of each longest run of frames below ``end`` that were not named."""
        position = 0
        for first, number in self.ranges(_ALL_NAMED, end):
            if first > position:
                yield position, first - position
            position = first + number
        if end > position:
            yield position, end - position

    def unnamed(self) -> int:
        """How many frames below ``end`` were not named, of those in chunks in which one was."""
        return sum(chunk.count(0, 0, limit) for _, chunk, limit in self._below(self.end))

    def named(self, end: int) -> int:
        """How many frames below ``end`` were named."""
        return sum(limit - chunk.count(0, 0, limit) for _, chunk, limit in self._below(end))

    def _below(self, end: int) -> Iterator[tuple[int, bytearray, int]]:
        """As chunks(), with how many of each chunk's frames lie below ``end``."""
        for first, chunk in self.chunks():
            if first >= end:
                break
            yield first, chunk, min(CHUNK_FRAMES, end - first)

    def _chunk(self, index: int) -> bytearray | None:
        chunk = self._chunks.get(index)
        if chunk is None and len(self._chunks) < CHUNKS_MAX:
            chunk = self._chunks[index] = bytearray(CHUNK_FRAMES)
        return chunk

    def _add_run(self, gfn: int, values: bytes) -> int:
        """Take the bytes of frames that follow each other; how many were sent again."""
        again = 0
        while values:
            start = gfn & CHUNK_FRAMES - 1
            piece, values = values[: CHUNK_FRAMES - start], values[CHUNK_FRAMES - start :]
            chunk = self._chunk(gfn >> CHUNK_SHIFT)
            gfn += len(piece)
            if chunk is None:
                self.untracked += len(piece)
                continue
            old = chunk[start : start + len(piece)]
            if old != bytes(len(piece)):
                # One number of 8 bits a frame: what is done to all frames is done at once.
                had_data = int.from_bytes(old.translate(_KEPT), "little")
                new = int.from_bytes(piece, "little")
                again += bin(had_data & new).count("1")
                piece = (had_data | new).to_bytes(len(piece), "little")
            chunk[start : start + len(piece)] = piece
            self.end = max(self.end, gfn)
        return again

    def _add_scattered(self, gfns: Sequence[int], values: bytes) -> int:
        again = 0
        index = -1
        chunk: bytearray | None = None
        for gfn, value in zip(gfns, values):
            if gfn >> CHUNK_SHIFT != index:
                index = gfn >> CHUNK_SHIFT
                chunk = self._chunk(index)
            if chunk is None:
                self.untracked += 1
                continue
            place = gfn & CHUNK_FRAMES - 1
            had_data = chunk[place] & HAS_DATA
            if had_data and value & HAS_DATA:
                again += 1
            chunk[place] = value | had_data
        highest = max((gfn for gfn in gfns if gfn >> CHUNK_SHIFT in self._chunks), default=-1)
        self.end = max(self.end, highest + 1)
        return again
