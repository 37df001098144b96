"""The child in which libxenguest reads the libxc stream, from the parent's side (``worker`` is the
child's).

Python takes as long to start as many a domain to be read. So the child is spawned before the domain
is made, and loads libxenguest meanwhile.
"""

from __future__ import annotations

import os
import stat
from typing import Any, Callable, NamedTuple, Optional

from libxlsr.domain.config import DomainConfig
from libxlsr.domain.create import BuildState
from libxlsr.domain.host import XenHost
from libxlsr.errors import Aborted, LibxlsrError, TargetError
from libxlsr.events import Context
from libxlsr.events.chain import Done
from libxlsr.helper.parent import LogCallback
from libxlsr.stream.libxc_stream import LibxcStream

WORKER = "libxlsr.domain.save_helper.worker"


class Rings(NamedTuple):
    """The frames of the rings that the domain shares with xenstored and xenconsoled."""

    store_gfn: int
    console_gfn: int


RingsDone = Callable[[Optional[Rings], Optional[LibxlsrError]], None]


class RestoreHelper:
    """One such child: ``read``, or ``retire``. Raises TargetError when it can't be started."""

    def __init__(self, ctx: Context, host: XenHost) -> None:
        self._helper = host.helper(ctx, WORKER, on_done=self._ended, on_log=self._log)
        self._ctx = ctx
        self._on_log: LogCallback | None = None
        self._outcome: tuple[dict[str, Any] | None, LibxlsrError | None] | None = None
        self._done: RingsDone | None = None
        self._retired: Done | None = None
        self._helper.spawn()

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        return self._helper.pid

    def read(
        self,
        stream: LibxcStream,
        state: BuildState,
        config: DomainConfig,
        on_log: LogCallback,
        done: RingsDone,
    ) -> None:
        """Have libxenguest read the stream. ``done(rings, error)`` comes once, from the loop."""
        self._on_log = on_log
        self._done = done
        if self._outcome is not None:  # it has died before there was anything to read
            self._ctx.call_soon(_report, done, *self._outcome)
            return
        args = {
            "domid": state.domid,
            "store_port": state.store_port,
            "store_domid": state.store_domid,
            "console_port": state.console_port,
            "console_domid": state.console_domid,
            "pae": config.hvm is None or config.hvm.pae,
            "itsc": config.disable_migrate or config.tsc_mode == 1,
            "nested_hvm": config.nested_hvm,
        }
        self._helper.begin(args, {"io_fd": stream.fd})

    def abort(self, reason: LibxlsrError) -> None:
        """Stop the child; *done* comes with an error. Nothing happens while it reads nothing."""
        if self._done is not None:
            self._helper.abort(reason)

    def retire(self, retired: Done) -> None:
        """End a child that was given nothing to read. ``retired(error)`` comes once, from the loop,
        with the error that names a child which does not end."""
        if self._outcome is not None:
            self._ctx.call_soon(retired, None)
            return
        self._retired = retired
        self._helper.abort(Aborted("the helper is not needed"))

    def _log(self, level: int, text: str) -> None:
        if self._on_log is not None:
            self._on_log(level, text)

    def _ended(self, result: dict[str, Any] | None, error: LibxlsrError | None) -> None:
        self._outcome = result, error
        if self._done is not None:
            _report(self._done, result, error)
        elif self._retired is not None:
            self._retired(self._helper.left_behind)


def _report(done: RingsDone, result: dict[str, Any] | None, error: LibxlsrError | None) -> None:
    if result is None:
        done(None, error)
        return
    try:
        rings = _rings(result)
    except TargetError as wrong:
        done(None, wrong)
    else:
        done(rings, None)


def rewind(stream: LibxcStream) -> int | None:
    """Give libxenguest the bytes back by which a bare libxc stream was recognised.

    Returns the file offset of the stream's start, None on a pipe. Raises TargetError on a pipe from
    which bytes were taken.
    """
    if stat.S_ISREG(os.fstat(stream.fd).st_mode):
        return os.lseek(stream.fd, -len(stream.prefix), os.SEEK_CUR)
    if stream.prefix:
        raise TargetError(
            "a bare libxc stream can't be restored from a pipe",
            remedy="store it in a file first",
        )
    return None


def _rings(untrusted_result: dict[str, Any]) -> Rings:
    """The child ran libxenguest on hostile input: its numbers are checked, too."""
    numbers = []
    for name in Rings._fields:
        number = untrusted_result.get(name)
        if not isinstance(number, int) or not 0 <= number < 1 << 52:
            raise TargetError(f"the helper reported frame {number!r} for a ring")
        numbers.append(number)
    return Rings(*numbers)
