"""The program ``libxlsr``: the command line, in a process that is there for nothing else."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found] # signal itself imports enum
import gc
import io
import os
import sys

from libxlsr.cli.interrupts import Interrupt, ignore_interrupts, raise_interrupts


def program() -> int:
    """Run the command line that the program was called with; returns the exit code."""
    raise_interrupts()
    try:
        try:
            _open_standard_streams()
            _have_children_wait()
            return _run()
        finally:
            ignore_interrupts()
    # Before there is a command, which would have said so.
    except Interrupt as interrupt:
        _say(f"aborted by {interrupt}")
        return 4
    except MemoryError:
        _say("out of memory")
        return 3


def _say(error: str) -> None:
    from contextlib import suppress  # here, as it takes a moment to import

    with suppress(OSError):  # the exit code says it
        print(f"libxlsr: error: {error}", file=sys.stderr)


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


def _have_children_wait() -> None:
    """Where the caller has SIGCHLD ignored, the kernel forgets how children ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


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
