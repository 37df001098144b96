"""One read() from an fd that select() called ready, which does not block even if it is so no more.

Whoever shares a pipe or a socket may read from it too, and be first. Then read() on a blocking fd
waits, and the loop with it. O_NONBLOCK would prevent that, but it belongs to everybody who shares
the open file, and any of them may clear it again. So each single read says that it shall not wait:

==================  ==========================================================================
RWF_NOWAIT          sockets and pipes, Linux 6.4 and later (preadv2(2)). Not a pipe that was
                    opened by a name, nor one after a splice(): the kernel takes it back then.
SPLICE_F_NONBLOCK   any pipe, Python 3.10 and later (splice(2))
MSG_DONTWAIT        any socket (recv(2))
==================  ==========================================================================

All else gets a plain read(). Regular files and block devices are always ready; RWF_NOWAIT would
read no more of them than the page cache holds. For terminals there is nothing of the kind.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Callable, Union

SPLICE_F_NONBLOCK = 2  # uapi/linux/splice.h; Python has no name for it

_RWF_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)  # musl has it since 1.2.5
_CAN_SPLICE = hasattr(os, "splice")

ReadReady = Callable[[int, int], Union[bytes, bytearray]]


def read_ready_for(fd: int) -> ReadReady:
    """The way to read from an fd of this kind: ``read(fd, size)``, as `os.read`.

    It raises BlockingIOError where there is nothing to read, even if the fd is a blocking one.
    """
    try:
        mode = os.fstat(fd).st_mode
    except OSError:  # EBADF: read() will say so
        return os.read
    if stat.S_ISSOCK(mode):
        return _read_socket
    if stat.S_ISFIFO(mode):
        return _read_pipe
    return os.read


def _read_socket(fd: int, size: int) -> bytes | bytearray:
    data = _read_nowait(fd, size)
    return _receive(fd, size) if data is None else data


def _read_pipe(fd: int, size: int) -> bytes | bytearray:
    data = _read_nowait(fd, size)
    if data is not None:
        return data
    return _splice(fd, size) if _CAN_SPLICE else os.read(fd, size)


def _read_nowait(fd: int, size: int) -> bytearray | None:
    """None where RWF_NOWAIT is not to be had."""
    if _RWF_NOWAIT is None:
        return None
    buffer = bytearray(size)
    try:
        count = os.preadv(fd, [buffer], -1, _RWF_NOWAIT)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return None
    del buffer[count:]
    return buffer


def _receive(fd: int, size: int) -> bytes:
    blocking = os.get_blocking(fd)
    sock = socket.socket(fileno=fd)  # where there is a default timeout, it blocks no longer
    try:
        return sock.recv(size, socket.MSG_DONTWAIT)
    finally:
        sock.detach()
        os.set_blocking(fd, blocking)


def _splice(fd: int, size: int) -> bytes:
    """By way of a pipe that nobody else has."""
    read_end, write_end = os.pipe()
    try:
        count = os.splice(fd, write_end, size, flags=SPLICE_F_NONBLOCK)
        return os.read(read_end, count) if count else b""
    finally:
        os.close(read_end)
        os.close(write_end)
