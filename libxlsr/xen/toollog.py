"""Routes libxentoollog, with which Xen's libraries log, to Python's logging.

One ``ToolLog`` belongs to one handle. Its lines go to the logger ``libxlsr.xen`` (each record
carries ``xtl_context`` and ``xtl_errno``) or to a sink of the caller's, its progress reports to a
sink of the caller's. It remembers the last lines that were a warning or worse, so that an error
can carry them: the cause is often not the last, after it comes what failed because of it.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from typing import Callable, NamedTuple

from libxlsr.xen.backend import Backend, load
from libxlsr.xen.rawlib import CData

log = logging.getLogger("libxlsr.xen")

LAST_LINES = 3
"""How many lines an error carries."""


class LogLine(NamedTuple):
    """One message. ``level`` is one of Python's logging levels; ``errno`` is None where the
    library gave none."""

    level: int
    errno: int | None
    context: str
    text: str

    def __str__(self) -> str:
        line = f"{self.context}: {self.text}" if self.context else self.text
        return line if self.errno is None else f"{line}: {os.strerror(self.errno)}"


class ToolProgress(NamedTuple):
    """One progress report; ``total`` is in whatever ``doing`` counts (for a restore: none, 0)."""

    context: str
    doing: str
    percent: int
    done: int
    total: int


class ToolLog:
    """A xentoollog_logger. Keep it alive as long as the handle that logs through it."""

    def __init__(
        self,
        *,
        on_line: Callable[[LogLine], None] | None = None,
        on_progress: Callable[[ToolProgress], None] | None = None,
        backend: Backend | None = None,
    ) -> None:
        self.backend = backend or load()
        """The libraries that log through it."""
        _bind(self.backend)
        self._on_line = on_line or _to_logging
        self._on_progress = on_progress
        self._last: deque[LogLine] = deque(maxlen=LAST_LINES)
        self._failure: BaseException | None = None
        ffi, lib = self.backend
        self._handle = ffi.new_handle(self)
        self._logger = ffi.new("struct xlsr_logger *")
        lib.xlsr_logger_init(self._logger, self._handle)

    @property
    def pointer(self) -> CData:
        """The ``xentoollog_logger *`` for a C function."""
        return self.backend.lib.xlsr_logger_vtable(self._logger)

    def say(self, level: int, text: str, *, context: str = "", errno: int = -1) -> None:
        """Log a line through C, as the libraries do; ``level`` is an XTL_… number."""
        self.backend.lib.xlsr_logger_say(
            self._logger, level, errno, context.encode(), text.encode()
        )

    def take_last(self) -> str | None:
        """The last warnings and errors since this was last asked, and forget them."""
        lines = "; ".join(dict.fromkeys(str(line) for line in self._last))
        self._last.clear()
        return lines or None

    def raise_parked(self) -> None:
        """Raise what a sink raised while C code was calling it."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _message(self, line: LogLine) -> None:
        if line.level >= logging.WARNING:
            self._last.append(line)
        self._on_line(line)

    def _progress(self, report: ToolProgress) -> None:
        if self._on_progress is not None:
            self._on_progress(report)

    def _park(self, failure: BaseException) -> None:
        if self._failure is None:
            self._failure = failure


def _to_logging(line: LogLine) -> None:
    extra = {"xtl_context": line.context, "xtl_errno": line.errno}
    log.log(line.level, "%s", line, extra=extra)


_bound: Backend | None = None


def _bind(backend: Backend) -> None:
    """Give the two extern "Python" functions of the compiled module their bodies, once."""
    global _bound
    if _bound is backend:
        return
    ffi, lib = backend
    levels = {
        lib.XTL_DEBUG: logging.DEBUG,
        lib.XTL_VERBOSE: logging.DEBUG,
        lib.XTL_DETAIL: logging.DEBUG,
        lib.XTL_PROGRESS: logging.INFO,
        lib.XTL_INFO: logging.INFO,
        lib.XTL_NOTICE: logging.INFO,
        lib.XTL_WARN: logging.WARNING,
        lib.XTL_ERROR: logging.ERROR,
        lib.XTL_CRITICAL: logging.CRITICAL,
    }

    def text_of(pointer: CData) -> str:
        return ffi.string(pointer).decode("utf-8", "backslashreplace")

    @ffi.def_extern(name="xlsr_on_message")
    def on_message(handle: CData, level: int, errnoval: int, context: CData, text: CData) -> None:
        toollog: ToolLog = ffi.from_handle(handle)
        try:
            toollog._message(
                LogLine(
                    levels.get(level, logging.DEBUG),
                    None if errnoval < 0 else errnoval,
                    text_of(context),
                    text_of(text),
                )
            )
        except BaseException as failure:  # no exception may cross C
            toollog._park(failure)

    @ffi.def_extern(name="xlsr_on_progress")
    def on_progress(
        handle: CData, context: CData, doing: CData, percent: int, done: int, total: int
    ) -> None:
        toollog: ToolLog = ffi.from_handle(handle)
        try:
            toollog._progress(ToolProgress(text_of(context), text_of(doing), percent, done, total))
        except BaseException as failure:  # no exception may cross C
            toollog._park(failure)

    _bound = backend
