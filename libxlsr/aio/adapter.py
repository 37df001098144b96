"""Restores on one asyncio loop, which share a context and a limit on helpers."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import os
from pathlib import Path
from types import TracebackType

from libxlsr.aio.driver import Driver
from libxlsr.aio.restoration import Restoration
from libxlsr.domain.save_helper.spare import SpareHelper
from libxlsr.errors import Aborted
from libxlsr.events import Context, run
from libxlsr.restoring.blocking import make_target
from libxlsr.restoring.choose import choose
from libxlsr.restoring.helper_limit import HelperLimit
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.restoring.xen_target import XenOptions
from libxlsr.source.path_or_fd import Source
from libxlsr.stream.reader_machine import Trace

logger = logging.getLogger(__name__)


class Adapter:
    """Restores on the running asyncio loop, of whatever kind that is; it drives a `Context` there.

    Any number of restores may share an adapter; ``ctx`` may be the caller's, for operations of
    their own. ``limit`` is how many of them have helpers running at the same time (default: one for
    each CPU). ``spare_helper`` keeps a helper ready for the next domain (`SpareHelper`); raises
    TargetError when it can't be started. To be made inside a coroutine. As an async context manager
    it aborts, at its end, what still runs, and waits until that is undone. What is started on an
    adapter that is closed raises RuntimeError.

    A callback on the context that raises, the caller's or one of ours, aborts all the adapter's
    restores, since any of them may wait for what it was to do. Each is undone and ends with a
    TargetError; the loop's exception handler gets the exception.

    It belongs to the process that made it. In a forked child it starts nothing, who waits for a
    restore gets RuntimeError, and what unwinds there undoes nothing.
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
        self._driver = Driver(self.ctx, self._raised)
        self._spare: SpareHelper | None = None
        self._running: set[Restoration] = set()
        self._closed = False
        if spare_helper:
            try:
                self._spare = SpareHelper(self.ctx)
            except BaseException:
                self._driver.close()
                raise

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
        self._check_usable()
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
        self._check_usable()
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
        undoes it, blocking. In a forked child it does nothing.
        """
        if self.ctx.forked:
            return
        self._closed = True
        self._wake_all()
        self._driver.close()
        if self._spare is not None:
            self._spare.close()

    def _check_usable(self) -> None:
        if self._closed:
            raise RuntimeError("the adapter is closed")
        if self.ctx.forked:
            raise RuntimeError("the adapter belongs to the process that forked this one")

    def _raised(self, error: BaseException) -> None:
        """A callback raised; which restore waits for what it was to do, nobody knows."""
        if self.ctx.forked:
            self._wake_all()
            return
        for restoration in tuple(self._running):
            restoration._broken_by(error)

    def _wake_all(self) -> None:
        for restoration in self._running:
            restoration._wake()

    async def _undo(
        self, restorations: tuple[Restoration, ...], exc_type: type[BaseException] | None
    ) -> None:
        """Abort all of them, then wait for each. What interrupts that is raised at the end.

        All that runs in a forked child is its parent's.
        """
        if self.ctx.forked:
            return
        reason = "cancelled" if exc_type is asyncio.CancelledError else "abandoned"
        for restoration in restorations:
            restoration._give_up(Aborted(reason))
        # A coroutine that is thrown away can't wait for its loop, which may be closed.
        can_wait = exc_type is not GeneratorExit
        interrupted: BaseException | None = None
        for restoration in restorations:
            while restoration in self._running and not self.ctx.forked:
                if self._closed or not can_wait:
                    self._undo_blocking(restorations)
                    break
                try:
                    await restoration._over.wait()
                except asyncio.CancelledError as error:
                    interrupted = error
                except GeneratorExit as error:
                    interrupted, can_wait = error, False
        if interrupted is not None:
            raise interrupted

    def _undo_blocking(self, restorations: tuple[Restoration, ...]) -> None:
        while self._running.intersection(restorations):
            try:
                run(self.ctx, lambda: not self._running.intersection(restorations))
            except BaseException as error:
                if self.ctx.forked:
                    raise
                logger.warning("while a restore was undone: %r", error)
                self._raised(error)
