"""Waiting for what only time brings."""

from __future__ import annotations

import time
from collections.abc import Callable

GOES_ON_SECONDS = 90.0
"""What all has that is waited for, a restored guest's sign of life above all: mostly ten times what
it takes."""

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.2


def wait_until(condition: Callable[[], bool], what: str, seconds: float = GOES_ON_SECONDS) -> None:
    """Wait until the condition holds; an AssertionError says that ``what`` did not come."""
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s for {what}")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
