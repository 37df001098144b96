"""A helper's worker that misbehaves as its arguments say (``fault``), for tests of the parent."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import subprocess
import sys
from typing import Any, Callable

from libxlsr.errors import Aborted, BackendUnavailable, StreamError, TargetError, UsageError
from libxlsr.helper.child import Channel

ERRORS = {
    "StreamError": StreamError("bad bytes", offset=7, record="PAGE_DATA", expected="good ones"),
    "TargetError": TargetError("no", errno=errno.ENOSPC, call="write", last_log="line"),
    "UsageError": UsageError("not so", remedy="but so"),
    "BackendUnavailable": BackendUnavailable("no Xen", remedy="boot it"),
    "Aborted": Aborted("enough"),
}


def _raise(error: BaseException) -> None:
    raise error


def _segfault() -> None:
    ctypes.string_at(0)


def _abort() -> None:
    os.write(2, b"guest.c:42: xc_restore: Assertion `pfn <= max' failed.\n")
    os.abort()


def _wait() -> None:
    while True:
        signal.pause()


def _ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _wait()


def _leave_a_child() -> None:
    # It has standard error for as long as it lives, as a hotplug script has.
    child = subprocess.Popen(["sleep", "1000"])
    sys.stderr.write(f"left {child.pid}")
    sys.stderr.flush()
    os._exit(3)


FAULTS: dict[str, Callable[[], None]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": _segfault,
    "SIGABRT": _abort,
    "leave a child": _leave_a_child,
    "exit 0": lambda: os._exit(0),
    "exit 3": lambda: os._exit(3),
    "OSError": lambda: _raise(OSError(errno.ENOSPC, "No space left on device")),
    "MemoryError": lambda: _raise(MemoryError()),
    "ZeroDivisionError": lambda: _raise(ZeroDivisionError("division by zero")),
    "wait": _wait,
    "ignore SIGTERM": _ignore_sigterm,
    **{name: (lambda error=error: _raise(error)) for name, error in ERRORS.items()},  # type: ignore[misc]
}


def run(channel: Channel) -> dict[str, Any]:
    """Do as ``args`` says: log, call, send raw bytes, misbehave, or return the rest of it."""
    args = channel.receive_work()
    for line in args.get("log", ()):
        channel.log(logging.INFO, line)
    if "stderr" in args:
        sys.stderr.write(args["stderr"])
    channel.progress({"bytes": 1})
    if "call" in args:
        return {"answer": channel.call("question", args["call"])}
    if "say" in args:
        channel._sock.send(args["say"].encode())
    if args.get("result first"):
        channel.send_result({"early": True})
    if "fault" in args:
        FAULTS[args["fault"]]()
    return {"args": args}
