"""One restore on an asyncio loop."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Callable

from libxlsr.errors import Aborted, LibxlsrError
from libxlsr.events import Ao
from libxlsr.operations.progress import Progress, RestoreResult
from libxlsr.operations.source_fd import Source, opened

if TYPE_CHECKING:
    from libxlsr.aio.adapter import Adapter

logger = logging.getLogger(__name__)


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
        self._adapter._check_usable()
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
            if exc_type is asyncio.CancelledError and not self._adapter.ctx.forked:
                self._say_what_is_left()

    def __aiter__(self) -> Restoration:
        return self

    async def __anext__(self) -> Progress:
        self._started()
        while not self._unread:
            if self not in self._adapter._running:
                raise StopAsyncIteration
            self._adapter._check_usable()
            self._news.clear()
            await self._news.wait()
        return self._unread.popleft()

    async def result(self) -> RestoreResult:
        """Wait for the result. Raises an error of `libxlsr.errors`; then everything is undone."""
        ao = self._started()
        await self._over.wait()
        if self in self._adapter._running:
            self._adapter._check_usable()
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
