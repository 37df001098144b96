"""An image's bytes, from a path or from an fd that the caller has open."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Union

from libxlsr.errors import TargetError
from libxlsr.source.byte_reader import ReadError

PathOrFd = Union[str, "os.PathLike[str]", int]
"""An image's path, or an open fd, which stays the caller's."""


def described(source: PathOrFd) -> str:
    """``source`` as a message names it."""
    if isinstance(source, int):
        return f"fd {source}" if source else "standard input"
    return os.fsdecode(source)


@contextmanager
def opened(source: PathOrFd) -> Iterator[int]:
    """The fd to read ``source`` from. Raises TargetError where none can."""
    if isinstance(source, int):
        yield source
        return
    path = os.fspath(source)
    # open() would wait for a named pipe's writer, and no deadline would end that. Whoever reads
    # waits until there is something to read, as of any pipe.
    flags = os.O_NONBLOCK if _is_fifo(path) else 0
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except OSError as error:
        raise TargetError.from_oserror(error, f"can't open {path}", call="open") from error
    try:
        os.set_blocking(fd, True)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise TargetError(f"can't read {path}", errno=errno.EISDIR)
        yield fd
    except ReadError as error:
        error.message = f"can't read {path}"
        raise
    finally:
        os.close(fd)


def _is_fifo(path: str | bytes) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):  # open() will say so
        return False
