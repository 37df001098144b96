"""Reads a regular file or block device at any place, and passes over what nobody wants to see."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from libxlsr.source.byte_reader import PIECE, LookaheadReader, ReadError

_WINDOW = 8 * 1024 + 64
"""Bytes of one pread: a record's header and the frame list of a sender's PAGE_DATA, 8 KiB."""

_AHEAD = 16 << 20
"""Bytes of one sendfile(), which does not end for a signal."""


class FileReader(LookaheadReader):
    """A regular file or block device. Neither the fd nor its position changes; it stays the
    caller's."""

    def __init__(
        self, fd: int, *, full: bool = False, position: int | None = None, offset: int = 0
    ) -> None:
        """``full``: read what is skipped too, so that a bad sector is found. ``position`` is the
        first byte's in the file (default: the fd's), ``offset`` what it counts as."""
        self._fd = fd
        here = os.lseek(fd, 0, os.SEEK_CUR)
        position = here if position is None else position
        self._base = position - offset
        self._end = max(os.lseek(fd, 0, os.SEEK_END) - self._base, offset)
        os.lseek(fd, here, os.SEEK_SET)
        self.offset = offset
        self.reads_everything = full
        self._window = b""
        self._window_start = offset
        self._ahead = offset  # the kernel has read what lies between ``offset`` and here
        self._buffer = memoryview(b"")

    def read(self, nbytes: int, what: str, before: int = 0) -> bytes:
        start = self.offset - self._window_start
        if start < 0 or start + nbytes > len(self._window):
            if nbytes > self._end - self.offset:
                raise self._truncated(self._end - self.offset, what, before)
            self._fill(nbytes, what, before)
            start = 0
        self.offset += nbytes
        return self._window[start : start + nbytes]

    def skip(self, nbytes: int, what: str) -> None:
        if nbytes > self._end - self.offset:
            raise self._truncated(self._end - self.offset, what)
        end = self.offset + nbytes
        if self.reads_everything and nbytes and not self._read_ahead(end):
            self.offset = max(self.offset, min(self._ahead, end))
            while self.offset < end:
                before = self.offset - (end - nbytes)
                self._read_piece(min(end - self.offset, PIECE), what, before)
        self.offset = end

    def pieces(self, nbytes: int, what: str) -> Iterator[bytes | memoryview]:
        for before in range(0, nbytes, PIECE):
            count = min(nbytes - before, PIECE)
            if count > self._end - self.offset:
                raise self._truncated(self._end - self.offset, what, before)
            yield self._read_piece(count, what, before)

    def peek(self, nbytes: int) -> bytes:
        count = min(nbytes, self._end - self.offset)
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
        if not self._buffer:
            self._buffer = memoryview(bytearray(PIECE))
        got = 0
        while got < nbytes:
            try:
                view = self._buffer[got:nbytes]
                count = os.preadv(self._fd, [view], self._base + self.offset + got)
            except OSError as error:
                raise ReadError.of(error) from error
            if not count:  # somebody cut it off while it was read
                raise self._truncated(got, what, before)
            got += count
        self.offset += nbytes
        return self._buffer[:nbytes]


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
