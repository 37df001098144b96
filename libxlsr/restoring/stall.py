"""Deadlines for a stream that stands still: because of its sender, or because of a helper.

It stands still when no byte of it is taken, by the reader or by a helper, and a helper that has the
fd tells of nothing else that it did. If no byte waits to be taken, the sender is silent. If one
does, or the stream has ended, the helper is stuck that should take it; where none runs then, the
restore is busy with something else: a target that makes room or a queue for helpers is neither. A
file is never silent.
"""

from __future__ import annotations

import select
from typing import Callable

from libxlsr.errors import TimedOut
from libxlsr.events import Context, Timer
from libxlsr.restoring.timeouts import Timeouts

LOOKS = 4
"""Looks in each limit: it is noticed after one limit at the earliest, 1.25 at the latest."""

_SENDER, _HELPER, _NOBODY = range(3)


class StallWatch:
    """Calls ``expired`` once, when the stream on ``fd`` has stood still for too long.

    ``moved()`` changes whenever something of the stream was taken or acted on; ``helper_has_it()``
    says whether a helper should be doing so.
    """

    def __init__(
        self,
        ctx: Context,
        fd: int,
        timeouts: Timeouts,
        *,
        moved: Callable[[], int],
        helper_has_it: Callable[[], bool],
        expired: Callable[[TimedOut], None],
    ) -> None:
        self._ctx = ctx
        self._limits = {_SENDER: timeouts.silence, _HELPER: timeouts.helper, _NOBODY: None}
        self._moved = moved
        self._helper_has_it = helper_has_it
        self._expired = expired
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._before = (-1, _NOBODY)
        self._since = ctx.now()
        self._timer = Timer(ctx)
        given = [limit for limit in self._limits.values() if limit is not None]
        self._interval = min(given) / LOOKS if given else None

    def start(self) -> None:
        """Look for the first time."""
        if self._interval is not None:
            self._look(self._interval)

    def stop(self) -> None:
        """Look no more. Harmless when repeated."""
        self._timer.stop()

    def _look(self, interval: float) -> None:
        now = self._ctx.now()
        seen = (self._moved(), self._whose_turn())
        if seen != self._before:
            self._before = seen
            self._since = now
        limit = self._limits[seen[1]]
        if limit is not None and now - self._since >= limit:
            who = "sender has sent" if seen[1] == _SENDER else "helper has done"
            self._expired(TimedOut(f"the {who} nothing for {limit:g} s"))
            return
        self._timer.set(interval, self._look, interval)

    def _whose_turn(self) -> int:
        if not self._poll.poll(0):
            return _SENDER
        return _HELPER if self._helper_has_it() else _NOBODY
