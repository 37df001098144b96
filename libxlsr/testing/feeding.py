"""Ways to hand a stream over: whole or in pieces, by files, pipes and sockets.

::

    with feed("packets", data, sizes=[1]) as fd:      # one byte at a time, really
        ao = restore_ao(ctx, fd, target)
"""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

WAYS = ("file", "pipe", "socket", "nonblocking pipe", "nonblocking socket", "high fd", "packets")
"""What ``feed`` knows. "high fd" is a pipe beyond select()'s 1024 fds; "packets" a pipe that gives
each piece to a read of its own (pipe(2), O_DIRECT)."""

HIGH_FD = 1500


@contextmanager
def feed(way: str, data: bytes, *, sizes: Iterable[int] = (65536,)) -> Iterator[int]:
    """An fd from which ``data`` can be read, and then its end.

    A thread writes pieces of the ``sizes``, over and over; it stops when the fd is closed, which
    happens at the end of the ``with``.
    """
    if way == "file":
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            file.seek(0)
            yield file.fileno()
        return
    fd, write_end = _ends(way)
    writer = threading.Thread(target=_write, args=(write_end, data, list(sizes)))
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
    elif way == "packets":
        fd, write_end = os.pipe2(os.O_CLOEXEC | os.O_DIRECT)
    else:
        fd, write_end = os.pipe()
    if way == "high fd":
        low, fd = fd, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
        os.close(low)
    if way.startswith("nonblocking"):
        os.set_blocking(fd, False)
    return fd, write_end


def _write(fd: int, data: bytes, sizes: list[int]) -> None:
    view = memoryview(data)
    write: Callable[[int, memoryview], int] = os.write
    try:
        for size in itertools.cycle(sizes):
            if not view:
                break
            piece, view = view[:size], view[size:]
            while piece:
                piece = piece[write(fd, piece) :]
    except (BrokenPipeError, ConnectionResetError):
        pass  # the reader has what it wants
    finally:
        os.close(fd)
