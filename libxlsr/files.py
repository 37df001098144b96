"""Writing all of it: a write that meets a full disk or a size limit in its middle returns a short
count, and no error; only the next one, of what was left, raises OSError."""

from __future__ import annotations

import os


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write ``data`` where the fd stands. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def pwrite_all(fd: int, data: bytes | bytearray | memoryview, position: int) -> None:
    """Write ``data`` at ``position`` of the file. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, position)
        view = view[written:]
        position += written
