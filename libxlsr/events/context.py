"""The context: what libxl_ctx is to libxl's event machinery. One thread, no global state.

The chain of events of one round::

    prepare()            which fds, for what, and for how long to wait
    (somebody waits)     the built-in loop, asyncio, a test
    dispatch(ready)      gather:  fds that are ready, then timers that are due, go on the egc
                         drain:   the egc runs, first in first out, until it is empty

An operation that a caller starts enters a ``frame()``. What it gathers runs when the outermost
frame is left, or, outside any frame, at the next ``dispatch``. Callbacks run inside a frame, so a
frame that one of them enters is an inner one: nothing nests.

*An exception from a callback* leaves ``dispatch`` (or the frame) at once. The callback that raised
it counts as run; what was gathered after it stays on the egc and runs at the next ``dispatch``,
for which ``prepare`` then says timeout 0. An exception in the body of a frame passes through, and
what the body had gathered waits for the next ``dispatch`` in the same way. Nothing is lost, and
each exception reaches somebody.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Callable, NamedTuple

from libxlsr.events.egc import Callback, Egc, ImmediateEvent
from libxlsr.events.fd_events import FdCallback, FdEvent, FdTable
from libxlsr.events.time_events import TimeEvent, TimerHeap


class Prepared(NamedTuple):
    """What to wait for: each fd with READ, WRITE or both; ``timeout`` in seconds, None: forever."""

    fds: Mapping[int, int]
    timeout: float | None


class Frame:
    """What ``Context.frame`` returns; the outermost one drains the egc when it is left."""

    __slots__ = ("_enter", "_leave")

    def __init__(self, enter: Callable[[], None], leave: Callable[[bool], None]) -> None:
        self._enter = enter
        self._leave = leave

    def __enter__(self) -> None:
        self._enter()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(exc_type is not None)


class Context:
    """Registrations, the egc, and the two halves of a loop.

    It belongs to the process that made it: in a child that was forked from that one, it refuses to
    prepare, to dispatch and to be entered (RuntimeError), and touches no child process.

    ``clock`` returns seconds and should not jump (default: CLOCK_MONOTONIC).

    ``on_change`` is libxl's osevent hook in one: it is called when registrations or gathered
    callbacks changed outside ``dispatch``, so that a foreign loop prepares again. Inside
    ``dispatch`` it is not called: a loop prepares again after each dispatch anyway. It must not
    raise, and it prepares later, not from inside the call.

    ``on_fd_change(fd, interest)`` is libxl's osevent fd hooks in one (libxl_event.h), for a loop
    that keeps fds registered between two waits. It is called at once, inside ``dispatch`` too.
    Interest 0 says that the fd must leave the loop *now*: its owner closes it next, its number may
    be given out again, and epoll would go on to report an open file that a child still holds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pid = os.getpid()
        self._egc = Egc()
        self._fds = FdTable(self._fd_changed)
        self._timers = TimerHeap(self._changed)
        self._frame = Frame(self._enter, self._leave)
        self._changed_in_frame = False
        self.on_change: Callable[[], None] | None = None
        self.on_fd_change: Callable[[int, int], None] | None = None

    def now(self) -> float:
        """The clock's time in seconds."""
        return self._clock()

    # Registration. No callback is ever called from inside the call that registered it.

    def call_soon(self, callback: Callback, *args: Any) -> ImmediateEvent:
        """Gather ``callback(*args)`` on the egc."""
        event = ImmediateEvent(callback, args)
        self._egc.gather(event)
        self._changed()
        return event

    def watch_fd(
        self, fd: int, interest: int, callback: FdCallback, *, what: str | None = None
    ) -> FdEvent:
        """Call ``callback(ready)`` in each round in which ``fd`` is ready for ``interest``.

        ``interest`` is READ, WRITE, both, or 0 for a watch that starts paused. Raises ValueError
        for a negative fd, and when the fd is already watched for the same direction.
        """
        return self._fds.watch(fd, interest, callback, what)

    def call_at(self, when: float, callback: Callback, *args: Any) -> TimeEvent:
        """Call ``callback(*args)`` once, in the first round at or after ``when``."""
        return self._timers.add(when, callback, args)

    def call_later(self, delay: float, callback: Callback, *args: Any) -> TimeEvent:
        """Call ``callback(*args)`` once, ``delay`` seconds from now."""
        return self._timers.add(self._clock() + delay, callback, args)

    def frame(self) -> Frame:
        """A context manager for an entry point: ``with ctx.frame(): ...``."""
        return self._frame

    @property
    def forked(self) -> bool:
        """Whether this is a child that was forked from the context's process."""
        return os.getpid() != self._pid

    @property
    def entered(self) -> bool:
        """Whether this is inside a frame or a callback, where nothing may wait or dispatch."""
        return self._egc.depth > 0

    # The loop's two halves.

    def prepare(self) -> Prepared:
        """What to wait for, and for how long."""
        self._check_process()
        return Prepared(self._fds.interest(), self.timeout())

    def timeout(self) -> float | None:
        """For how long to wait, in seconds; None: until an fd is ready."""
        if self._egc.pending:
            return 0.0
        when = self._timers.next_when()
        return None if when is None else max(0.0, when - self._clock())

    def dispatch(self, ready: Mapping[int, int], now: float | None = None) -> None:
        """Gather what ``ready`` and the time give rise to, and run everything gathered.

        ``now`` is read from the clock when not given. Raises RuntimeError inside a frame or a
        callback, and whatever a callback raises (see the top of this file).
        """
        self._begin_dispatch("dispatch()")
        try:
            self.gather(ready, now)
            self._egc.drain()
        finally:
            self._end_dispatch()

    # Stepping by hand: dispatch() in single steps.

    def gather(self, ready: Mapping[int, int], now: float | None = None) -> None:
        """The first half of ``dispatch``: put events on the egc, run nothing."""
        self._fds.gather(ready, self._egc)
        if self._timers:
            self._timers.gather(self._clock() if now is None else now, self._egc)

    def step(self) -> bool:
        """Run exactly one gathered callback. False when there was none."""
        self._begin_dispatch("step()")
        try:
            return self._egc.run_one()
        finally:
            self._end_dispatch()

    def registered(self) -> list[str]:
        """What is still registered or gathered, one line each; empty when all is torn down."""
        return self._fds.describe() + self._timers.describe() + self._egc.describe()

    def _check_process(self) -> None:
        if self.forked:
            raise RuntimeError(
                f"this context belongs to process {self._pid}, which forked this one"
            )

    def _begin_dispatch(self, call: str) -> None:
        self._check_process()
        if self.entered:
            raise RuntimeError(f"{call} inside a frame or a callback: callbacks never nest")
        self._egc.depth = 1

    def _end_dispatch(self) -> None:
        self._egc.depth = 0
        self._changed_in_frame = False  # who dispatches prepares again anyway

    def _enter(self) -> None:
        self._check_process()
        self._egc.depth += 1

    def _leave(self, failed: bool) -> None:
        if self._egc.depth > 1:
            self._egc.depth -= 1
            return
        try:
            if not failed:
                self._egc.drain()
        finally:
            self._egc.depth = 0
            if self._changed_in_frame:
                self._changed_in_frame = False
                self._changed()

    def _fd_changed(self, fd: int, interest: int) -> None:
        if self.on_fd_change is not None:
            self.on_fd_change(fd, interest)
        self._changed()

    def _changed(self) -> None:
        if self._egc.depth:
            self._changed_in_frame = True
        elif self.on_change is not None:
            self.on_change()
