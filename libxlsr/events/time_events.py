"""Time events: a heap of callbacks, each due once at a time of the context's clock."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Any, Callable

from libxlsr.events.egc import Callback, Egc, Event, callback_name

# A heap can't drop an entry from its middle cheaply. Deregistered entries stay until they reach the
# top, or until they are this many and more than half; then the heap is built anew.
DEAD_ENTRIES_MIN = 64


class TimeEvent(Event):
    """A callback that is due once, at ``when`` seconds of the context's clock."""

    __slots__ = ("_args", "_callback", "_heap", "when")

    def __init__(
        self, heap: TimerHeap, when: float, callback: Callback, args: tuple[Any, ...]
    ) -> None:
        super().__init__()
        self._heap = heap
        self._callback: Callback | None = callback
        self._args = args
        self.when = when

    def fire(self) -> None:
        callback, args = self._callback, self._args
        self._forget()
        assert callback is not None
        callback(*args)

    def deregister(self) -> None:
        """The callback will not come, not even when it was gathered. Harmless when repeated."""
        if self.registered:
            self._forget()
            self._heap.deregistered(self)

    def describe(self) -> str:
        assert self._callback is not None
        return f"timer at {self.when:.3f}: {callback_name(self._callback)}"

    def _forget(self) -> None:
        self.registered = False
        self._callback = None
        self._args = ()


class TimerHeap:
    """All time events of a context that are not due yet, ordered by time, then by registration."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._heap: list[tuple[float, int, TimeEvent]] = []
        self._numbers = itertools.count()
        self._dead = 0

    def __len__(self) -> int:
        """Entries held, deregistered ones included."""
        return len(self._heap)

    def add(self, when: float, callback: Callback, args: tuple[Any, ...]) -> TimeEvent:
        if math.isnan(when):
            raise ValueError("a time event at NaN would never be due")
        event = TimeEvent(self, when, callback, args)
        heapq.heappush(self._heap, (when, next(self._numbers), event))
        self._changed()
        return event

    def deregistered(self, event: TimeEvent) -> None:
        if not event.gathered:
            self._dead += 1
            if self._dead > DEAD_ENTRIES_MIN and 2 * self._dead > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2].registered]
                heapq.heapify(self._heap)
                self._dead = 0
        self._changed()

    def next_when(self) -> float | None:
        """When the first event is due; None when there is none."""
        while self._heap and not self._heap[0][2].registered:
            heapq.heappop(self._heap)
            self._dead -= 1
        return self._heap[0][0] if self._heap else None

    def gather(self, now: float, egc: Egc) -> None:
        """Gather each event that is due at ``now``."""
        when = self.next_when()
        while when is not None and when <= now:
            egc.gather(heapq.heappop(self._heap)[2])
            when = self.next_when()

    def describe(self) -> list[str]:
        return [event.describe() for _, _, event in sorted(self._heap) if event.registered]
