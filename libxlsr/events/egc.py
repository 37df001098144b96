"""The egc: callbacks are gathered here and run when the outermost frame unwinds.

The name is libxl's ("event generation context", libxl_internal.h). The rule is the same: nothing
that notices an event calls anybody. It puts the event on the queue; the queue is run, first in
first out, by whoever entered libxlsr first, after everything else on the stack has returned. So no
callback ever runs inside another one, and no stream can grow the stack.

An exception from a callback leaves the queue as it stands: the rest runs at the next drain.
"""

from __future__ import annotations

import functools
from collections import deque
from typing import Any, Callable

Callback = Callable[..., Any]


def callback_name(callback: Callback) -> str:
    """What a person calls this callback: its qualified name, or its repr when it has none."""
    while isinstance(callback, functools.partial):
        callback = callback.func
    name = getattr(callback, "__qualname__", None)
    return name if isinstance(name, str) else repr(callback)


class Event:
    """Something that can be gathered on an egc. ``registered`` turns False once and for all."""

    __slots__ = ("gathered", "registered")

    def __init__(self) -> None:
        self.registered = True
        self.gathered = False

    @property
    def live(self) -> bool:
        """Whether ``fire`` would call anybody: not after the event was deregistered."""
        return self.registered

    def fire(self) -> None:
        """Call the callback. For the egc only."""
        raise NotImplementedError

    def describe(self) -> str:
        """One line for a person, as ``Context.registered`` shows it."""
        raise NotImplementedError


class ImmediateEvent(Event):
    """A callback that is due at once (libxl: an egc entry)."""

    __slots__ = ("_args", "_callback")

    def __init__(self, callback: Callback, args: tuple[Any, ...]) -> None:
        super().__init__()
        self._callback: Callback | None = callback
        self._args = args

    def fire(self) -> None:
        callback, args = self._callback, self._args
        self.deregister()
        assert callback is not None
        callback(*args)

    def deregister(self) -> None:
        """The callback will not come. Harmless when it has already come."""
        self.registered = False
        self._callback = None
        self._args = ()

    def describe(self) -> str:
        assert self._callback is not None
        return f"immediate: {callback_name(self._callback)}"


class Egc:
    """The queue of gathered events and the depth of frames above it."""

    __slots__ = ("_queue", "depth")

    def __init__(self) -> None:
        self._queue: deque[Event] = deque()
        self.depth = 0

    @property
    def pending(self) -> bool:
        """Whether a gathered event waits to be run."""
        queue = self._queue
        while queue and not queue[0].live:
            queue.popleft().gathered = False
        return bool(queue)

    def gather(self, event: Event) -> None:
        """Put ``event`` at the end of the queue, unless it is in it already."""
        if not event.gathered:
            event.gathered = True
            self._queue.append(event)

    def run_one(self) -> bool:
        """Run the first gathered event. False when there was none.

        The caller holds ``depth`` above zero, so that a frame entered by the callback is an inner
        one.
        """
        if not self.pending:
            return False
        event = self._queue.popleft()
        event.gathered = False
        event.fire()
        return True

    def drain(self) -> None:
        """Run gathered events, and those which they give rise to, until none is left."""
        while self.run_one():
            pass

    def describe(self) -> list[str]:
        """The gathered events, in their order."""
        return [f"pending {event.describe()}" for event in self._queue if event.live]
