"""What takes the steps of a restore back, last one first."""

from __future__ import annotations

import logging
from typing import Callable

from libxlsr.errors import LibxlsrError, TargetError

log = logging.getLogger(__name__)


class Undo:
    """A stack of steps to take back. A step that can't be taken back does not stop the others."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []

    def push(self, what: str, step: Callable[[], object]) -> None:
        """Remember how to take a step back; ``what`` says what is then gone ("domain 7")."""
        self._steps.append((what, step))

    def forget(self) -> None:
        """The whole has succeeded: nothing will be taken back."""
        self._steps.clear()

    def run(self) -> list[LibxlsrError]:
        """Take everything back. Returns what could not be, each logged; never raises."""
        errors: list[LibxlsrError] = []
        while self._steps:
            what, step = self._steps.pop()
            try:
                step()
            except LibxlsrError as error:
                errors.append(error)
            except Exception as error:
                number = error.errno if isinstance(error, OSError) else None
                errors.append(TargetError(f"{what} is left behind: {error}", errno=number))
            else:
                continue
            log.error("could not undo: %s: %s", what, errors[-1])
        return errors


def summary(errors: list[LibxlsrError]) -> LibxlsrError | None:
    """The first of the errors, with the others in its ``later``; None where there is none."""
    if not errors:
        return None
    first, *rest = errors
    first.later.extend(rest)
    return first
