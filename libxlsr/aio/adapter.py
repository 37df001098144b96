"""Operations on one asyncio loop, which share a context and a limit on helpers."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from types import TracebackType
from typing import Any, TypeVar

from libxlsr.aio.driver import Driver
from libxlsr.aio.operation import OnProgress, Operation, StartAo
from libxlsr.domain.save_helper.spare import SpareHelper
from libxlsr.errors import Aborted
from libxlsr.events import Context, run
from libxlsr.restoring.blocking import with_place
from libxlsr.restoring.helper_limit import HelperLimit
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions, TargetName
from libxlsr.restoring.progress import RestoreResult
from libxlsr.source.path_or_fd import PathOrFd

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Adapter:
    """Operations on the running asyncio loop, of whatever kind it is; it drives a `Context` there.

    Any number of them may share an adapter; ``ctx`` may be the caller's, for events of their own.
    ``limit`` is how many restores have helpers running at the same time (default: one for each
    CPU). ``spare_helper`` keeps a helper ready for the next domain (`SpareHelper`); raises
    TargetError when it can't be started. To be made inside a coroutine. As an async context manager
    it aborts, at its end, what still runs, and waits until that is undone. What is started on an
    adapter that is closed raises RuntimeError.

    A callback on the context that raises, the caller's or one of ours, aborts all that the adapter
    runs, since any of it may wait for what it was to do. Each is undone and ends with a
    TargetError; the loop's exception handler gets the exception.

    It belongs to the process that made it. In a forked child it starts nothing, whoever waits for
    an operation gets RuntimeError, and what unwinds there undoes nothing.
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
        self._running: set[Operation[Any]] = set()
        self._closed = False
        if spare_helper:
            try:
                self._spare = SpareHelper(self.ctx)
            except BaseException:
                self._driver.close()
                raise

    def operation(self, start: StartAo[T], *, on_progress: OnProgress = None) -> Operation[T]:
        """What ``start`` starts, to be entered with ``async with``.

        ``start(ctx, on_done=..., on_progress=...)`` is called then, and returns the operation's ao:
        ``lambda ctx, **hooks: convert_ao(ctx, source, output, **hooks)``. ``on_progress`` is called
        with each `Progress`, besides what iterating gives.
        """
        self._check_usable()
        return Operation(self, start, on_progress)

    def restoration(
        self,
        source: PathOrFd,
        options: RestoreOptions | None = None,
        *,
        target: TargetName | None = None,
        output: str | os.PathLike[str] | None = None,
        on_progress: OnProgress = None,
    ) -> Operation[RestoreResult]:
        """A restore to be entered with ``async with``. The arguments are those of `restore`.

        The adapter's limit and spare helper are used where the options have none.
        """
        wanted = with_place(options, target, output)
        wanted = dataclasses.replace(
            wanted,
            limit=wanted.limit or self.limit,
            spare_helper=wanted.spare_helper or self._spare,
        )
        return self.operation(
            lambda ctx, **hooks: restore_ao(ctx, source, wanted, **hooks), on_progress=on_progress
        )

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

        Who waits for an operation that still runs gets RuntimeError; the end of its ``async with``
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
        """A callback raised; which operation waits for what it was to do, nobody knows."""
        if self.ctx.forked:
            self._wake_all()
            return
        for operation in tuple(self._running):
            operation._broken_by(error)

    def _wake_all(self) -> None:
        for operation in self._running:
            operation._wake()

    async def _undo(
        self, operations: tuple[Operation[Any], ...], exc_type: type[BaseException] | None
    ) -> None:
        """Abort all of them, then wait for each. What interrupts that is raised at the end.

        All that runs in a forked child is its parent's.
        """
        if self.ctx.forked:
            return
        reason = "cancelled" if exc_type is asyncio.CancelledError else "abandoned"
        for operation in operations:
            operation._give_up(Aborted(reason))
        # A coroutine that is thrown away can't wait for its loop, which may be closed.
        can_wait = exc_type is not GeneratorExit
        interrupted: BaseException | None = None
        for operation in operations:
            while operation in self._running and not self.ctx.forked:
                if self._closed or not can_wait:
                    self._undo_blocking(operations)
                    break
                try:
                    await operation._over.wait()
                except asyncio.CancelledError as error:
                    interrupted = error
                except GeneratorExit as error:
                    interrupted, can_wait = error, False
        if interrupted is not None:
            raise interrupted

    def _undo_blocking(self, operations: tuple[Operation[Any], ...]) -> None:
        while self._running.intersection(operations):
            try:
                run(self.ctx, lambda: not self._running.intersection(operations))
            except BaseException as error:
                if self.ctx.forked:
                    raise
                logger.warning("while an operation was undone: %r", error)
                self._raised(error)
