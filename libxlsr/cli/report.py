"""What a command says: lines for people, or JSON objects for machines, one a line.

Results go to standard output; errors to standard error, or with ``--json`` to standard output too,
where the program that reads the others finds them. Progress is a bar on a terminal, when the
package rich is there, and nothing elsewhere.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from libxlsr.errors import LibxlsrError, StreamError, TargetError
from libxlsr.formats.text import printable

if TYPE_CHECKING:  # a command that shows no progress need not import what makes it
    from libxlsr.restoring.progress import Progress

JSON_INTERVAL = 0.5
"""Seconds between two progress objects of one phase, at the least."""

LINE_MAX = 2000


def one_line(text: str) -> str:
    """Text of any origin, fit for one line of a terminal."""
    return text if text.isprintable() else printable(text, LINE_MAX)


class OutputError(OSError):
    """Standard output can't be written, for another reason than that nobody reads it."""


@contextmanager
def printing() -> Iterator[None]:
    """Whatever the system says against printing is an OutputError, or BrokenPipeError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.errno, error.strerror) from error


class Report:
    """Says things, in the one way or the other."""

    def __init__(self, *, json: bool) -> None:
        self.json = json

    def line(self, text: str) -> None:
        """A line for people; nothing with ``--json``."""
        if not self.json:
            with printing():
                print(one_line(text))

    def event(self, event: str, **members: Any) -> None:
        """An object for machines; nothing without ``--json``."""
        if self.json:
            with printing():
                print(json.dumps({"event": event, **members}), flush=True)

    def error(self, error: LibxlsrError) -> None:
        """What went wrong, and what went wrong after it. Where standard error can't be written,
        the exit code alone says it."""
        if self.json:
            try:
                self.event("error", **error_members(error))
            except BrokenPipeError:  # whoever read it has gone; somebody may read the other one
                pass
            else:
                return
        with suppress(OSError):
            print(f"libxlsr: error: {one_line(str(error))}", file=sys.stderr)
            for later in error.later:
                print(f"libxlsr: then: {one_line(str(later))}", file=sys.stderr)


def error_members(error: LibxlsrError) -> dict[str, Any]:
    """An error as members of a JSON object."""
    members: dict[str, Any] = {
        "class": type(error).__name__,
        "message": str(error),
        "exit_code": error.exit_code,
        "rc": error.rc,
        "remedy": error.remedy,
    }
    if isinstance(error, StreamError):
        members.update(offset=error.offset, record=error.record, expected=error.expected)
    if isinstance(error, TargetError):
        members.update(errno=error.errno, call=error.call, last_log=error.last_log)
    members["later"] = [str(later) for later in error.later]
    return members


class ProgressDisplay:
    """Shows a restore's progress while it lasts."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._bar: Any = None
        self._task: Any = None
        self._last: Progress | None = None
        self._next_event = 0.0
        if not report.json and sys.stderr.isatty():
            self._bar = _rich_bar()

    def __enter__(self) -> ProgressDisplay:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("opening", total=None, pages="")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Show how far it has come."""
        if self._bar is not None:
            self._bar.update(
                self._task,
                description=progress.phase.value,
                completed=progress.position,
                total=progress.total,
                pages=f"{progress.frames} pages" if progress.frames else "",
            )
            self._bar.refresh()
        now = time.monotonic()
        new_phase = self._last is None or self._last.phase is not progress.phase
        if self._report.json and (new_phase or now >= self._next_event):
            self._next_event = now + JSON_INTERVAL
            self._report.event(
                "progress",
                phase=progress.phase.value,
                position=progress.position,
                total=progress.total,
                frames=progress.frames,
                records=progress.records,
                elapsed=round(progress.elapsed, 6),
                rate=round(progress.rate),
                time_left=None if progress.time_left is None else round(progress.time_left, 6),
            )
        self._last = progress


def _rich_bar() -> Any:
    """A bar of the package rich (the extra ``libxlsr[cli]``), or None without it."""
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        return None
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[pages]}"),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )
