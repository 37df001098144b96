"""The tree of errors: every way in which a restore can go wrong, as the caller sees it.

Each class carries libxl's integer code (``rc``, from libxl_types.idl, "error") for those who know
them, and the command line's exit code. ``str()`` of any of them is one line: what is wrong, where,
what was expected, what to do.

==================  =========  ====  ==================================================
class               exit code  rc    meaning
==================  =========  ====  ==================================================
StreamError         1          -6    the bytes are wrong (ERROR_INVAL)
UsageError          2          -6    the caller asked for something impossible
TargetError         3          -3    Xen or the machine said no (ERROR_FAIL)
BackendUnavailable  3          -4    something is not installed (ERROR_NI)
Aborted             4          -22   the caller gave up (ERROR_ABORTED)
TimedOut            4          -9    a deadline passed (ERROR_TIMEDOUT)
==================  =========  ====  ==================================================
"""

from __future__ import annotations

import os
from typing import ClassVar


class LibxlsrError(Exception):
    """Any error of libxlsr. ``rc`` is libxl's code, ``exit_code`` the command line's.

    ``later`` holds the errors that came after this one in the same operation: the first one wins.
    """

    rc: ClassVar[int] = -3
    exit_code: ClassVar[int] = 3
    at_end: bool = False
    """Whether the bytes only ended too early. Of what a decompressor or a converter gives, its own
    error says why."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.later: list[LibxlsrError] = []

    def _parts(self) -> list[str]:
        return [self.message]

    def __str__(self) -> str:
        parts = self._parts()
        if self.remedy:
            parts.append(self.remedy)
        return "; ".join(parts)


class StreamError(LibxlsrError):
    """The bytes are wrong.

    ``offset`` counts from the first byte that the reader was given (None where it can't be known:
    on a pipe that libxenguest has read from). ``record`` names the record, ``expected`` says what
    should have stood there. ``at_end``: nothing that came was wrong, but the bytes ended too early.
    """

    rc = -6
    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        offset: int | None,
        record: str | None = None,
        expected: str | None = None,
        remedy: str | None = None,
        at_end: bool = False,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.offset = offset
        self.at_end = at_end
        self.record = record
        self.expected = expected

    def _parts(self) -> list[str]:
        where = "" if self.offset is None else f"at offset {self.offset:#x}"
        if self.record is not None:
            where = f"{where}, {self.record}" if where else f"in {self.record}"
        text = f"{where}: {self.message}" if where else self.message
        if self.expected is not None:
            text = f"{text}, expected {self.expected}"
        return [text]


class UsageError(LibxlsrError):
    """What was asked for contradicts itself or the image."""

    rc = -6
    exit_code = 2


class TargetError(LibxlsrError):
    """Xen or the machine said no.

    ``errno`` is the system's error number, ``call`` the call that returned it, ``last_log`` the
    last line that libxenguest (or another program) logged before it.
    """

    rc = -3
    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        errno: int | None = None,
        call: str | None = None,
        last_log: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.errno = errno
        self.call = call
        self.last_log = last_log

    @classmethod
    def from_oserror(cls, error: OSError, doing: str, *, call: str | None = None) -> TargetError:
        """The TargetError for a failed system call; ``doing`` says what was attempted."""
        return cls(doing, errno=error.errno, call=call)

    @classmethod
    def from_unexpected(cls, error: MemoryError | OSError) -> TargetError:
        """The TargetError for what nobody expected: what may well fail says itself what it was."""
        if isinstance(error, MemoryError):
            return cls("out of memory")
        return cls.from_oserror(error, "the system refused a call")

    def _parts(self) -> list[str]:
        text = self.message
        if self.call is not None:
            text = f"{text}: {self.call} failed"
        if self.errno is not None:
            text = f"{text}: {os.strerror(self.errno)}"
        if self.last_log is not None:
            text = f"{text} (last log line: {self.last_log})"
        return [text]


class BackendUnavailable(LibxlsrError):
    """Something this needs is not installed or not running; ``remedy`` says how to get it."""

    rc = -4
    exit_code = 3


class Aborted(LibxlsrError):
    """The caller aborted the operation."""

    rc = -22
    exit_code = 4

    def __init__(self, message: str = "aborted", *, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)


class TimedOut(Aborted):
    """A deadline passed before the operation was done."""

    rc = -9

    def __init__(self, message: str = "timed out", *, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)


def as_error(error: Exception, doing: str) -> LibxlsrError:
    """The error itself, or a TargetError for a system call's, or for what must not happen.

    The latter names the exception, has it as its cause, and its traceback goes to the debug log.
    ``doing`` says what failed: "finish the domain".
    """
    if isinstance(error, LibxlsrError):
        return error
    if isinstance(error, OSError):
        file = "" if error.filename is None else f" ({error.filename})"
        return TargetError.from_oserror(error, f"could not {doing}{file}")
    import logging  # here: verify and inspect, which start often, do without it

    logging.getLogger(__name__).debug("internal error: could not %s", doing, exc_info=error)
    internal = TargetError(
        f"internal error: could not {doing}: {type(error).__name__}: {error}",
        remedy="please report it, with what is logged at level debug",
    )
    internal.__cause__ = error
    return internal
