"""The built-in loop: ``prepare``, wait in select(), ``dispatch``.

select() and poll() are the choice because a saved image is a regular file: both call it always
ready, where epoll refuses it with EPERM. poll() takes over where an fd is beyond select()'s fd_set.
"""

from __future__ import annotations

import errno
import os
import selectors
from collections.abc import Mapping
from types import TracebackType
from typing import Callable

from libxlsr.errors import TargetError
from libxlsr.events.context import Context, Prepared
from libxlsr.events.signal_handlers import HeldHandlers

FD_SETSIZE = 1024  # select(2): glibc's fd_set ends here, whatever RLIMIT_NOFILE says

# A timer years away overflows select()'s timeval; waking once a day for it costs nothing.
WAIT_MAX = 86400.0


class Waiter:
    """Waits for what ``Context.prepare`` asked for; keeps its selector between two waits."""

    def __init__(self) -> None:
        self._selector: selectors.SelectSelector | selectors.PollSelector = (
            selectors.SelectSelector()
        )
        self._fds: Mapping[int, int] = {}

    def __enter__(self) -> Waiter:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._selector.close()

    def wait(self, prepared: Prepared) -> dict[int, int]:
        """Wait, and return what is ready: fd to READ, WRITE or both.

        An fd that was closed while it was being watched counts as ready, so that its owner meets
        EBADF and can say so, instead of the whole loop failing. Raises TargetError where the system
        can't wait (ENOMEM).
        """
        if prepared.fds != self._fds:
            self._follow(prepared.fds)
        timeout = None if prepared.timeout is None else min(prepared.timeout, WAIT_MAX)
        try:
            ready = self._selector.select(timeout)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise TargetError.from_oserror(error, "can't wait for events") from error
            return {fd: interest for fd, interest in self._fds.items() if not _is_open(fd)}
        return {key.fd: bits for key, bits in ready}

    def _follow(self, fds: Mapping[int, int]) -> None:
        if isinstance(self._selector, selectors.SelectSelector) and max(fds, default=0) >= (
            FD_SETSIZE
        ):
            self._selector.close()
            self._selector = selectors.PollSelector()
            self._fds = {}
        for fd in self._fds.keys() - fds.keys():
            self._selector.unregister(fd)
        for fd, interest in fds.items():
            before = self._fds.get(fd)
            if before is None:
                self._selector.register(fd, interest)
            elif before != interest:
                self._selector.modify(fd, interest)
        self._fds = fds


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def run(ctx: Context, until: Callable[[], bool]) -> None:
    """Run the loop until ``until()``, which is asked before each wait, is true.

    Raises what a callback raises; the loop can be entered again after that. What a signal's handler
    raises comes while it waits, or between two rounds. Raises RuntimeError when there is nothing
    left to wait for, because waiting would then last forever, and when it is called inside a frame
    or a callback.
    """
    if ctx.entered:
        raise RuntimeError("run() inside a frame or a callback: callbacks never nest")
    with HeldHandlers() as handlers, Waiter() as waiter:
        while not until():
            prepared = ctx.prepare()
            if not prepared.fds and prepared.timeout is None:
                raise RuntimeError("nothing is left to wait for: no fd, no timer, no callback")
            handlers.release()
            try:
                ready = waiter.wait(prepared)
            finally:
                handlers.hold()
            ctx.dispatch(ready)
