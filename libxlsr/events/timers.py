"""A timer that is set, set anew and stopped, without anybody asking whether it runs.

libxl's ``libxl__ev_time`` may be deregistered while it is idle (libxl_internal.h); so may this.
"""

from __future__ import annotations

from typing import Any

from libxlsr.events.context import Context
from libxlsr.events.egc import Callback
from libxlsr.events.time_events import TimeEvent


class Timer:
    """Calls back once each time it is set."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._event: TimeEvent | None = None

    @property
    def is_set(self) -> bool:
        """Whether a callback is to come."""
        return self._event is not None and self._event.registered

    def set(self, delay: float, callback: Callback, *args: Any) -> None:
        """Call ``callback(*args)`` ``delay`` seconds from now, and not at the time set before."""
        self.stop()
        self._event = self._ctx.call_later(delay, callback, *args)

    def stop(self) -> None:
        """The callback will not come. Harmless where none was to come."""
        if self._event is not None:
            self._event.deregister()
            self._event = None
