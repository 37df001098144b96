"""The program ``libxlsr``: the command line, in a process that is there for nothing else."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found] # signal itself imports enum
import gc
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES: dict[int, str] = {signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
_TICK = 0.5
"""Seconds until a signal is noticed that came just before a system call which then waits."""


def program() -> int:
    """Run the command line that the program was called with; returns the exit code."""
    _open_standard_streams()
    for number in _NAMES:
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, _interrupt)
    try:
        with _ticking():
            return _run()
    except KeyboardInterrupt as interrupt:  # before there is a command, which would have said so
        print(f"libxlsr: error: aborted by {_name(interrupt)}", file=sys.stderr)
        return 4


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """End a command as Ctrl-C does, where it is no event of a loop (cli/signals.py)."""
    raise KeyboardInterrupt(_NAMES[number])


def _name(interrupt: BaseException) -> str:
    """The signal's; Python itself raises the one that is for SIGINT."""
    return str(interrupt) or "SIGINT"


@contextmanager
def _ticking() -> Iterator[None]:
    """Let no signal be missed, which raises in Python code only.

    One that comes between the last such code and a call that waits does not end the call: the tick
    does, and what the signal asked for happens then. One that comes in a destructor or a weak
    reference's callback raises where nobody can catch it: the tick raises it again.
    """
    lost: list[str] = []
    report = sys.unraisablehook

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        if isinstance(what.exc_value, KeyboardInterrupt):
            lost.append(_name(what.exc_value))
        else:
            report(what)

    def tick(_number: int, _frame: FrameType | None) -> None:
        if lost:
            raise KeyboardInterrupt(lost.pop())

    sys.unraisablehook = unraisable
    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)
    try:
        yield
    finally:
        # Python's end gives SIGALRM back its own action, which is to kill.
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = report


def _run() -> int:
    # What is imported stays to the end. Looking through it for garbage, meanwhile, then again and
    # again, and as the interpreter ends, took a sixth of a short command's time.
    gc.disable()
    try:
        from libxlsr.cli.main import parse, run

        options = parse(sys.argv[1:])
        gc.freeze()
    finally:
        gc.enable()
    return run(options)


def _open_standard_streams() -> None:
    """Let those that the caller closed be /dev/null: else a file that is opened later would get the
    number of one, and with it what is written there."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    # A guest's name may have what the terminal's encoding lacks; standard error escapes it anyway.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
