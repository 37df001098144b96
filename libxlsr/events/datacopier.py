"""The datacopier: moves bytes between fds and buffers on the event loop, never one too many.

What it promises, whatever kind of fd it is given (pipe, socket, regular file; blocking or not):

* It takes exactly the bytes that it was asked for. After the 8 bytes of a LIBXC_CONTEXT header the
  next byte on the fd is libxenguest's; after END it is the migration handshake's.
* End of file before the last byte is ``Outcome.EOF``. It is never success.
* It makes one read() or write() per readiness. A read() does not block, even if somebody else was
  first to take what was ready (`read_ready`). select() promises that a write() of up to PIPE_BUF
  bytes won't; more than that is written only where the fd does not block. O_NONBLOCK belongs to
  everybody who shares the open file, so it is left as it is.
* Memory grows with what has arrived, not with what a header said would come.

Closing the reading end of a pipe makes write() raise SIGPIPE. Python ignores that signal from its
start, so it becomes EPIPE and ``Outcome.FAILED``; a program that gives SIGPIPE its default back
must live with being killed.
"""

from __future__ import annotations

import enum
import os
import select
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Union

from libxlsr.events.context import Context
from libxlsr.events.egc import ImmediateEvent
from libxlsr.events.fd_events import READ, WRITE, FdEvent
from libxlsr.events.read_ready import ReadReady, read_ready_for

# The most that one read() or write() moves: large enough that a regular file is read at the disk's
# speed, small enough that the loop stays alive and that a hostile length allocates no more.
CHUNK = 1 << 20

BytesLike = Union[bytes, bytearray, memoryview]


class Outcome(enum.Enum):
    """How a transfer ended."""

    DONE = "done"
    EOF = "end of file"
    FAILED = "failed"


@dataclass(frozen=True)
class CopyResult:
    """What a transfer's callback is given.

    ``nbytes``: read_exactly: bytes read; write: bytes written; copy: bytes read and written, the
    prefix not counted. ``data``: what read_exactly read, also when it came to EOF or failed.
    ``error``: the system's error of FAILED, and ``on_write`` says on which side it happened.
    ``what``: the words with which the transfer was started.
    """

    outcome: Outcome
    nbytes: int
    data: bytearray = field(default_factory=bytearray)
    error: OSError | None = None
    on_write: bool = False
    what: str = ""


CopyCallback = Callable[[CopyResult], object]


class Datacopier:
    """One transfer at a time; ``active`` from its start until its callback is called or ``kill``.

    The callback may start the next transfer. Starting one while another is active raises
    RuntimeError; a negative size, or an fd that somebody else watches, ValueError. ``what`` says in
    a word or two what is moved, for messages. ``received`` counts the bytes that all transfers have
    read so far, also of one that is not over.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.received = 0
        self._callback: CopyCallback | None = None
        self._clear()

    @property
    def active(self) -> bool:
        return self._callback is not None

    def read_exactly(self, fd: int, nbytes: int, callback: CopyCallback, *, what: str) -> None:
        """Read exactly ``nbytes`` bytes from ``fd``."""
        self._start(callback, what, readfd=fd, nbytes=nbytes)

    def write(self, fd: int, data: BytesLike, callback: CopyCallback, *, what: str) -> None:
        """Write all of ``data`` to ``fd``. ``data`` is not copied: leave it alone until then."""
        self._start(callback, what, writefd=fd, data=data, nbytes=0)

    def copy(
        self,
        readfd: int,
        writefd: int,
        callback: CopyCallback,
        *,
        what: str,
        prefix: BytesLike = b"",
        nbytes: int | None = None,
    ) -> None:
        """Write ``prefix`` to ``writefd``, then what ``readfd`` gives.

        With ``nbytes`` exactly so many bytes are copied and an earlier end of file is EOF; without,
        the end of file is where the copy is DONE.
        """
        self._start(callback, what, readfd=readfd, writefd=writefd, data=prefix, nbytes=nbytes)

    def kill(self) -> None:
        """Stop: nothing stays registered and no callback will come. Harmless when not active."""
        for event in (self._reader, self._writer, self._completion):
            if event is not None:
                event.deregister()
        self._clear()

    def _clear(self) -> None:
        self._callback = None
        self._what = ""
        self._reader: FdEvent | None = None
        self._read: ReadReady = os.read
        self._writer: FdEvent | None = None
        self._completion: ImmediateEvent | None = None
        self._remaining: int | None = None  # to be read still; None: until end of file
        self._incoming = bytearray()  # read_exactly: what has arrived
        self._outgoing = memoryview(b"")  # write, copy: what is to be written next
        self._nread = 0
        self._nwritten = 0

    def _start(
        self,
        callback: CopyCallback,
        what: str,
        *,
        readfd: int | None = None,
        writefd: int | None = None,
        data: BytesLike = b"",
        nbytes: int | None,
    ) -> None:
        if self.active:
            raise RuntimeError(f"{what}: the datacopier is still busy with {self._what}")
        if nbytes is not None and nbytes < 0:
            raise ValueError(f"{what}: can't move {nbytes} bytes")
        self._callback = callback
        self._what = what
        self._remaining = nbytes
        try:
            self._outgoing = memoryview(data).cast("B") if data else memoryview(b"")
            if readfd is not None:
                self._reader = self._ctx.watch_fd(readfd, 0, self._readable, what=f"reading {what}")
                self._read = read_ready_for(readfd)
            if writefd is not None:
                self._writer = self._ctx.watch_fd(
                    writefd, 0, self._writable, what=f"writing {what}"
                )
            if self._outgoing or nbytes != 0:
                self._await_fd()
            else:
                self._completion = self._ctx.call_soon(self._finish, Outcome.DONE)
        except BaseException:
            self.kill()
            raise

    def _await_fd(self) -> None:
        """Wait for the writing side while anything is to be written, else for the reading side.

        So a copy holds one chunk at most, and the side that is not waited for can't disturb: a
        POLLHUP on it would otherwise wake the loop for nothing.
        """
        writing = bool(self._outgoing)
        if self._reader is not None:
            self._reader.modify(0 if writing else READ)
        if self._writer is not None:
            self._writer.modify(WRITE if writing else 0)

    def _readable(self, ready: int) -> None:
        assert self._reader is not None
        size = CHUNK if self._remaining is None else min(CHUNK, self._remaining)
        try:
            chunk = self._read(self._reader.fd, size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._finish(Outcome.FAILED, error)
            return
        if not chunk:
            self._finish(Outcome.DONE if self._remaining is None else Outcome.EOF)
            return
        self._nread += len(chunk)
        self.received += len(chunk)
        if self._remaining is not None:
            self._remaining -= len(chunk)
        if self._writer is None:
            self._incoming += chunk
            if self._remaining == 0:
                self._finish(Outcome.DONE)
        else:
            self._outgoing = memoryview(chunk)
            self._await_fd()

    def _writable(self, ready: int) -> None:
        assert self._writer is not None
        fd = self._writer.fd
        try:
            count = os.write(fd, self._outgoing[: _write_size(fd)])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._finish(Outcome.FAILED, error, on_write=True)
            return
        self._nwritten += count
        self._outgoing = self._outgoing[count:]
        if not self._outgoing:
            if self._remaining == 0:
                self._finish(Outcome.DONE)
            else:
                self._await_fd()

    def _finish(
        self, outcome: Outcome, error: OSError | None = None, on_write: bool = False
    ) -> None:
        if self._writer is None:
            nbytes = self._nread
        elif self._reader is None:
            nbytes = self._nwritten
        else:
            nbytes = self._nread - len(self._outgoing) if self._nread else 0
        result = CopyResult(outcome, nbytes, self._incoming, error, on_write, self._what)
        callback = self._callback
        assert callback is not None
        self.kill()
        callback(result)


def _write_size(fd: int) -> int:
    """How much one write() to ``fd`` may be, so that it does not block once the fd is writable."""
    if os.get_blocking(fd) and not stat.S_ISREG(os.fstat(fd).st_mode):
        return select.PIPE_BUF
    return CHUNK
