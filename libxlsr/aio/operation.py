"""One operation on an asyncio loop: whatever is started as an ao."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, TypeVar

from libxlsr.errors import Aborted, LibxlsrError, TargetError
from libxlsr.events import Ao, Timer
from libxlsr.events.waiting import RAISED_MAX
from libxlsr.restoring.progress import Progress

if TYPE_CHECKING:
    from libxlsr.aio.adapter import Adapter

T = TypeVar("T")

StartAo = Callable[..., Ao[T]]
"""Starts an operation when it is called with a context and the keywords ``on_done`` and
``on_progress``, as every ``*_ao`` function takes them."""

OnProgress = Optional[Callable[[Progress], object]]

logger = logging.getLogger(__name__)

UNDOING_MAX = 300.0
"""Seconds after which an operation that an exception broke is waited for no more. Undoing may take
120 s, for a domain's devices; but for what the exception kept from coming it waits in vain."""


class Operation(Generic[T]):
    """One operation on an asyncio loop, from `Adapter.operation`.

    ``async with`` starts it, and at its end aborts it where it still runs and waits until all is
    undone. Iterating gives `Progress` until the operation is over; a slow reader misses counters,
    but no phase. One reader at a time.
    """

    def __init__(self, adapter: Adapter, start: StartAo[T], on_progress: OnProgress) -> None:
        self._adapter = adapter
        self._start = start
        self._on_progress = on_progress
        self._ao: Ao[T] | None = None
        self._unread: deque[Progress] = deque()
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._raised = 0
        self._callers_exception: Exception | None = None
        self._patience = Timer(adapter.ctx)

    async def __aenter__(self) -> Operation[T]:
        if self._ao is not None:
            raise RuntimeError("an operation is entered once")
        self._adapter._check_usable()
        self._ao = self._start(self._adapter.ctx, on_done=self._done, on_progress=self._progress)
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

    def __aiter__(self) -> Operation[T]:
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

    async def result(self) -> T:
        """Wait for the result. Raises an error of `libxlsr.errors`, or what ``on_progress`` has
        raised; then everything is undone."""
        self._started()
        await self._over.wait()
        if self in self._adapter._running:
            self._adapter._check_usable()
        if self._callers_exception is not None:
            raise self._callers_exception
        return self._outcome()

    def abort(self, reason: LibxlsrError | None = None) -> None:
        """Give up; ``result`` raises ``reason`` (default: Aborted) when everything is undone."""
        self._started().abort(reason)

    def _started(self) -> Ao[T]:
        if self._ao is None:
            raise RuntimeError("the operation was not entered with `async with`")
        return self._ao

    def _progress(self, progress: Progress) -> None:
        if self._unread and self._unread[-1].phase is progress.phase:
            self._unread.pop()
        self._unread.append(progress)
        self._news.set()
        if self._on_progress is not None:
            try:
                self._on_progress(progress)
            except Exception as error:
                self._on_progress = None
                self._callers_exception = error
                self._give_up(Aborted("the progress callback raised an exception"))

    def _done(self, _ao: Ao[Any]) -> None:
        self._end()

    def _end(self) -> None:
        self._adapter._running.discard(self)
        self._patience.stop()
        self._wake()

    def _broken_by(self, raised: BaseException) -> None:
        """A callback raised, without which this may never get on: abort it, with a limit."""
        self._raised += 1
        if self._raised == 1:
            self._patience.set(UNDOING_MAX, self._leave_behind)
            self._started().abort(_as_error(raised))
        elif self._raised == RAISED_MAX:
            self._leave_behind()

    def _leave_behind(self) -> None:
        """Wait no longer for it to be undone."""
        error = self._started().aborting
        if error is not None:
            error.later.append(TargetError("the operation was not undone to its end"))
        logger.error("an operation was not undone to its end: %s", error)
        self._end()

    def _outcome(self) -> T:
        """Of one that is over: its result, or its error, which is raised."""
        ao = self._started()
        if not ao.done and ao.aborting is not None:  # it was left behind
            raise ao.aborting
        return ao.result()

    def _wake(self) -> None:
        """Wake whatever waits: this is over, or the adapter was closed."""
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
            result = self._outcome()
        except LibxlsrError as error:
            for later in error.later:
                logger.error("while a cancelled operation was undone: %s", later)
        else:
            logger.warning("cancelled too late, it was done already: %s", result)


def _as_error(raised: BaseException) -> LibxlsrError:
    """The error of one operation whose loop met an exception; each has its own ``later``."""
    if not isinstance(raised, Exception):
        return Aborted(f"interrupted by {type(raised).__name__}")
    error = TargetError(
        f"internal error: a callback on the event loop raised {raised!r}",
        remedy="asyncio's exception handler was given its traceback",
    )
    error.__cause__ = raised
    return error
