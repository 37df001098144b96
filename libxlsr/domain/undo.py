"""What takes the steps of an operation back, last one first."""

from __future__ import annotations

import functools
import logging
from typing import Callable, NamedTuple

from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events.chain import Done

log = logging.getLogger(__name__)


class _Step(NamedTuple):
    what: str
    start: Callable[[Done], object]
    waits: bool


class Undo:
    """A stack of steps to take back. A step that can't be taken back does not stop the others.

    Some have to wait: for a process to end, for Xen to let a domain go.
    """

    def __init__(self) -> None:
        self._steps: list[_Step] = []
        self._errors: list[LibxlsrError] = []

    def push(self, what: str, step: Callable[[], object]) -> None:
        """Remember how to take a step back; ``what`` says what is then gone ("domain 7")."""
        self._steps.append(_Step(what, lambda _done: step(), waits=False))

    def push_waiting(self, what: str, start: Callable[[Done], object]) -> None:
        """The same where that takes time: ``start(done)`` begins it; ``done(error)`` comes once,
        from the event loop, unless ``start`` raises."""
        self._steps.append(_Step(what, start, waits=True))

    def forget(self) -> None:
        """The whole has succeeded: nothing will be taken back."""
        self._steps.clear()

    def run(self, done: Callable[[list[LibxlsrError]], object]) -> None:
        """Take everything back; it can't be stopped.

        ``done(errors)`` comes at the end with what could not be, each logged: at once where nothing
        has to wait.
        """
        while self._steps:
            step = self._steps.pop()
            try:
                step.start(functools.partial(self._taken_back, step.what, done))
            except LibxlsrError as error:
                self._note(step.what, error)
            except Exception as error:
                number = error.errno if isinstance(error, OSError) else None
                message = f"{step.what} is left behind: {error}"
                self._note(step.what, TargetError(message, errno=number))
            else:
                if step.waits:
                    return
        errors, self._errors = self._errors, []
        done(errors)

    def _taken_back(
        self,
        what: str,
        done: Callable[[list[LibxlsrError]], object],
        error: LibxlsrError | None,
    ) -> None:
        if error is not None:
            self._note(what, error)
        self.run(done)

    def _note(self, what: str, error: LibxlsrError) -> None:
        self._errors.append(error)
        log.error("could not undo: %s: %s", what, error)


def summary(errors: list[LibxlsrError]) -> LibxlsrError | None:
    """The first of the errors, with the others in its ``later``; None where there is none."""
    if not errors:
        return None
    first, *rest = errors
    first.later.extend(rest)
    return first
