"""Scripted fds: each read() and write() does what the script says, in its order.

The kernel can't be made to return EINTR, one byte, EAGAIN and EIO in a chosen order; a script can.
The fd itself is real (``/dev/null``, always ready for both), so every loop takes it; only
``os.read`` and ``os.write`` are replaced, for this fd and for as long as the ``with`` lasts::

    with ScriptedFd(reads=[b"LibxlFmt", EAGAIN, EINTR, b"\\0\\0\\0\\2", EOF]) as fd:
        datacopier.read_exactly(fd.fileno(), 16, callback, what="header")

Once the script is at its end the fd is not ready for anybody who asks it (AssertionError).
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Callable, Union

EOF = b""
EAGAIN = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
EINTR = OSError(errno.EINTR, os.strerror(errno.EINTR))

ReadStep = Union[bytes, OSError]
WriteStep = Union[int, OSError]


def chunked(data: bytes, size: int) -> list[bytes]:
    """``data`` in pieces of ``size`` bytes; ``chunked(data, 1)`` is byte by byte."""
    return [data[start : start + size] for start in range(0, len(data), size)]


class ScriptedFd:
    """An fd that follows a script.

    ``reads``: bytes are what arrives (a read that asks for less takes the front, the rest stays),
    EOF is the end of the file, an OSError is raised. ``writes``: a number is how many bytes one
    write() accepts at most, an OSError is raised.

    ``requests`` lists the sizes that read() was asked for, ``written`` what write() accepted,
    ``unread`` is what no read() has taken. Scripted fds are left in the opposite order of their
    entering.
    """

    def __init__(self, reads: Iterable[ReadStep] = (), writes: Iterable[WriteStep] = ()) -> None:
        self._reads = deque(reads)
        self._writes = deque(writes)
        self._fd = -1
        self._os_read: Callable[[int, int], bytes] = os.read
        self._os_write: Callable[[int, Any], int] = os.write
        self.requests: list[int] = []
        self.written = bytearray()

    def fileno(self) -> int:
        """The number of the fd, as a file has it; what is read and written goes by the script."""
        return self._fd

    @property
    def unread(self) -> bytes:
        """What the script still holds for a reader, errors left out."""
        return b"".join(step for step in self._reads if isinstance(step, bytes))

    @property
    def finished(self) -> bool:
        """Whether each step has been used."""
        return not self._reads and not self._writes

    def __enter__(self) -> ScriptedFd:
        self._fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._os_read, self._os_write = os.read, os.write
        os.read, os.write = self._read, self._write
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.read, os.write = self._os_read, self._os_write
        os.close(self._fd)
        self._fd = -1

    def _read(self, fd: int, size: int) -> bytes:
        if fd != self._fd:
            return self._os_read(fd, size)
        self.requests.append(size)
        assert self._reads, f"read() of {size} bytes past the end of the script"
        step = self._reads.popleft()
        if isinstance(step, OSError):
            raise OSError(step.errno, step.strerror)
        if len(step) > size:
            self._reads.appendleft(step[size:])
        return step[:size]

    def _write(self, fd: int, data: Any) -> int:
        if fd != self._fd:
            return self._os_write(fd, data)
        assert self._writes, f"write() of {len(data)} bytes past the end of the script"
        step = self._writes.popleft()
        if isinstance(step, OSError):
            raise OSError(step.errno, step.strerror)
        accepted = bytes(data[:step])
        self.written += accepted
        return len(accepted)
