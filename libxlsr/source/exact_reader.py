"""Reads of exactly n bytes from an fd that others read before and after."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Callable, ClassVar

from libxlsr.source.byte_reader import PIECE, ByteReader, ReadError, waiting


class ExactReader(ByteReader):
    """Reads an fd, in blocking mode or not, and never a byte more than was asked for."""

    noun: ClassVar[str] = "stream"

    def __init__(self, fd: int, offset: int = 0, prefix: bytes = b"") -> None:
        """``offset`` is the next byte's in the stream; ``prefix`` are the first bytes, which were
        read from the fd before."""
        self._fd = fd
        self._prefix = prefix
        self.offset = offset
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._buffer: memoryview | None = None
        self.on_short_read: Callable[[], None] | None = None
        """Called when fewer bytes came than were wanted: the sender is slower than we are."""

    def fileno(self) -> int:
        """The fd that is read."""
        return self._fd

    def read(self, nbytes: int, what: str, before: int = 0) -> bytes:
        data = self._some(min(nbytes, PIECE))
        if len(data) == nbytes:
            return data
        pieces = [data]
        got = len(data)
        while got < nbytes:
            if not pieces[-1]:
                raise self._truncated(0, what, before + got)
            self._fell_short()
            pieces.append(self._some(min(nbytes - got, PIECE)))
            got += len(pieces[-1])
        return b"".join(pieces)

    def skip(self, nbytes: int, what: str) -> None:
        if not self._is_file or self._prefix:
            for _ in self.pieces(nbytes, what):
                pass
            return
        position = os.lseek(self._fd, 0, os.SEEK_CUR)
        there = min(nbytes, max(os.fstat(self._fd).st_size - position, 0))
        os.lseek(self._fd, there, os.SEEK_CUR)
        if there < nbytes:
            raise self._truncated(there, what)
        self.offset += nbytes

    def pieces(self, nbytes: int, what: str) -> Iterator[bytes | memoryview]:
        if self._buffer is None:
            self._buffer = memoryview(bytearray(PIECE))
        for before in range(0, nbytes, PIECE):
            piece = self._buffer[: min(nbytes - before, PIECE)]
            self._fill(piece, what, before)
            yield piece

    def at_end(self) -> bool:
        """Whether nothing follows. Takes a byte if something does."""
        return not self._some(1)

    def _some(self, most: int = PIECE) -> bytes:
        if self._prefix:
            data, self._prefix = self._prefix[:most], self._prefix[most:]
        else:
            try:
                data = waiting(self._fd, lambda: os.read(self._fd, most))
            except OSError as error:
                raise ReadError.of(error) from error
        self.offset += len(data)
        return data

    def _fill(self, piece: memoryview, what: str, before: int) -> None:
        filled = min(len(piece), len(self._prefix))
        piece[:filled], self._prefix = self._prefix[:filled], self._prefix[filled:]
        self.offset += filled
        while filled < len(piece):
            try:
                count = self._readv(piece[filled:])
            except OSError as error:
                raise ReadError.of(error) from error
            if not count:
                raise self._truncated(0, what, before + filled)
            filled += count
            self.offset += count
            if filled < len(piece):
                self._fell_short()

    def _readv(self, view: memoryview) -> int:
        return waiting(self._fd, lambda: os.readv(self._fd, [view]))

    def _fell_short(self) -> None:
        if self.on_short_read is not None:
            self.on_short_read()
