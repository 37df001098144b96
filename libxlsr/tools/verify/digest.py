"""One digest of what a guest sees: the same for two images of the same state of a guest.

It covers the contents of each frame that exists, as they were sent last, a PV guest's page types,
and the last record of each kind of state. It does not cover how that was written down: the order
of records, how often a frame was sent, iterations and checkpoints, versions, padding, the
configuration; a frame that exists without contents is one of zeros.

A frame's digest has to wait until nothing can supersede it. They wait in an unlinked temporary
file, 16 bytes a frame, so that memory stays flat. The file has a slot for each of the FrameMap's
chunks, and no more of them than there can be; where the FrameMap can't keep track of all frames,
there is no digest of the whole, and those of the other frames are not kept.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator
from typing import IO

from libxlsr.files import pwrite_all
from libxlsr.formats import page_types
from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.libxc.frame_map import CHUNK_FRAMES, CHUNK_SHIFT, CHUNKS_MAX, HAS_DATA, NAMED, FrameMap

_NAME = "libxlsr-1"
FRAME_DIGEST_SIZE = 16
_ZERO_PAGE = bytes(PAGE_SIZE)
_ZEROS = bytes(FRAME_DIGEST_SIZE)
_FIRST_GFN = struct.Struct("<Q")

_ABSENT = (page_types.XEN_DOMCTL_PFINFO_XTAB, page_types.XEN_DOMCTL_PFINFO_BROKEN)


def _canonical(byte: int, pv: bool) -> int:
    """What a frame's byte in the FrameMap is to the guest: 0 absent, 1 ordinary, else its type."""
    page_type = byte & 0xF
    if not byte & NAMED or page_type in _ABSENT:
        return 0
    if not pv or page_type == page_types.XEN_DOMCTL_PFINFO_XALLOC:
        return 1
    return 1 + page_type


_CANONICAL = {pv: bytes(_canonical(byte, pv) for byte in range(256)) for pv in (False, True)}
_HIDDEN = bytes(NAMED | HAS_DATA | page_type for page_type in _ABSENT)


class GuestDigest:
    """Takes the parts of a guest's state as they come. Raises OSError where /tmp is full."""

    def __init__(self) -> None:
        self._state: dict[str, bytes] = {}
        self._growing = hashlib.sha256()
        self._in_pieces: dict[str, hashlib._Hash] = {}
        self._slots: dict[int, int] = {}
        self._file: IO[bytes] | None = None

    def state(self, name: str, data: bytes | memoryview) -> None:
        """A part of the state but memory; the last one of each ``name`` counts."""
        self._state[name] = hashlib.sha256(data).digest()

    def start_state(self, name: str, head: bytes) -> None:
        """A part that comes in pieces, of which ``head`` is the first."""
        self._growing = self._in_pieces[name] = hashlib.sha256(head)

    def continue_state(self, piece: bytes | memoryview) -> None:
        """The next piece of what start_state() began."""
        self._growing.update(piece)

    def pages(self, first_gfn: int, data: bytes | memoryview) -> None:
        """The contents of consecutive frames."""
        self._put(first_gfn, _page_digests(data))

    def differing(self, first_gfn: int, data: bytes | memoryview) -> list[int]:
        """Which of these frames have other contents than those that pages() was told, of those
        that are kept."""
        digests = _page_digests(data)
        found: list[int] = []
        for index, place, count in _places(first_gfn, len(digests) // FRAME_DIGEST_SIZE):
            piece, digests = _split(digests, count)
            if index not in self._slots and len(self._slots) == CHUNKS_MAX:
                continue
            known = self._get(index, place, count)
            found += (
                (index << CHUNK_SHIFT) + place + start // FRAME_DIGEST_SIZE
                for start in range(0, len(piece), FRAME_DIGEST_SIZE)
                if known[start : start + FRAME_DIGEST_SIZE]
                != piece[start : start + FRAME_DIGEST_SIZE]
            )
        return found

    def parts(self) -> dict[str, bytes]:
        """The digest of each part of the state but memory, by its name."""
        return {**{name: part.digest() for name, part in self._in_pieces.items()}, **self._state}

    def finish(self, frames: FrameMap, *, pv: bool) -> str:
        """The digest of everything that was taken."""
        whole = hashlib.sha256(b"pv" if pv else b"hvm")
        state = self.parts()
        for name in sorted(state):
            whole.update(name.encode("ascii") + b"\0" + state[name])
        for first_gfn, chunk in frames.chunks():
            types, digests = self.frames(first_gfn, chunk, pv=pv)
            if not types.strip(b"\0"):
                continue
            whole.update(_FIRST_GFN.pack(first_gfn))
            whole.update(types)
            whole.update(digests)
        return f"{_NAME}:{whole.hexdigest()}"

    def frames(
        self, first_gfn: int, chunk: bytes | bytearray, *, pv: bool
    ) -> tuple[bytes | bytearray, bytearray]:
        """A byte and FRAME_DIGEST_SIZE bytes for each frame of a FrameMap's ``chunk``.

        The byte is 0 for a frame that doesn't exist, 1 for an ordinary one, and else one more than
        the type of a PV guest's page table. The digest is zeros for a page of zeros.
        """
        types = chunk.translate(_CANONICAL[pv])
        digests = bytearray(self._get(first_gfn >> CHUNK_SHIFT, 0, CHUNK_FRAMES))
        for hidden in _HIDDEN:
            place = chunk.find(hidden)
            while place >= 0:
                digests[place * FRAME_DIGEST_SIZE : (place + 1) * FRAME_DIGEST_SIZE] = _ZEROS
                place = chunk.find(hidden, place + 1)
        return types, digests

    def close(self) -> None:
        """Give the temporary file back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _put(self, gfn: int, digests: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - close() does
        for index, place, count in _places(gfn, len(digests) // FRAME_DIGEST_SIZE):
            piece, digests = _split(digests, count)
            if index not in self._slots and len(self._slots) < CHUNKS_MAX:
                self._slots[index] = len(self._slots)
            if index in self._slots:
                pwrite_all(self._file.fileno(), piece, self._offset(index, place))

    def _get(self, index: int, place: int, count: int) -> bytes:
        """The digests of ``count`` frames of a chunk from ``place`` on."""
        size = count * FRAME_DIGEST_SIZE
        if self._file is None or index not in self._slots:
            return bytes(size)
        found = os.pread(self._file.fileno(), size, self._offset(index, place))
        return found.ljust(size, b"\0")

    def _offset(self, index: int, place: int) -> int:
        return (self._slots[index] * CHUNK_FRAMES + place) * FRAME_DIGEST_SIZE


def _places(gfn: int, number: int) -> Iterator[tuple[int, int, int]]:
    """``(chunk, place in it, count)`` of consecutive frames, chunk by chunk."""
    while number:
        place = gfn & CHUNK_FRAMES - 1
        count = min(number, CHUNK_FRAMES - place)
        yield gfn >> CHUNK_SHIFT, place, count
        gfn += count
        number -= count


def _split(digests: bytes, count: int) -> tuple[bytes, bytes]:
    """The digests of the first ``count`` frames, and the others."""
    return digests[: count * FRAME_DIGEST_SIZE], digests[count * FRAME_DIGEST_SIZE :]


def _page_digests(data: bytes | memoryview) -> bytes:
    data = bytes(data)  # which compares page by page faster than it takes to copy
    pages = (data[start : start + PAGE_SIZE] for start in range(0, len(data), PAGE_SIZE))
    return b"".join(
        _ZEROS
        if page == _ZERO_PAGE
        else hashlib.blake2s(page, digest_size=FRAME_DIGEST_SIZE).digest()
        for page in pages
    )
