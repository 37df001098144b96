"""A limit on helpers: how many restores may have theirs running at the same time.

A restore takes one *place* for all its helpers, the decompressor and the target's, before it starts
the first: were they counted one by one, restores that have a decompressor and wait for the other
place would wait for each other for ever. It waits before it prepares its target, so no domain holds
memory in the queue. First come, first served; who gives up leaves the queue.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Callable

from libxlsr.events import Context, ImmediateEvent


class HelperLimit:
    """At most ``limit`` restores with running helpers; the default is one for each CPU it may use.

    One limit serves any number of contexts of one thread.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = len(os.sched_getaffinity(0)) if limit is None else limit
        if self.limit < 1:
            raise ValueError(f"a limit of {self.limit} helpers would let nothing run")
        self._held = 0
        self._queue: deque[Place] = deque()

    @property
    def running(self) -> int:
        """How many places are taken."""
        return self._held

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._queue)

    def _take(self, place: Place) -> bool:
        if self._held < self.limit:
            self._held += 1
            return True
        self._queue.append(place)
        return False

    def _leave(self, place: Place) -> None:
        self._queue.remove(place)

    def _give_back(self) -> None:
        if self._queue:
            self._queue.popleft()._granted()
        else:
            self._held -= 1


class Place:
    """One restore's place, or its wait for one. ``limit`` None: there is always one."""

    def __init__(self, ctx: Context, limit: HelperLimit | None) -> None:
        self._ctx = ctx
        self._limit = limit
        self._held = False
        self._go: Callable[[], None] | None = None
        self._event: ImmediateEvent | None = None

    @property
    def waiting(self) -> bool:
        """Whether it stands in the queue."""
        return self._go is not None and not self._held

    def take(self, go: Callable[[], None]) -> None:
        """Call ``go``: now where this place is held or free, else when its turn has come."""
        assert self._go is None
        if not self._held and self._limit is not None and not self._limit._take(self):
            self._go = go
            return
        self._held = True
        go()

    def give_back(self) -> None:
        """Let the next one have the place, or leave the queue. Harmless when repeated."""
        if self._event is not None:
            self._event.deregister()
            self._event = None
        if self._limit is not None:
            if self._held:
                self._limit._give_back()
            elif self._go is not None:
                self._limit._leave(self)
        self._held = False
        self._go = None

    def _granted(self) -> None:
        self._held = True
        assert self._go is not None
        self._event = self._ctx.call_soon(self._go_on)

    def _go_on(self) -> None:
        go, self._go = self._go, None
        self._event = None
        assert go is not None
        go()
