"""SIGINT, SIGTERM and SIGHUP as an exception that ends a command wherever it is.

Where a loop runs they are an event of it instead (cli/signals.py). One that the caller has ignored,
as nohup does, stays ignored.

As little as can be is imported here: until then Ctrl-C is answered by Python, with a traceback.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found] # signal itself imports enum
import sys

TYPE_CHECKING = False  # as typing has it
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

NAMES: dict[int, str] = {
    signal.SIGINT: "SIGINT",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGHUP",
}
_TICK = 0.5
"""Seconds until a signal is noticed that came just before a system call which then waits."""

_lost: list[int] = []


class Interrupt(KeyboardInterrupt):
    """The signal ``number`` came; ``str()`` is its name.

    After a KeyboardInterrupt of no class of its own that left the exec() of a string, which is how
    a namedtuple is made, Python ends by SIGINT whatever the exit code was to be.
    """

    def __init__(self, number: int) -> None:
        super().__init__(NAMES[number])
        self.number = number


def raise_interrupts() -> None:
    """Raise Interrupt for each signal from here on, in the main thread.

    Python calls handlers between two of its instructions. A signal that comes behind the last of
    them and before a system call that waits does not end the call: the tick does. What is raised in
    a destructor or a weak reference's callback is caught by nobody: the tick sends it again.
    """
    for number in NAMES:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)
    sys.unraisablehook = _unraisable
    if signal.getitimer(signal.ITIMER_REAL)[0] == 0:  # else the caller has set an alarm
        signal.signal(signal.SIGALRM, _tick)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)


def ignore_interrupts() -> None:
    """Heed no signal any more. Python, as it ends, gives each its own action back: to kill."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, *NAMES})


class NotRaised:
    """Raises nothing for signals within."""

    def __enter__(self) -> None:
        self._before: dict[int, Any] = {
            number: signal.signal(number, lambda *_: None)
            for number in NAMES
            if signal.getsignal(number) != signal.SIG_IGN
        }

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def stop_tick() -> None:
    """Before exec(), which the timer outlives and its handler does not."""
    if signal.getsignal(signal.SIGALRM) == _tick:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise Interrupt(number)


def _tick(_number: int, _frame: FrameType | None) -> None:
    if _lost:
        signal.raise_signal(_lost.pop())  # for the handler that is in force by now


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    if isinstance(what.exc_value, Interrupt):
        _lost.append(what.exc_value.number)
    else:
        sys.__unraisablehook__(what)
