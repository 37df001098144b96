"""asyncio: a restore to be awaited, cancelled and watched from a daemon's own loop.

::

    result = await libxlsr.aio.restore("guest.save", target="image", output="guest")

    async with libxlsr.aio.Adapter() as adapter:           # many restores, one limit on helpers
        async with adapter.restoration(fd, target="image", output="guest") as restoration:
            async for progress in restoration:
                print(progress.phase, progress.position)
            result = await restoration.result()

Cancelling aborts the restore and waits until everything is undone; a second cancel is noted and
waits as well. So ``asyncio.timeout`` and ``asyncio.wait_for`` end a restore like any deadline, a
little later than they say. All events run on the loop, in its thread; there is no other thread, no
signal handler, no child watcher. The one thing that holds the loop up is the start of a helper
process (fork and exec, some milliseconds).

A loop that is closed under a restore can undo nothing any more. Then the coroutine does it,
blocking, when it is closed or collected. (`asyncio.run` never comes to that: it cancels first.)

An fd that is handed over must not have been read by a transport or a StreamReader of asyncio: what
these have read ahead is lost to the restore. `Adapter` says how the loop is used.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import functools
import logging
import os
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Callable

from libxlsr.errors import Aborted, LibxlsrError
from libxlsr.events import READ, WRITE, Ao, Context, run
from libxlsr.operations.blocking import make_target
from libxlsr.operations.helper_limit import HelperLimit
from libxlsr.operations.progress import Progress, RestoreResult
from libxlsr.operations.restore import restore_ao
from libxlsr.operations.source_fd import Source, opened
from libxlsr.stream.machine import Trace
from libxlsr.targets.choose import choose
from libxlsr.targets.timeouts import Timeouts
from libxlsr.targets.xen.restore_helper.spare import SpareHelper
from libxlsr.targets.xen.target import XenOptions

logger = logging.getLogger(__name__)


class Adapter:
    """Drives one `Context` on the running asyncio loop, of whatever kind that is.

    Any number of restores may share an adapter; ``ctx`` may be the caller's, for operations of
    their own. ``limit`` is how many of them have helpers running at the same time (default: one for
    each CPU). ``spare_helper`` keeps a helper ready for the next domain (`SpareHelper`); raises
    TargetError when it can't be started. To be made inside a coroutine. As an async context manager
    it aborts, at its end, what still runs, and waits until that is undone. What is started on an
    adapter that is closed raises RuntimeError.

    The loop is used through ``add_reader``, ``add_writer``, ``call_soon`` and ``call_at`` alone. A
    file that the loop refuses to watch (epoll does so with EPERM for a regular one) is always
    ready, and gets one turn in each of the loop's rounds.
    """

    def __init__(
        self,
        ctx: Context | None = None,
        *,
        limit: HelperLimit | None = None,
        spare_helper: bool = False,
    ) -> None:
        self.ctx = Context() if ctx is None else ctx
        self.limit = HelperLimit() if limit is None else limit
        if self.ctx.on_change is not None or self.ctx.on_fd_change is not None:
            raise ValueError("another loop drives this context")
        self._loop = asyncio.get_running_loop()
        self._spare = SpareHelper(self.ctx) if spare_helper else None
        self._registered: dict[int, int] = {}
        self._always_ready: dict[int, int] = {}
        self._wanted: dict[int, int] = dict(self.ctx.prepare().fds)
        self._round_handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_when = 0.0
        self._running: set[Restoration] = set()
        self._closed = False
        self.ctx.on_change = self._schedule
        self.ctx.on_fd_change = self._fd_changed
        self._schedule()

    def restoration(
        self,
        source: Source,
        *,
        target: str = "auto",
        output: str | os.PathLike[str] | None = None,
        xen: XenOptions | None = None,
        deadline: float | None = None,
        timeouts: Timeouts | None = None,
        legacy: bool = False,
        trace: Trace | None = None,
        name: str | None = None,
    ) -> Restoration:
        """A restore to be entered with ``async with``. The arguments are those of `restore`."""
        self._check_open()
        chosen = choose(target).target
        if chosen == "xen" and self._spare is not None:
            xen = dataclasses.replace(xen or XenOptions(), spare_helper=self._spare)
        place = make_target(self.ctx, chosen, None if output is None else Path(output), xen)
        start = functools.partial(
            restore_ao,
            self.ctx,
            target=place,
            deadline=deadline,
            timeouts=timeouts,
            limit=self.limit,
            to_eof=not isinstance(source, int),
            legacy=legacy,
            trace=trace,
            name=name,
        )
        return Restoration(self, source, start)

    async def __aenter__(self) -> Adapter:
        self._check_open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._undo(tuple(self._running), exc_type)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the loop and of the context.

        Who waits for a restore that still runs gets RuntimeError; the end of its ``async with``
        undoes it, blocking.
        """
        self._closed = True
        for restoration in self._running:
            restoration._wake()
        self.ctx.on_change = self.ctx.on_fd_change = None
        for fd in tuple(self._registered):
            self._unregister(fd)
        for handle in (self._round_handle, self._timer):
            if handle is not None:
                handle.cancel()
        self._round_handle = self._timer = None
        if self._spare is not None:
            self._spare.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the adapter is closed")

    async def _undo(
        self, restorations: tuple[Restoration, ...], exc_type: type[BaseException] | None
    ) -> None:
        """Abort all of them, then wait for each. What interrupts that is raised at the end."""
        reason = "cancelled" if exc_type is asyncio.CancelledError else "abandoned"
        for restoration in restorations:
            restoration._give_up(Aborted(reason))
        # A coroutine that is thrown away can't wait for its loop, which may be closed.
        can_wait = exc_type is not GeneratorExit
        interrupted: BaseException | None = None
        for restoration in restorations:
            while restoration in self._running:
                if self._closed or not can_wait:
                    run(self.ctx, lambda: not self._running.intersection(restorations))
                    break
                try:
                    await restoration._over.wait()
                except asyncio.CancelledError as error:
                    interrupted = error
                except GeneratorExit as error:
                    interrupted, can_wait = error, False
        if interrupted is not None:
            raise interrupted

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
            self.ctx.dispatch(ready)
        finally:
            self._follow()

    # Making the loop wait for what the context waits for.

    def _follow(self) -> None:
        wanted, self._wanted = self._wanted, {}
        for fd, interest in wanted.items():
            self._register(fd, interest)
        timeout = 0.0 if self._always_ready else self.ctx.timeout()
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
        if self._loop.is_closed():
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


class Restoration:
    """One restore on an asyncio loop, from `Adapter.restoration`.

    ``async with`` starts it, and at its end aborts it where it still runs and waits until all is
    undone. Iterating gives `Progress` until the restore is over; a slow reader misses counters, but
    no phase. One reader at a time.
    """

    def __init__(
        self, adapter: Adapter, source: Source, start: Callable[..., Ao[RestoreResult]]
    ) -> None:
        self._adapter = adapter
        self._source = source
        self._start = start
        self._resources = ExitStack()
        self._ao: Ao[RestoreResult] | None = None
        self._unread: deque[Progress] = deque()
        self._news = asyncio.Event()
        self._over = asyncio.Event()

    async def __aenter__(self) -> Restoration:
        if self._ao is not None:
            raise RuntimeError("a restoration is entered once")
        self._adapter._check_open()
        with ExitStack() as resources:
            fd = resources.enter_context(opened(self._source))
            self._ao = self._start(fd=fd, on_done=self._done, on_progress=self._progress)
            self._resources = resources.pop_all()
        self._adapter._running.add(self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._started()
        try:
            await self._adapter._undo((self,), exc_type)
        finally:
            if exc_type is asyncio.CancelledError:
                self._say_what_is_left()

    def __aiter__(self) -> Restoration:
        return self

    async def __anext__(self) -> Progress:
        self._started()
        while not self._unread:
            if self not in self._adapter._running:
                raise StopAsyncIteration
            self._adapter._check_open()
            self._news.clear()
            await self._news.wait()
        return self._unread.popleft()

    async def result(self) -> RestoreResult:
        """Wait for the result. Raises an error of `libxlsr.errors`; then everything is undone."""
        ao = self._started()
        await self._over.wait()
        if self in self._adapter._running:
            self._adapter._check_open()
        return ao.result()

    def abort(self, reason: LibxlsrError | None = None) -> None:
        """Give up; ``result`` raises ``reason`` (default: Aborted) when everything is undone."""
        self._started().abort(reason)

    def _started(self) -> Ao[RestoreResult]:
        if self._ao is None:
            raise RuntimeError("the restoration was not entered with `async with`")
        return self._ao

    def _progress(self, progress: Progress) -> None:
        if self._unread and self._unread[-1].phase is progress.phase:
            self._unread.pop()
        self._unread.append(progress)
        self._news.set()

    def _done(self, _ao: Ao[RestoreResult]) -> None:
        self._adapter._running.discard(self)
        self._resources.close()
        self._wake()

    def _wake(self) -> None:
        """Wake who waits: this is over, or the adapter was closed."""
        self._over.set()
        self._news.set()

    def _give_up(self, reason: Aborted) -> None:
        """Abort, unless that is under way: a second reason would only pass for a later error."""
        ao = self._started()
        if ao.aborting is None:
            ao.abort(reason)

    def _say_what_is_left(self) -> None:
        """The canceller hears neither of a result that came too late to be undone nor of errors."""
        try:
            result = self._started().result()
        except LibxlsrError as error:
            for later in error.later:
                logger.error("while a cancelled restore was undone: %s", later)
        else:
            logger.warning("cancelled too late: %s was restored", result.guest.where)


async def restore(
    source: Source,
    *,
    target: str = "auto",
    output: str | os.PathLike[str] | None = None,
    xen: XenOptions | None = None,
    deadline: float | None = None,
    timeouts: Timeouts | None = None,
    legacy: bool = False,
    trace: Trace | None = None,
    name: str | None = None,
    adapter: Adapter | None = None,
) -> RestoreResult:
    """Restore the image at ``source``; return when the guest is there.

    As `libxlsr.restore`, without blocking. When the task is cancelled, the restore is aborted, and
    CancelledError comes out when everything is undone. A restore that was already done when the
    cancel came can't be undone: that is logged as a warning.

    ``timeouts``, ``trace`` and ``name`` are as in `libxlsr.restore_ao`. ``adapter`` is to be shared
    by those who restore many at a time; without one the restore makes its own, and no limit on
    helpers counts it.

    Raises an error of `libxlsr.errors`, and then everything has been undone.
    """
    used = Adapter() if adapter is None else adapter
    try:
        async with used.restoration(
            source,
            target=target,
            output=output,
            xen=xen,
            deadline=deadline,
            timeouts=timeouts,
            legacy=legacy,
            trace=trace,
            name=name,
        ) as restoration:
            return await restoration.result()
    finally:
        if adapter is None:
            used.close()
