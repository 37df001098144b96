"""Reads bytes that flow past: a pipe to its end, or what a decompressor or a converter gives."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ClassVar

from libxlsr.errors import StreamError
from libxlsr.source.byte_reader import LookaheadReader, ReadError, Truncated, waiting

_FLOW = 1 << 20


class CompressionDamaged(Truncated):
    """The decompressor could go no further."""

    rule: ClassVar[str] = "compression"


class FlowReader(LookaheadReader):
    """Bytes that come in chunks of any size from ``next_chunk``; b"" is the end."""

    def __init__(self, next_chunk: Callable[[], bytes], *, converting: bool = False) -> None:
        self.converting = converting
        self._next_chunk = next_chunk
        self._chunk = b""
        self._start = 0  # of what is left of the chunk
        self._ended = False

    def read(self, nbytes: int, what: str, before: int = 0) -> bytes:
        data = self._take(nbytes)
        if len(data) == nbytes:
            return data
        pieces = [data]
        got = len(data)
        while got < nbytes and self._more():
            pieces.append(self._take(nbytes - got))
            got += len(pieces[-1])
        if got < nbytes:
            self.offset -= got
            raise self._truncated(got, what, before)
        return b"".join(pieces)

    def skip(self, nbytes: int, what: str) -> None:
        left = nbytes
        while left:
            count = min(left, len(self._chunk) - self._start)
            self._start += count
            self.offset += count
            left -= count
            if left and not self._more():
                self.offset -= nbytes - left
                raise self._truncated(nbytes - left, what)

    def peek(self, nbytes: int) -> bytes:
        while len(self._chunk) - self._start < nbytes:
            kept = self._chunk[self._start :]
            if not self._more():
                return kept
            self._chunk = kept + self._chunk
        return self._chunk[self._start : self._start + nbytes]

    def _take(self, most: int) -> bytes:
        data = self._chunk[self._start : self._start + most]
        self._start += len(data)
        self.offset += len(data)
        return data

    def _more(self) -> bool:
        """Replace the chunk, whose content the caller has taken; False at the end."""
        chunk = b"" if self._ended else self._next_chunk()
        if not chunk:
            self._ended = True
            return False
        self._chunk, self._start = chunk, 0
        return True


def fd_chunks(fd: int, most: int = _FLOW) -> Callable[[], bytes]:
    """What a FlowReader reads a pipe with, ``most`` bytes at a time. Raises TargetError."""

    def next_chunk() -> bytes:
        try:
            return waiting(fd, lambda: os.read(fd, most))
        except OSError as error:
            raise ReadError.of(error) from error

    return next_chunk


def decompressed_chunks(codec: str, fd: int, prefix: bytes) -> Callable[[], bytes]:
    """What a FlowReader reads compressed bytes with; ``prefix`` was read from ``fd`` before.

    Raises CompressionDamaged, TargetError and BackendUnavailable.
    """
    from libxlsr.source.codecs import Decompression  # which takes long, for what is seldom wanted

    chunks = Decompression(codec, fd, prefix).chunks()

    def next_chunk() -> bytes:
        try:
            return next(chunks, b"")
        except StreamError as error:
            raise CompressionDamaged(error.message, offset=None, remedy=error.remedy) from error
        except OSError as error:
            raise ReadError.of(error) from error

    return next_chunk
