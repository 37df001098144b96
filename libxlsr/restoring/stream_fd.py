"""The stream's fd as a restore uses it: the caller's duplicated, and blocking while it is lent."""

from __future__ import annotations

import errno
import fcntl
import os

from libxlsr.errors import TargetError


def duplicate(fd: int) -> int:
    """The same open file at an fd above the standard ones, of which a helper has its own.

    Raises TargetError when ``fd`` is not open.
    """
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    except (OSError, ValueError) as error:  # ValueError: a negative number
        number = error.errno if isinstance(error, OSError) else errno.EBADF
        raise TargetError("can't use the stream's fd", errno=number, call="dup") from error


class Loan:
    """An fd that the target has for a while. It blocks then: libxenguest's read_exact() fails on
    EAGAIN (libs/ctrl/xc_private.c).
    """

    def __init__(self) -> None:
        self._lent: tuple[int, bool] | None = None

    @property
    def lent(self) -> bool:
        """Whether the target has it."""
        return self._lent is not None

    def lend(self, fd: int) -> None:
        """The target has it from now on."""
        self._lent = (fd, os.get_blocking(fd))
        os.set_blocking(fd, True)

    def take_back(self) -> None:
        """The fd blocks or not as it did before. Harmless when it is not lent."""
        if self._lent is not None:
            os.set_blocking(*self._lent)
            self._lent = None
