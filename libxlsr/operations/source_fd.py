"""An image's bytes, from a path or from an fd that the caller has open."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Union

from libxlsr.errors import TargetError
from libxlsr.walk.source import ReadError

Source = Union[str, "os.PathLike[str]", int]
"""An image's path, or an open fd, which stays the caller's."""


@contextmanager
def opened(source: Source) -> Iterator[int]:
    """The fd to read ``source`` from. Raises TargetError where none can."""
    if isinstance(source, int):
        yield source
        return
    path = os.fspath(source)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise TargetError.from_oserror(error, f"can't open {path}", call="open") from error
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise TargetError(f"can't read {path}", errno=errno.EISDIR)
        yield fd
    except ReadError as error:
        error.message = f"can't read {path}"
        raise
    finally:
        os.close(fd)
