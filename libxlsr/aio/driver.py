"""A Context on an asyncio loop: what the context waits for, the loop waits for."""

from __future__ import annotations

import asyncio
import errno
from typing import Callable

from libxlsr.events import READ, WRITE, Context


class Driver:
    """Drives ``ctx`` on the running loop, of whatever kind that is, until it is closed.

    The loop is used through ``add_reader``, ``add_writer``, ``call_soon`` and ``call_at`` alone. A
    file that the loop refuses to watch (epoll does so with EPERM for a regular one) is always
    ready, and gets one turn in each of the loop's rounds. Raises ValueError where another loop
    drives the context.

    ``on_raised(error)`` is called with each exception that ends a round; the loop gets it next. In
    a forked child each round ends so, and the loop's fds are left alone: closing a loop's epoll
    there, or taking fds out of it, would take them from the parent too.
    """

    def __init__(self, ctx: Context, on_raised: Callable[[BaseException], object]) -> None:
        if ctx.on_change is not None or ctx.on_fd_change is not None:
            raise ValueError("another loop drives this context")
        self._ctx = ctx
        self._on_raised = on_raised
        self._loop = asyncio.get_running_loop()
        self._registered: dict[int, int] = {}
        self._always_ready: dict[int, int] = {}
        self._wanted: dict[int, int] = dict(ctx.prepare().fds)
        self._round_handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_when = 0.0
        ctx.on_change = self._schedule
        ctx.on_fd_change = self._fd_changed
        self._schedule()

    def close(self) -> None:
        """Let go of the loop and of the context. In a forked child it does nothing."""
        if self._ctx.forked:
            return
        self._ctx.on_change = self._ctx.on_fd_change = None
        for fd in tuple(self._registered):
            self._unregister(fd)
        for handle in (self._round_handle, self._timer):
            if handle is not None:
                handle.cancel()
        self._round_handle = self._timer = None

    # The context's hooks.

    def _fd_changed(self, fd: int, interest: int) -> None:
        if interest:
            self._wanted[fd] = interest  # the loop learns of it when this round is over
        else:
            self._wanted.pop(fd, None)
            self._always_ready.pop(fd, None)
            self._unregister(fd)

    def _schedule(self) -> None:
        if self._round_handle is None and not self._loop.is_closed():
            self._round_handle = self._loop.call_soon(self._round)

    # What the loop calls. An fd's readiness is dispatched at once and by itself: kept for later, it
    # might be stale by then, and a read from a blocking fd would block the loop.

    def _fd_ready(self, fd: int, ready: int) -> None:
        self._dispatch({fd: ready})

    def _round(self) -> None:
        self._round_handle = None
        self._dispatch(self._always_ready.copy())

    def _timer_due(self) -> None:
        self._timer = None
        self._dispatch({})

    def _dispatch(self, ready: dict[int, int]) -> None:
        try:
            try:
                self._ctx.dispatch(ready)
            finally:
                self._follow()
        except BaseException as error:
            self._on_raised(error)
            if self._wanted and not self._ctx.forked:
                self._schedule()
            raise

    # Making the loop wait for what the context waits for.

    def _follow(self) -> None:
        if self._ctx.forked:
            return
        while self._wanted:
            fd, interest = next(iter(self._wanted.items()))
            self._register(fd, interest)
            del self._wanted[fd]  # not where the loop had no room for it: it is tried again
        timeout = 0.0 if self._always_ready else self._ctx.timeout()
        if timeout == 0:
            self._schedule()
        else:
            self._set_timer(timeout)

    def _register(self, fd: int, interest: int) -> None:
        before = self._registered.get(fd, 0)
        try:
            if interest & ~before & READ:
                self._loop.add_reader(fd, self._fd_ready, fd, READ)
            if interest & ~before & WRITE:
                self._loop.add_writer(fd, self._fd_ready, fd, WRITE)
        except OSError as error:
            # EBADF: somebody closed it; its owner meets the error at the next read, and says so.
            if error.errno not in (errno.EPERM, errno.EBADF):
                raise
            self._always_ready[fd] = interest
            return
        self._registered[fd] = interest
        self._remove(fd, before & ~interest)

    def _unregister(self, fd: int) -> None:
        self._remove(fd, self._registered.pop(fd, 0))

    def _remove(self, fd: int, bits: int) -> None:
        if self._loop.is_closed() or self._ctx.forked:
            return
        if bits & READ:
            self._loop.remove_reader(fd)
        if bits & WRITE:
            self._loop.remove_writer(fd)

    def _set_timer(self, timeout: float | None) -> None:
        """Wake up in time. A timer that comes too early does no harm, so it is kept."""
        when = None if timeout is None else self._loop.time() + timeout
        if self._timer is not None:
            if when is not None and self._timer_when <= when:
                return
            self._timer.cancel()
            self._timer = None
        if when is not None:
            self._timer_when = when
            self._timer = self._loop.call_at(when, self._timer_due)
