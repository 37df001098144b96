"""Guest memory as a sparse file indexed by frame number, and a byte for each frame's type.

Both files are written with pwrite and never held in memory, however large the guest is or a
hostile stream says it is.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from libxlsr.files import pwrite_all
from libxlsr.formats.framing import Buffer
from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.formats.page_data import PageData
from libxlsr.formats.page_types import PAGE_TYPE_NAMES, WITHOUT_DATA
from libxlsr.restoring.image.layout import MEMORY, PAGE_TYPE_KEPT, PAGE_TYPE_SENT, PAGE_TYPES

_CHUNK = 1 << 20
"""Bytes of the file of types that are in memory at a time."""

_NAMED = re.compile(rb"[^\0]+")
_TYPE_TO_SENT = bytes(PAGE_TYPE_SENT | byte & 0xF for byte in range(256))
_WITHOUT_DATA = bytes(PAGE_TYPE_SENT | page_type for page_type in WITHOUT_DATA)
_WITH_DATA = bytes(byte for byte in range(256) if byte not in _WITHOUT_DATA)
# What is left of a frame's byte when it is named again, with a type that has no contents.
_KEPT = bytes(
    PAGE_TYPE_KEPT if byte & PAGE_TYPE_KEPT or (byte and byte not in _WITHOUT_DATA) else 0
    for byte in range(256)
)


def _named_again(before: int, page_type: int) -> int:
    """A frame's byte with its new type, from the one that it had."""
    return page_type | (_KEPT[before] if page_type in _WITHOUT_DATA else 0)


class GuestMemory:
    """The two files of a guest's memory, open for writing. Raises OSError as the system does."""

    def __init__(self, directory: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._memory = os.open(directory / MEMORY, flags, 0o600)
        self._types = os.open(directory / PAGE_TYPES, flags, 0o600)
        self.mismatches = 0
        """Frames whose contents differed when the stream had them compared (VERIFY)."""

    def write_pages(self, first_gfn: int, pages: Buffer) -> None:
        """Store consecutive frames; what was there is overwritten."""
        pwrite_all(self._memory, pages, first_gfn * PAGE_SIZE)

    def verify_pages(self, first_gfn: int, pages: Buffer) -> None:
        """Compare consecutive frames with what is stored, and count those that differ. One that
        was not stored before has no contents: zeros."""
        self.reach(first_gfn + len(pages) // PAGE_SIZE)
        stored = os.pread(self._memory, len(pages), first_gfn * PAGE_SIZE).ljust(len(pages), b"\0")
        if stored != pages:
            view = memoryview(pages)
            for start in range(0, len(pages), PAGE_SIZE):
                if stored[start : start + PAGE_SIZE] != view[start : start + PAGE_SIZE]:
                    self.mismatches += 1

    def reach(self, end: int) -> None:
        """Have the file hold all frames below ``end``: those that were not stored are zeros."""
        if os.fstat(self._memory).st_size < end * PAGE_SIZE:
            os.ftruncate(self._memory, end * PAGE_SIZE)

    def set_types(self, batch: PageData) -> None:
        """Note the types of a record's frames."""
        types = batch.types.translate(_TYPE_TO_SENT)
        first_gfn, last_gfn = batch.lowest, batch.highest
        span = last_gfn - first_gfn + 1
        # A frame that has contents keeps them under a type that has none, as with libxenguest.
        all_with_data = not types.translate(None, _WITH_DATA)
        if batch.is_consecutive and (all_with_data or not self._any_contents(first_gfn, span)):
            pwrite_all(self._types, types, first_gfn)
        elif span <= min(_CHUNK, PAGE_SIZE * batch.count):
            # One read and one write instead of one for each frame. They fill no more blocks of the
            # file than single bytes could, however far apart a hostile stream's frames are.
            window = bytearray(os.pread(self._types, span, first_gfn).ljust(span, b"\0"))
            for gfn, page_type in zip(batch.gfns, types):
                window[gfn - first_gfn] = _named_again(window[gfn - first_gfn], page_type)
            pwrite_all(self._types, window, first_gfn)
        else:
            for gfn, page_type in zip(batch.gfns, types):
                (before,) = os.pread(self._types, 1, gfn) or b"\0"
                pwrite_all(self._types, bytes([_named_again(before, page_type)]), gfn)

    def _any_contents(self, first_gfn: int, count: int) -> bool:
        """Whether any of consecutive frames has had some."""
        return bool(os.pread(self._types, count, first_gfn).translate(_KEPT).strip(b"\0"))

    def finish(self) -> dict[str, int]:
        """Flush both files to the disk; the number of frames by the name of their type."""
        os.fsync(self._memory)
        os.fsync(self._types)
        counts: Counter[int] = Counter()
        for _, chunk in self._chunks(self.end):
            for kind in range(16):
                counts[kind] += chunk.count(PAGE_TYPE_SENT | kind)
                counts[kind] += chunk.count(PAGE_TYPE_SENT | PAGE_TYPE_KEPT | kind)
        return {PAGE_TYPE_NAMES[kind]: number for kind, number in counts.items() if number}

    @property
    def end(self) -> int:
        """One more than the highest frame that was named."""
        return os.fstat(self._types).st_size

    def named(self, end: int) -> int:
        """How many frames below ``end`` were named."""
        return sum(len(chunk) - chunk.count(0) for _, chunk in self._chunks(end))

    def gaps(self, end: int) -> Iterator[tuple[int, int]]:
        """``(first, number)`` of each longest run of frames below ``end`` that were not named."""
        position = 0
        for start, chunk in self._chunks(end):
            for match in _NAMED.finditer(chunk):
                if start + match.start() > position:
                    yield position, start + match.start() - position
                position = start + match.end()
        if end > position:
            yield position, end - position

    def type_of(self, gfn: int) -> int | None:
        """The type that a frame was last named with; None if it never was."""
        byte = os.pread(self._types, 1, gfn)
        return byte[0] & 0xF if byte and byte[0] else None

    def _chunks(self, end: int) -> Iterator[tuple[int, bytes]]:
        """``(first frame, a byte for each)`` of frames below ``end``; where none was named, there
        may be nothing: a sparse guest's types may span terabytes."""
        position = 0
        while position < end:
            try:
                position = os.lseek(self._types, position, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole follows
                return
            chunk = os.pread(self._types, min(_CHUNK, max(end - position, 0)), position)
            if not chunk:
                return
            yield position, chunk
            position += len(chunk)

    def close(self) -> None:
        """Close both files."""
        os.close(self._memory)
        os.close(self._types)
