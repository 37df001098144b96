"""Steps that are taken one after the other on the event loop, any of which may have to wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Callable, Optional, Protocol

from libxlsr.errors import LibxlsrError, as_error
from libxlsr.events.context import Context
from libxlsr.events.egc import ImmediateEvent

Done = Callable[[Optional[LibxlsrError]], None]
"""Called once, from the event loop, when something has ended: with its error, or with None."""


class Step(Protocol):
    """One step."""

    def start(self, done: Done) -> None:
        """Begin; ``done(error)`` comes once, from the event loop.

        Raises LibxlsrError or OSError instead where it can't begin; *done* won't come then.
        """

    def stop(self) -> None:
        """Wait no longer: *done* won't come. What was done is not taken back."""


class Call:
    """A step that does not wait: a function."""

    def __init__(self, ctx: Context, function: Callable[[], object]) -> None:
        self._ctx = ctx
        self._function = function
        self._event: ImmediateEvent | None = None

    def start(self, done: Done) -> None:
        """See `Step`."""
        self._function()
        self._event = self._ctx.call_soon(done, None)

    def stop(self) -> None:
        """See `Step`."""
        if self._event is not None:
            self._event.deregister()


class Wait:
    """A step made of two functions, those of something that is more than a step."""

    def __init__(
        self, start: Callable[[Done], object], stop: Callable[[], object] = lambda: None
    ) -> None:
        self._start = start
        self._stop = stop

    def start(self, done: Done) -> None:
        """See `Step`."""
        self._start(done)

    def stop(self) -> None:
        """See `Step`."""
        self._stop()


class Chain:
    """Takes the steps in their order, until one fails. ``done(error)`` comes once, from the loop.

    ``steps`` is asked for the next step when the one before is done, so that a generator can go by
    what has come of those.

    ``doing`` says what the steps are for, in the message of a system call that fails: "finish the
    domain". Any exception of a step is an error that *done* gets (`as_error`): if it left the loop,
    *done* would never come, and nothing be undone.
    """

    def __init__(self, ctx: Context, steps: Iterable[Step], done: Done, *, doing: str) -> None:
        self._ctx = ctx
        self._steps: Iterator[Step] = iter(steps)
        self._done = done
        self._doing = doing
        self._current: Step | None = None

    def start(self) -> None:
        """Take the first step."""
        self._go_on(None)

    def abort(self, reason: LibxlsrError) -> None:
        """Stop the step that is being taken and take no more; *done* comes with the reason."""
        if self._stop_current():
            self._ctx.call_soon(self._done, reason)

    def stop(self) -> None:
        """The same, and *done* won't come."""
        self._stop_current()

    def _stop_current(self) -> bool:
        current, self._current = self._current, None
        if current is not None:
            current.stop()
        return current is not None

    def _go_on(self, error: LibxlsrError | None) -> None:
        self._current = None
        if error is not None:
            self._done(error)
            return
        try:
            step = next(self._steps, None)
            if step is not None:
                self._current = step
                step.start(self._go_on)
                return
        except Exception as failure:
            self._current = None
            error = as_error(failure, self._doing)
        self._ctx.call_soon(self._done, error)


class Teardown:
    """Takes every step in its order, whatever becomes of those before.

    ``done(errors)`` comes once, from the loop, with what could not be done. It can't be stopped. As
    with a `Chain`, the next step is asked for when the one before is done.
    """

    def __init__(
        self,
        ctx: Context,
        steps: Iterable[Step],
        done: Callable[[list[LibxlsrError]], object],
        *,
        doing: str,
    ) -> None:
        self._ctx = ctx
        self._steps: Iterator[Step] = iter(steps)
        self._done = done
        self._doing = doing
        self._errors: list[LibxlsrError] = []

    def start(self) -> None:
        """Take the first step."""
        self._go_on(None)

    def _go_on(self, error: LibxlsrError | None) -> None:
        if error is not None:
            self._errors.append(error)
        try:
            step = next(self._steps, None)
            if step is not None:
                step.start(self._go_on)
                return
        except Exception as failure:
            self._ctx.call_soon(self._go_on, as_error(failure, self._doing))
            return
        self._ctx.call_soon(self._done, self._errors)
