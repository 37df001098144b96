"""Guest memory by frame number: of an index (``targets.image.index``) or an offline restore.

Nothing is held in memory, however large the guest is or a hostile image says it is.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterator
from operator import sub
from pathlib import Path
from typing import NamedTuple

from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.formats.page_types import PAGE_TYPE_NAMES, XEN_DOMCTL_PFINFO_XALLOC, has_data
from libxlsr.restoring.image import layout
from libxlsr.restoring.image.index import IN_MEMORY, LOCATION_SIZE, LOCATIONS

_CHUNK = 1 << 16
"""Frames that are looked at in one go."""


def kept_its_contents(byte: int) -> bool:
    """Whether a frame of this byte of ``page_types`` is there with contents that were sent before
    it was named XALLOC ("allocate only")."""
    return byte == layout.PAGE_TYPE_SENT | layout.PAGE_TYPE_KEPT | XEN_DOMCTL_PFINFO_XALLOC


_HAS_DATA = bytes(
    kept_its_contents(byte)
    or (
        bool(byte & layout.PAGE_TYPE_SENT)
        and byte & 0xF in PAGE_TYPE_NAMES
        and has_data(byte & 0xF)
    )
    for byte in range(256)
)


class Run(NamedTuple):
    """Consecutive frames whose contents lie one after another in a file."""

    gfn: int
    number: int
    fd: int
    position: int
    """Of the first frame's first byte in the file."""


class Frames:
    """The frames of one guest. Raises OSError as the system does."""

    def __init__(self, directory: Path, image_fd: int | None = None) -> None:
        """``image_fd``: the image, where ``directory`` holds its index; stays the caller's."""
        self._image = -1 if image_fd is None else image_fd
        self._fds: list[int] = []
        try:
            self._types = self._open(directory / layout.PAGE_TYPES)
            self._memory = self._open(directory / layout.MEMORY)
            self._locations = self._open(directory / LOCATIONS) if image_fd is not None else -1
        except BaseException:
            self.close()
            raise
        self.end = os.fstat(self._types).st_size
        """One more than the highest frame that the image names."""

    def close(self) -> None:
        """Close what was opened."""
        while self._fds:
            os.close(self._fds.pop())

    def _open(self, path: Path) -> int:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._fds.append(fd)
        return fd

    def ranges(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """``(first gfn, number)`` of each longest range of frames with contents, ascending."""
        start = number = 0
        for gfn, data in self._chunks(first, end):
            for begin, length in _spans(data):
                if number and gfn + begin == start + number:
                    number += length
                    continue
                if number:
                    yield start, number
                start, number = gfn + begin, length
        if number:
            yield start, number

    def runs(self, first: int = 0, end: int | None = None) -> Iterator[Run]:
        """Frames with contents, in ascending order."""
        for gfn, data in self._chunks(first, end):
            for begin, length in _spans(data):
                yield from self._runs_of(gfn + begin, length)

    def types(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """``(first gfn, types)`` of frames that the image may name; a byte a frame, as in the
        file ``page_types``."""
        end = self.end if end is None else min(end, self.end)
        gfn = first
        while gfn < end:
            try:  # holes are skipped: a sparse guest's types may span terabytes
                data = os.lseek(self._types, gfn, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole follows
                return
            gfn = max(gfn, data)
            if gfn >= end:  # the next frame that has a type lies behind the range
                return
            types = os.pread(self._types, min(_CHUNK, end - gfn), gfn)
            if types:
                yield gfn, types
            gfn += max(len(types), 1)

    def page(self, gfn: int) -> bytes | None:
        """The contents of one frame; None where the image has none."""
        for run in self.runs(gfn, gfn + 1):
            return os.pread(run.fd, PAGE_SIZE, run.position).ljust(PAGE_SIZE, b"\0")
        return None

    def _chunks(self, first: int, end: int | None) -> Iterator[tuple[int, bytes]]:
        for gfn, types in self.types(first, end):
            yield gfn, types.translate(_HAS_DATA)

    def _runs_of(self, gfn: int, number: int) -> Iterator[Run]:
        """The runs that make up consecutive frames with contents."""
        if self._locations < 0:
            yield Run(gfn, number, self._memory, gfn * PAGE_SIZE)
            return
        size = number * LOCATION_SIZE
        data = os.pread(self._locations, size, gfn * LOCATION_SIZE).ljust(size, b"\0")
        locations = array("Q", data)
        if sys.byteorder == "big":  # pragma: no cover - no such machine here
            locations.byteswap()
        if 0 in locations:  # no contents were stored, only compared: zeros
            for index, location in enumerate(locations):
                locations[index] = location or IN_MEMORY | (gfn + index) * PAGE_SIZE
        begin = 0
        for index, step in enumerate(map(sub, locations[1:], locations), 1):
            if step != PAGE_SIZE:
                yield self._run(gfn + begin, index - begin, locations[begin])
                begin = index
        yield self._run(gfn + begin, len(locations) - begin, locations[begin])

    def _run(self, gfn: int, number: int, location: int) -> Run:
        if location & IN_MEMORY:
            return Run(gfn, number, self._memory, location & ~IN_MEMORY)
        return Run(gfn, number, self._image, location)


def _spans(mask: bytes) -> Iterator[tuple[int, int]]:
    """``(start, length)`` of each run of ones."""
    start = mask.find(1)
    while start >= 0:
        end = mask.find(0, start)
        if end < 0:
            end = len(mask)
        yield start, end - start
        start = mask.find(1, end)
