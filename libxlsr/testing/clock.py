"""A clock that stands still until it is told the time."""

from __future__ import annotations


class FakeClock:
    """``Context(clock=FakeClock())``: time passes by ``advance`` only, forwards or backwards."""

    def __init__(self, now: float = 1000.0) -> None:
        self.time = now

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass; with a negative number the clock goes back."""
        self.time += seconds
