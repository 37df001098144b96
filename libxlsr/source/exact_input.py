"""Reads of exactly n bytes, for a worker whose input's next byte may be somebody else's."""

from __future__ import annotations

import os
import select

from libxlsr.errors import StreamError

_CHUNK = 1 << 20


class ExactInput:
    """An fd, in blocking mode or not, with bytes in front that were read from it before."""

    def __init__(self, fd: int, prefix: bytes = b"") -> None:
        self._fd = fd
        self._prefix = prefix
        self.offset = 0
        """Of the next byte, counted from the prefix's first."""

    def read(self, nbytes: int, what: str) -> bytearray:
        """The next ``nbytes``. Raises StreamError at the end of the stream, and OSError.

        Memory grows with what arrives, not with ``nbytes``, which a stream may have made up.
        """
        data = bytearray()
        while len(data) < nbytes:
            piece = self._some(min(nbytes - len(data), _CHUNK))
            if not piece:
                raise StreamError(
                    f"the stream ends {len(data)} bytes into {what}",
                    offset=self.offset,
                    remedy="the image is truncated: get a whole copy of it",
                    at_end=True,
                )
            data += piece
        return data

    def read_to_end(self, most: int, what: str) -> bytearray:
        """All that is left. Raises StreamError where that is more than ``most``, and OSError."""
        data = bytearray()
        while piece := self._some(_CHUNK):
            data += piece
            if len(data) > most:
                raise StreamError(
                    f"{what} is longer than {most} bytes", offset=self.offset, expected="the end"
                )
        return data

    def at_end(self) -> bool:
        """Whether nothing follows. Takes a byte if something does."""
        return not self._some(1)

    def _some(self, most: int) -> bytes:
        if self._prefix:
            piece, self._prefix = self._prefix[:most], self._prefix[most:]
        else:
            piece = self._read(most)
        self.offset += len(piece)
        return piece

    def _read(self, most: int) -> bytes:
        while True:
            try:
                return os.read(self._fd, most)
            except BlockingIOError:  # whoever opened it set O_NONBLOCK, for all its users
                poll = select.poll()
                poll.register(self._fd, select.POLLIN)
                poll.poll()
