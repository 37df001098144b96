"""Where a walk's bytes come from: a file that is skipped through, or bytes that flow past.

A ``FileSource`` reads a regular file with pread, leaves the fd's position alone and passes over
what nobody wants to see. A ``FlowSource`` reads a pipe or a decompressor's output to its end.
Neither holds more than what was asked for and one buffer.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable, Iterator
from typing import ClassVar

from libxlsr.errors import StreamError, TargetError

_WINDOW = 8 * 1024 + 64
"""Bytes of one pread: a record's header and the frame list of a sender's PAGE_DATA, 8 KiB."""

PIECE = 256 * 1024
"""Bytes at a time of what is not held as a whole: a multiple of a page, and fits into a processor's
cache."""

_AHEAD = 16 << 20
"""Bytes of one sendfile(), which does not end for a signal."""

_FLOW = 1 << 20


class Truncated(StreamError):
    """The bytes end in the middle of something. ``rule`` is the finding's id."""

    rule: ClassVar[str] = "truncated"


class CompressionDamaged(Truncated):
    """The decompressor could go no further."""

    rule = "compression"


class ReadError(TargetError):
    """The system does not give the image's bytes. Who knows the image's path may say it."""

    @classmethod
    def of(cls, error: OSError) -> TargetError:
        """For what read() said."""
        return cls.from_oserror(error, "can't read the image", call="read")


class Source:
    """Bytes in their order. ``offset`` is the next one's."""

    offset: int = 0
    reads_everything: bool = True
    """Whether bytes that are skipped are read all the same."""

    def read(self, nbytes: int, what: str, before: int = 0) -> bytes:
        """The next ``nbytes``. Raises Truncated, with ``what`` in the message, and TargetError.

        ``before``: bytes of it that were read already.
        """
        raise NotImplementedError

    def skip(self, nbytes: int, what: str) -> None:
        """Pass over ``nbytes``. Raises as read() does."""
        raise NotImplementedError

    def peek(self, nbytes: int) -> bytes:
        """The next bytes, at most ``nbytes``, fewer at the end; they stay unread."""
        raise NotImplementedError

    def at_end(self) -> bool:
        """Whether nothing follows."""
        return not self.peek(1)

    def read_to_end(self, most: int, what: str) -> bytes:
        """All that is left. Raises StreamError where that is more than ``most``; and as read()."""
        data = bytearray()
        while piece := self.peek(PIECE):
            if len(data) + len(piece) > most:
                raise StreamError(
                    f"{what} is longer than {most} bytes", offset=self.offset, expected="the end"
                )
            data += self.read(len(piece), what)
        return bytes(data)

    def pieces(self, nbytes: int, what: str) -> Iterator[bytes | memoryview]:
        """The next ``nbytes``, in pieces of PIECE (the last one may be shorter), each of which is
        there until the next one is asked for."""
        for before in range(0, nbytes, PIECE):
            yield self.read(min(nbytes - before, PIECE), what, before)

    def _truncated(self, got: int, what: str, before: int = 0) -> Truncated:
        """The error for an end after ``got`` of the bytes that were wanted."""
        self.offset += got
        got += before
        where = f"{got} bytes into {what}" if got else f"where {what} should begin"
        return Truncated(f"the image ends {where}", offset=self.offset)


class FileSource(Source):
    """A regular file or block device, from the fd's position on. The fd stays the caller's.

    ``full``: read what is skipped too, so that a bad sector is found.
    """

    def __init__(self, fd: int, *, full: bool = False) -> None:
        self._fd = fd
        self._base = os.lseek(fd, 0, os.SEEK_CUR)
        self.size = max(os.lseek(fd, 0, os.SEEK_END) - self._base, 0)
        os.lseek(fd, self._base, os.SEEK_SET)
        self.reads_everything = full
        self._window = b""
        self._window_start = 0
        self._ahead = 0  # the kernel has read what lies between ``offset`` and here
        self._scratch = memoryview(bytearray(PIECE if full else 0))

    def read(self, nbytes: int, what: str, before: int = 0) -> bytes:
        start = self.offset - self._window_start
        if start < 0 or start + nbytes > len(self._window):
            if nbytes > self.size - self.offset:
                raise self._truncated(max(self.size - self.offset, 0), what, before)
            self._fill(nbytes, what, before)
            start = 0
        self.offset += nbytes
        return self._window[start : start + nbytes]

    def skip(self, nbytes: int, what: str) -> None:
        if nbytes > self.size - self.offset:
            raise self._truncated(max(self.size - self.offset, 0), what)
        end = self.offset + nbytes
        if self.reads_everything and nbytes and not self._read_ahead(end):
            self.offset = max(self.offset, min(self._ahead, end))
            while self.offset < end:
                before = self.offset - (end - nbytes)
                self._read_piece(min(end - self.offset, PIECE), what, before)
        self.offset = end

    def pieces(self, nbytes: int, what: str) -> Iterator[bytes | memoryview]:
        if not self.reads_everything:
            yield from super().pieces(nbytes, what)
            return
        for before in range(0, nbytes, PIECE):
            count = min(nbytes - before, PIECE)
            if count > self.size - self.offset:
                raise self._truncated(max(self.size - self.offset, 0), what, before)
            yield self._read_piece(count, what, before)

    def peek(self, nbytes: int) -> bytes:
        count = min(nbytes, self.size - self.offset)
        data = self.read(count, "the image")
        self.offset -= count
        return data

    def _fill(self, nbytes: int, what: str, before: int) -> None:
        position = self._base + self.offset
        try:
            data = os.pread(self._fd, max(nbytes, _WINDOW), position)
            while len(data) < nbytes:
                more = os.pread(self._fd, nbytes - len(data), position + len(data))
                if not more:  # somebody cut it off while it was read
                    raise self._truncated(len(data), what, before)
                data += more
        except OSError as error:
            raise ReadError.of(error) from error
        self._window, self._window_start = data, self.offset

    def _read_ahead(self, end: int) -> bool:
        """Let the kernel read up to ``end`` and further without giving it to us, which takes a
        tenth of the time; False if it can't. Reading says then what is wrong."""
        try:
            while self._ahead < end:
                start = max(self._ahead, self.offset)
                with open(os.devnull, "wb", buffering=0) as null:
                    sent = os.sendfile(null.fileno(), self._fd, self._base + start, _AHEAD)
                if not sent:
                    return False
                self._ahead = start + sent
        except OSError:
            return False
        return True

    def _read_piece(self, nbytes: int, what: str, before: int) -> memoryview:
        """The next ``nbytes``, at most PIECE, in the one buffer for them."""
        got = 0
        while got < nbytes:
            try:
                view = self._scratch[got:nbytes]
                count = os.preadv(self._fd, [view], self._base + self.offset + got)
            except OSError as error:
                raise ReadError.of(error) from error
            if not count:  # somebody cut it off while it was read
                raise self._truncated(got, what, before)
            got += count
        self.offset += nbytes
        return self._scratch[:nbytes]


class FlowSource(Source):
    """Bytes that come in chunks of any size from ``next_chunk``; b"" is the end."""

    def __init__(self, next_chunk: Callable[[], bytes]) -> None:
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


def is_seekable(fd: int) -> bool:
    """Whether ``fd`` is a regular file or a block device, and says how long it is."""
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        return False
    try:
        here = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, 0, os.SEEK_END)
        os.lseek(fd, here, os.SEEK_SET)
    except OSError:  # much of /proc
        return False
    return True


def wait_until_readable(fd: int) -> None:
    """Wait until a read of ``fd`` would not; of a named pipe, until somebody writes into it."""
    waiting = select.poll()  # select() takes no fd beyond 1,023
    waiting.register(fd, select.POLLIN)
    waiting.poll()


def fd_chunks(fd: int, most: int = _FLOW) -> Callable[[], bytes]:
    """What a FlowSource reads a pipe with, ``most`` bytes at a time. Raises TargetError."""

    def next_chunk() -> bytes:
        while True:
            try:
                return os.read(fd, most)
            except BlockingIOError:  # whoever made the pipe set O_NONBLOCK, for all its users
                wait_until_readable(fd)
            except OSError as error:
                raise ReadError.of(error) from error

    return next_chunk


def decompressed_chunks(codec: str, fd: int, prefix: bytes) -> Callable[[], bytes]:
    """What a FlowSource reads compressed bytes with; ``prefix`` was read from ``fd`` before.

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
