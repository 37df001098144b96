"""Ways to hand a stream over: whole or in pieces, by files, pipes and sockets.

::

    with feed("pieces", data, sizes=[7, 1]) as fd:      # never two pieces in one read
        ao = restore_ao(ctx, fd, target=target)
"""

from __future__ import annotations

import fcntl
import itertools
import os
import select
import socket
import sys
import tempfile
import termios
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

WAYS = (
    "file",
    "pipe",
    "socket",
    "nonblocking pipe",
    "nonblocking socket",
    "high fd",
    "bytes",
    "pieces",
)
"""What ``feed`` knows. "high fd" is a pipe beyond select()'s 1024 fds. "bytes" is one that gives a
single byte to each read, "pieces" one into which the next piece comes when it is empty."""

HIGH_FD = 1500


@contextmanager
def feed(way: str, data: bytes, *, sizes: Iterable[int] = (65536,)) -> Iterator[int]:
    """An fd from which ``data`` can be read, and then its end.

    A thread writes pieces of the ``sizes``, over and over; it stops when nobody reads any more. The
    fd is closed at the end of the ``with``.
    """
    if way == "file":
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            file.seek(0)
            yield file.fileno()
        return
    fd, write_end = _ends(way)
    sizes = [1] if way == "bytes" else list(sizes)
    writer = threading.Thread(target=_write, args=(write_end, data, sizes, way == "pieces"))
    writer.start()
    try:
        yield fd
    finally:
        os.close(fd)
        writer.join()


def _ends(way: str) -> tuple[int, int]:
    if way.endswith("socket"):
        ours, theirs = socket.socketpair()
        fd, write_end = ours.detach(), theirs.detach()
    elif way == "bytes":
        # Packet mode: each write() is read by a read() of its own, which drops what it doesn't
        # take. Of one byte nothing is dropped.
        fd, write_end = os.pipe2(os.O_CLOEXEC | os.O_DIRECT)
    else:
        fd, write_end = os.pipe()
    if way == "high fd":
        low, fd = fd, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
        os.close(low)
    if way.startswith("nonblocking"):
        os.set_blocking(fd, False)
    return fd, write_end


def _unread(fd: int) -> int:
    """How many bytes a pipe holds."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def _is_read(fd: int) -> bool:
    """Whether a pipe's other end is open still."""
    poll = select.poll()
    poll.register(fd, 0)
    return not poll.poll(0)


def _write(fd: int, data: bytes, sizes: list[int], paced: bool) -> None:
    view = memoryview(data)
    write: Callable[[int, memoryview], int] = os.write
    try:
        for size in itertools.cycle(sizes):
            if not view:
                break
            piece, view = view[:size], view[size:]
            while piece:
                piece = piece[write(fd, piece) :]
            while paced and _unread(fd) and _is_read(fd):
                os.sched_yield()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the reader has what it wants
    finally:
        os.close(fd)
