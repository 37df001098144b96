"""Blocking reads of exactly n bytes from an fd that others read before and after."""

from __future__ import annotations

import os
from collections.abc import Callable

from libxlsr.errors import StreamError, TargetError

_CHUNK = 1 << 20


class ExactReader:
    """Reads an fd from ``offset`` of the stream on, and never a byte more than was asked for."""

    def __init__(self, fd: int, offset: int, prefix: bytes = b"") -> None:
        """``prefix``: the first bytes, which were read from the fd before."""
        self._fd = fd
        self._prefix = prefix
        self.offset = offset
        """Of the next byte in the stream."""
        self.on_short_read: Callable[[], None] | None = None
        """Called when fewer bytes came than were wanted: the sender is slower than we are."""

    def fileno(self) -> int:
        """The fd that is read."""
        return self._fd

    def read(self, nbytes: int, what: str) -> bytearray:
        """The next ``nbytes``. Raises StreamError at the end of the stream.

        Memory grows with what arrives, not with ``nbytes``, which a stream may have made up.
        """
        if nbytes <= _CHUNK:
            data = bytearray(nbytes)
            self.read_into(memoryview(data), what)
            return data
        data = bytearray()
        while len(data) < nbytes:
            chunk = memoryview(bytearray(min(nbytes - len(data), _CHUNK)))
            self.read_into(chunk, what, done=len(data))
            data += chunk
        return data

    def read_into(self, view: memoryview, what: str, *, done: int = 0) -> None:
        """Fill ``view``. ``done`` bytes of ``what`` were read before, for the message."""
        filled = 0
        while filled < len(view):
            if self._prefix:
                count = min(len(view), len(self._prefix))
                view[:count] = self._prefix[:count]
                self._prefix = self._prefix[count:]
            else:
                count = self._readv(view[filled:])
            if count == 0:
                raise end_of_stream(self.offset, f"{done + filled} bytes into {what}")
            filled += count
            self.offset += count
            if filled < len(view) and self.on_short_read is not None:
                self.on_short_read()

    def _readv(self, view: memoryview) -> int:
        try:
            return os.readv(self._fd, [view])
        except OSError as error:
            raise TargetError.from_oserror(error, "can't read the stream", call="readv") from error


def end_of_stream(offset: int, where: str, record: str | None = None) -> StreamError:
    """The error for a stream that ends too early."""
    return StreamError(
        f"the stream ends {where}",
        offset=offset,
        record=record,
        remedy="the image is truncated: get a whole copy of it",
        at_end=True,
    )
