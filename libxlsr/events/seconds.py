"""Times as a caller gives them: checked before anything is started that would have to be undone."""

from __future__ import annotations

from libxlsr.errors import UsageError

SECONDS_MAX = 1e9
"""Some thirty years. What is longer than a loop can wait is meant as for ever, which is None."""


def check_limit(seconds: float | None, what: str) -> None:
    """Raises UsageError where ``seconds`` is neither None nor a time that one can wait."""
    check_deadline(seconds, what)
    if seconds is not None and seconds <= 0:
        raise UsageError(f"{what}: {seconds:g} is no time to wait", remedy="None is for ever")


def check_deadline(seconds: float | None, what: str = "the deadline") -> None:
    """The same, but it may have passed already: what is left of a time, down to below 0."""
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise UsageError(f"{what}: {seconds!r} is no number of seconds")
    if not abs(seconds) < SECONDS_MAX:  # nor is NaN
        raise UsageError(
            f"{what}: {seconds!r} is no number of seconds below {SECONDS_MAX:g}",
            remedy="None is for ever",
        )
