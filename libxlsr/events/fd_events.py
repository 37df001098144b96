"""fd events: who waits for which file descriptor, and for what."""

from __future__ import annotations

import selectors
from collections.abc import Mapping
from typing import Callable

from libxlsr.events.egc import Egc, Event, callback_name

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

FdCallback = Callable[[int], object]


def interest_name(interest: int) -> str:
    """``read``, ``write``, ``read+write`` or ``paused``."""
    names = [name for bit, name in ((READ, "read"), (WRITE, "write")) if interest & bit]
    return "+".join(names) or "paused"


class FdEvent(Event):
    """One watch on one fd. The callback is given what the fd is ready for (READ, WRITE or both).

    It is level triggered: as long as the fd is ready, each round calls back once.
    """

    __slots__ = ("_callback", "_table", "_what", "fd", "interest", "ready")

    def __init__(
        self, table: FdTable, fd: int, interest: int, callback: FdCallback, what: str | None
    ) -> None:
        super().__init__()
        self._table = table
        self._callback: FdCallback | None = callback
        self._what = what or callback_name(callback)
        self.fd = fd
        self.interest = interest
        self.ready = 0

    @property
    def live(self) -> bool:
        return bool(self.ready & self.interest)

    def fire(self) -> None:
        ready, self.ready = self.ready, 0
        assert self._callback is not None
        self._callback(ready)

    def modify(self, interest: int) -> None:
        """Wait for ``interest`` from now on; 0 pauses.

        Readiness that was gathered for something no longer wanted is forgotten, and does not come
        back with the interest: by then it may be stale, and a blocking fd would block.
        """
        if not self.registered:
            raise ValueError(f"fd {self.fd}: the event is deregistered")
        if interest != self.interest:
            self._table.set_interest(self, interest)
            self.ready &= interest

    def deregister(self) -> None:
        """No callback comes any more, not even one that was gathered. Harmless when repeated.

        To be called *before* the fd is closed, because its number may be given out again.
        """
        if self.registered:
            self._table.remove(self)
            self.registered = False
            self.interest = 0
            self._callback = None

    def describe(self) -> str:
        return f"fd {self.fd} {interest_name(self.interest)}: {self._what}"


class FdTable:
    """All fd events of a context. One fd may have several, none for the same direction twice.

    Two readers of one fd would take each other's bytes, and on a blocking fd the second would block
    the loop on a readiness that the first one has used up.
    """

    def __init__(self, changed: Callable[[int, int], None]) -> None:
        """``changed(fd, interest)`` is told what to wait for on an fd from now on."""
        self._changed = changed
        self._events: dict[int, list[FdEvent]] = {}
        self._interest: dict[int, int] = {}

    def watch(self, fd: int, interest: int, callback: FdCallback, what: str | None) -> FdEvent:
        if fd < 0:
            raise ValueError(f"not a file descriptor: {fd}")
        event = FdEvent(self, fd, 0, callback, what)
        self._check(event, interest)
        self._events.setdefault(fd, []).append(event)
        event.interest = interest
        self._sum_up(fd)
        return event

    def set_interest(self, event: FdEvent, interest: int) -> None:
        self._check(event, interest)
        event.interest = interest
        self._sum_up(event.fd)

    def remove(self, event: FdEvent) -> None:
        events = self._events[event.fd]
        events.remove(event)
        if not events:
            del self._events[event.fd]
        self._sum_up(event.fd)

    def interest(self) -> dict[int, int]:
        """What to wait for: fd to READ, WRITE or both."""
        return self._interest.copy()

    def gather(self, ready: Mapping[int, int], egc: Egc) -> None:
        """Gather the events for fds that are ready. Fds that nobody watches are ignored."""
        for fd, bits in ready.items():
            for event in self._events.get(fd, ()):
                hit = bits & event.interest
                if hit:
                    event.ready |= hit
                    egc.gather(event)

    def describe(self) -> list[str]:
        return [event.describe() for events in self._events.values() for event in events]

    def _check(self, event: FdEvent, interest: int) -> None:
        if interest & ~(READ | WRITE):
            raise ValueError(f"interest {interest:#x} has bits other than READ and WRITE")
        for other in self._events.get(event.fd, ()):
            clash = interest & other.interest
            if other is not event and clash:
                raise ValueError(
                    f"fd {event.fd} is already watched for {interest_name(clash)}: "
                    f"{other.describe()}"
                )

    def _sum_up(self, fd: int) -> None:
        interest = 0
        for event in self._events.get(fd, ()):
            interest |= event.interest
        if interest:
            self._interest[fd] = interest
        else:
            self._interest.pop(fd, None)
        self._changed(fd, interest)
