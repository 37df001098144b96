"""Python's signal handlers, called only where an exception of theirs does no harm."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any


class HeldHandlers:
    """Holds all of Python's signal handlers within, but for where it is told to `release` them.

    Python calls a handler between any two instructions, in the midst of a callback of the loop too,
    and most of them raise (KeyboardInterrupt): what the callback was to go on with would then never
    come. In a thread that is not the main one no handler is called, and nothing is done. A child
    that a callback forks has its handlers called at once.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._came: list[int] = []
        self._held = False
        self._pid = os.getpid()

    def __enter__(self) -> HeldHandlers:
        self._held = True
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler):
                try:
                    signal.signal(number, self._handle)
                except ValueError:  # not the main thread
                    break
                self._handlers[number] = handler
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._handle:  # else a callback has set its own
                signal.signal(number, handler)
        self._call_those_that_came()

    def release(self) -> None:
        """Call the handlers of the signals that came, and from here on at once."""
        self._held = False
        self._call_those_that_came()

    def hold(self) -> None:
        """Call none from here on."""
        self._held = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._held and os.getpid() == self._pid:
            self._came.append(number)
        else:
            self._handlers[number](number, frame)

    def _call_those_that_came(self) -> None:
        while self._came:
            number = self._came.pop(0)
            self._handlers[number](number, None)
