"""Ctrl-C and its kin, as an event of the loop. The library itself installs no signal handler."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from libxlsr.errors import Aborted
from libxlsr.events import READ, Ao, Context
from libxlsr.operations.waiting import undo, wait

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_abortable(ctx: Context, ao: Ao[T]) -> T:
    """Run the loop until ``ao`` is done; its result. Raises its error.

    One of SIGNALS aborts it, and so does whatever else ends the loop, so that on return everything
    is done or undone. So does the end of whoever reads what it prints.
    """
    with ExitStack() as catching:
        try:
            catching.enter_context(
                caught(ctx, lambda name: ao.abort(Aborted(f"aborted by {name}")))
            )
        except BaseException:  # there is no pipe to be had, or a signal came before it was caught
            undo(ctx, ao)
            raise
        try:
            return wait(ctx, ao)
        except BrokenPipeError:
            try:
                return ao.result()  # it was done already
            except Aborted:
                raise Aborted("aborted, as whoever reads standard output has gone") from None


@contextmanager
def caught(ctx: Context, on_signal: Callable[[str], None]) -> Iterator[None]:
    """Call ``on_signal`` with the signal's name on ``ctx``'s loop when one of SIGNALS comes."""

    def readable(_ready: int) -> None:
        for number in os.read(read_end, 64):
            if number in SIGNALS:  # not the program's tick
                on_signal(signal.Signals(number).name)

    with ExitStack() as stack:
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        stack.callback(os.close, write_end)
        stack.callback(os.close, read_end)
        event = ctx.watch_fd(read_end, READ, readable, what="signals")
        stack.callback(event.deregister)
        previous_fd = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        stack.callback(signal.set_wakeup_fd, previous_fd)
        for number in SIGNALS:
            stack.callback(signal.signal, number, signal.signal(number, lambda *_: None))
        yield
