"""Bytes that are read in their order: what a reader of an image does, and how it fails.

=====================  =========================================================================
``exact_reader``       an fd that others read before and after: not a byte more than was asked for
``file_reader``        a regular file or block device that nobody else reads on
``flow_reader``        a pipe that nobody else reads on, a decompressor's or converter's output
=====================  =========================================================================

None of them holds more than what was asked for and one buffer.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import Callable, ClassVar, TypeVar

from libxlsr.errors import StreamError, TargetError

T = TypeVar("T")

PIECE = 512 * 1024
"""Bytes at a time of what is not held as a whole: a multiple of a page, and stays in a processor's
cache between being read and being written."""


class Truncated(StreamError):
    """The bytes end in the middle of something. ``rule`` is the finding's id."""

    rule: ClassVar[str] = "truncated"


class ReadError(TargetError):
    """The system does not give the bytes. Code that knows the image's path may name it."""

    @classmethod
    def of(cls, error: OSError) -> TargetError:
        """For what read() said."""
        return cls.from_oserror(error, "can't read the image", call="read")


class ByteReader:
    """Bytes in their order."""

    offset: int = 0
    """Of the next byte."""
    noun: ClassVar[str] = "image"
    """What messages call the bytes as a whole."""
    converting: bool = False
    """Whether the bytes are what an image of Xen 4.5 or older becomes. The offset in a Truncated
    is then one in the old image."""

    def read(self, nbytes: int, what: str, before: int = 0) -> bytes:
        """The next ``nbytes``. Raises Truncated, with ``what`` in the message, and TargetError.

        ``before``: bytes of ``what`` that were read already. Memory grows with what arrives, not
        with ``nbytes``, which a stream may have made up.
        """
        raise NotImplementedError

    def skip(self, nbytes: int, what: str) -> None:
        """Pass over ``nbytes``. Raises as read() does."""
        raise NotImplementedError

    def pieces(self, nbytes: int, what: str) -> Iterator[bytes | memoryview]:
        """The next ``nbytes``, in pieces of PIECE (the last one may be shorter), each of which is
        there until the next one is asked for. Raises as read() does."""
        for before in range(0, nbytes, PIECE):
            yield self.read(min(nbytes - before, PIECE), what, before)

    def at_end(self) -> bool:
        """Whether nothing follows."""
        raise NotImplementedError

    def read_to_end(self, most: int, what: str) -> bytes:
        """All that is left. Raises StreamError where that is more than ``most``; and as read()."""
        data = bytearray()
        while piece := self._some():
            if len(data) + len(piece) > most:
                raise StreamError(
                    f"{what} is longer than {most} bytes", offset=self.offset, expected="the end"
                )
            data += piece
        return bytes(data)

    def _some(self) -> bytes:
        """The next bytes, as many as there are at once, a PIECE at the most; none at the end."""
        raise NotImplementedError

    def _truncated(self, got: int, what: str, before: int = 0) -> Truncated:
        """The error for an end after ``got`` more of the bytes that were wanted."""
        self.offset += got
        got += before
        where = f"{got} bytes into {what}" if got else f"where {what} should begin"
        return Truncated(
            f"the {self.noun} ends {where}",
            offset=self.offset,
            remedy="the image is truncated: get a whole copy of it",
            at_end=True,
        )


class LookaheadReader(ByteReader):
    """Bytes that nobody else reads on, so that it is no harm to take more than was asked for."""

    reads_everything: bool = True
    """Whether bytes that are skipped are read all the same."""

    def peek(self, nbytes: int) -> bytes:
        """The next bytes, at most ``nbytes``, fewer at the end; they stay unread."""
        raise NotImplementedError

    def at_end(self) -> bool:
        return not self.peek(1)

    def _some(self) -> bytes:
        return self.read(len(self.peek(PIECE)), "the image")


def waiting(fd: int, read: Callable[[], T]) -> T:
    """What ``read()`` returns, which reads ``fd``. Where that is in non-blocking mode, which is up
    to the code that opened it, this waits until there is something to read."""
    while True:
        try:
            return read()
        except BlockingIOError:
            wait_until_readable(fd)


def wait_until_readable(fd: int) -> None:
    """Wait until a read of ``fd`` would not; of a named pipe, until somebody writes into it."""
    poll = select.poll()  # select() takes no fd beyond 1,023
    poll.register(fd, select.POLLIN)
    poll.poll()
