"""A helper's child with a deadline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from libxlsr.domain.host import XenHost
from libxlsr.errors import LibxlsrError, TimedOut
from libxlsr.events import Context, Timer
from libxlsr.events.chain import Done
from libxlsr.helper.parent import LogCallback


class TimedChild:
    """Runs a worker; done when the child has gone.

    ``doing`` says what it does, in the message when it takes longer than ``timeout`` seconds.
    """

    def __init__(
        self,
        ctx: Context,
        host: XenHost,
        worker: str,
        args: Mapping[str, Any],
        *,
        doing: str,
        timeout: float,
        on_log: LogCallback,
    ) -> None:
        self._ctx = ctx
        self._args = args
        self._doing = doing
        self._timeout = timeout
        self._done: Done | None = None
        self._timer = Timer(ctx)
        self._helper = host.helper(ctx, worker, on_done=self._ended, on_log=on_log)

    def start(self, done: Done) -> None:
        """Start it. ``done(error)`` comes once, from the event loop. Raises TargetError as
        `Helper.spawn` does; *done* won't come then."""
        self._helper.start(self._args)
        self._done = done
        self._timer.set(self._timeout, self._timed_out)

    def _timed_out(self) -> None:
        self._helper.abort(TimedOut(f"{self._doing} took longer than {self._timeout:g} s"))

    def _ended(self, _result: dict[str, Any] | None, error: LibxlsrError | None) -> None:
        self._timer.stop()
        done, self._done = self._done, None
        if done is not None:
            done(error)
