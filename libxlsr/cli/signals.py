"""Ctrl-C and its kin, as an event of the loop. The library itself installs no signal handler."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from libxlsr.events import READ, Context

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def caught(ctx: Context, on_signal: Callable[[str], None]) -> Iterator[None]:
    """Call ``on_signal`` with the signal's name on ``ctx``'s loop when one of SIGNALS comes."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def readable(_ready: int) -> None:
        for number in os.read(read_end, 64):
            on_signal(signal.Signals(number).name)

    event = ctx.watch_fd(read_end, READ, readable, what="signals")
    previous_fd = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    previous = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)
        event.deregister()
        os.close(read_end)
        os.close(write_end)
