"""Ctrl-C and its kin, as an event of the loop. The library itself installs no signal handler."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from libxlsr.cli import interrupts
from libxlsr.errors import Aborted, TargetError
from libxlsr.events import READ, Ao, Context
from libxlsr.events.waiting import wait

T = TypeVar("T")


def run_abortable(ctx: Context, begin: Callable[[], Ao[T]]) -> T:
    """Run the loop until what ``begin`` starts is done; its result. Raises its error.

    A signal aborts it, and so does whatever else ends the loop, so that on return everything is
    done or undone. So does the end of whoever reads what it prints.
    """
    # Signals come to the loop, so that there is an operation by then; none comes between what it
    # makes as it begins and somebody who undoes that.
    with caught(ctx, lambda name: ao.abort(Aborted(f"aborted by {name}"))):
        ao = begin()
        try:
            return wait(ctx, lambda: ao)
        except BrokenPipeError:
            try:
                return ao.result()  # it was done already
            except Aborted:
                raise Aborted("aborted, as whoever reads standard output has gone") from None


@contextmanager
def caught(ctx: Context, on_signal: Callable[[str], None]) -> Iterator[None]:
    """Call ``on_signal`` with the signal's name on ``ctx``'s loop when there is one."""

    def readable(_ready: int) -> None:
        for number in os.read(read_end, 64):
            if number in interrupts.NAMES:  # not the tick
                on_signal(interrupts.NAMES[number])

    with ExitStack() as stack:
        try:
            read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise TargetError.from_oserror(error, "can't wait for signals", call="pipe") from error
        stack.callback(os.close, write_end)
        stack.callback(os.close, read_end)
        event = ctx.watch_fd(read_end, READ, readable, what="signals")
        stack.callback(event.deregister)
        previous_fd = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        stack.callback(signal.set_wakeup_fd, previous_fd)
        stack.enter_context(interrupts.NotRaised())
        yield
