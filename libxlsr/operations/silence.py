"""A deadline for silence: the sender of a stream has sent nothing for a while.

Silence is when no byte of the stream has been taken, by the reader or by a helper, *and* none waits
to be taken. So a helper that computes, a target that makes room or a queue for helpers is never
taken for a silent sender: its bytes wait meanwhile. A file is never silent.
"""

from __future__ import annotations

import select
from typing import Callable

from libxlsr.errors import TimedOut
from libxlsr.events import Context, TimeEvent

LOOKS = 4
"""Looks in each limit: silence is noticed after one limit at the earliest, 1.25 at the latest."""


class SilenceWatch:
    """Calls ``expired`` once, when the sender on ``fd`` has been silent for ``limit`` seconds.

    ``taken()`` says how much was taken from the fd; in what unit does not matter.
    """

    def __init__(
        self,
        ctx: Context,
        fd: int,
        limit: float,
        taken: Callable[[], int],
        expired: Callable[[TimedOut], None],
    ) -> None:
        self._ctx = ctx
        self._limit = limit
        self._taken = taken
        self._expired = expired
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._before = -1
        self._heard = ctx.now()
        self._timer: TimeEvent | None = None
        self._look()

    def stop(self) -> None:
        """Look no more. Harmless when repeated."""
        if self._timer is not None:
            self._timer.deregister()
            self._timer = None

    def _look(self) -> None:
        now, taken = self._ctx.now(), self._taken()
        if taken != self._before or self._poll.poll(0):
            self._before = taken
            self._heard = now
        elif now - self._heard >= self._limit:
            self._timer = None
            self._expired(TimedOut(f"the sender has sent nothing for {self._limit:g} s"))
            return
        self._timer = self._ctx.call_later(self._limit / LOOKS, self._look)
