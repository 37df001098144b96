"""Where libxc's part of a stream is read from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LibxcStream:
    """Where the libxc stream is read from.

    The fd is in blocking mode and belongs to the target until its *done* callback, except while it
    is lent out for a checkpoint.
    """

    fd: int
    offset: int
    """Of the libxc stream's first byte in the whole stream."""
    prefix: bytes = b""
    """The libxc stream's first bytes where they were read from the fd already: those by which a
    bare libxc stream was recognised. Empty in a libxl stream."""
