"""The file that is written: pages of zeros become holes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from libxlsr.errors import TargetError
from libxlsr.files import pwrite_all
from libxlsr.formats.framing import Buffer
from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.tools.extract.frames import Frames, Run

_BUFFER = 512 * 1024
"""Stays in a processor's cache between read and write."""

_ZEROS = bytes(PAGE_SIZE)
_BUFFER_OF_ZEROS = memoryview(bytes(_BUFFER))


class SparseFile:
    """A new file, readable by its owner only. Raises OSError as the system does."""

    def __init__(self, path: Path, on_bytes: Callable[[int], None]) -> None:
        """``on_bytes`` is told how many bytes of guest memory were copied so far."""
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.copied = 0
        """Bytes of guest memory that were copied."""
        self._on_bytes = on_bytes
        self._buffer = bytearray(_BUFFER)

    def write(self, data: Buffer, position: int) -> None:
        """Write bytes that are not the guest's."""
        pwrite_all(self.fd, data, position)

    def copy_frames(
        self,
        frames: Frames,
        first: int,
        end: int | None,
        position: int,
        look: Callable[[bytearray, int], None] | None = None,
    ) -> None:
        """Copy frames so that frame ``first`` comes to lie at ``position``. ``look`` is shown each
        piece of memory, in a buffer of which the first so many bytes count."""
        for run in frames.runs(first, end):
            self.copy_run(run, position + (run.gfn - first) * PAGE_SIZE, look)

    def copy_run(
        self, run: Run, position: int, look: Callable[[bytearray, int], None] | None = None
    ) -> None:
        """Copy one run to ``position``."""
        left = run.number * PAGE_SIZE
        source = run.position
        while left:
            size = min(left, _BUFFER)
            self._fill(run.fd, size, source)
            if look is not None:
                look(self._buffer, size)
            self._write_pages(size, position)
            source += size
            position += size
            left -= size
            self.copied += size
            self._on_bytes(self.copied)

    def finish(self, size: int) -> None:
        """Set the file's size and flush it to the disk."""
        os.ftruncate(self.fd, size)
        os.fsync(self.fd)

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)

    def _fill(self, fd: int, size: int, source: int) -> None:
        view = memoryview(self._buffer)[:size]
        filled = 0
        while filled < size:
            count = os.preadv(fd, [view[filled:]], source + filled)
            if count == 0:
                raise TargetError("the file was cut off while it was read")
            filled += count

    def _write_pages(self, size: int, position: int) -> None:
        """Write the buffer but for its pages of zeros."""
        buffer = self._buffer
        view = memoryview(buffer)
        if position % PAGE_SIZE:
            # Pages that lie across two blocks of the file: a hole of one would save nothing, and
            # many small writes cost more than a large one. What is all zeros is left out still.
            if not buffer.startswith(_BUFFER_OF_ZEROS[:size]):
                self.write(view[:size], position)
            return
        start = None  # of the pages that are to be written
        for page in range(0, size, PAGE_SIZE):
            if buffer.startswith(_ZEROS, page):
                if start is not None:
                    self.write(view[start:page], position + start)
                    start = None
            elif start is None:
                start = page
        if start is not None:
            self.write(view[start:size], position + start)
