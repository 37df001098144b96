"""The ao: one asynchronous operation as its caller sees it.

The name is libxl's. The caller holds the ao, gets progress and one completion, and may abort. The
operation behind it reports by ``progress``, and ends with ``complete`` or ``fail``, exactly once,
when everything that it started has stopped.

The first error wins. An operation that meets an error while some of its tasks still run calls
``abort(error)`` on its own ao: that notes the error as the first one and sets off the same
teardown as an abort by the caller. When the tasks have stopped it calls ``fail``, and what it
passes there is kept in the first error's ``later``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from libxlsr.errors import Aborted, LibxlsrError, TimedOut
from libxlsr.events.context import Context
from libxlsr.events.seconds import check_deadline
from libxlsr.events.timers import Timer

T = TypeVar("T")

AbortHandler = Callable[[LibxlsrError], object]


class AoStateError(AssertionError):
    """A programming error: an ao was completed twice, or asked for a result that it has not."""


class Ao(Generic[T]):
    """One asynchronous operation with a result of type T.

    ``on_done(ao)`` is called once, on the egc, after the last progress. ``on_progress(event)`` is
    called on the egc for each event in its order. ``deadline`` is in seconds from now; when it
    passes, the operation is aborted with TimedOut. Raises UsageError where it is no such number.

    ``done``: it has completed, one way or the other. ``aborting``: the reason, once it is being
    aborted.
    """

    def __init__(
        self,
        ctx: Context,
        *,
        on_done: Callable[[Ao[T]], object] | None = None,
        on_progress: Callable[[Any], object] | None = None,
        deadline: float | None = None,
    ) -> None:
        check_deadline(deadline)
        self._ctx = ctx
        self._on_done = on_done
        self._on_progress = on_progress
        self._abort_handler: AbortHandler | None = None
        self._result: T | None = None
        self._error: LibxlsrError | None = None
        self._timer = Timer(ctx)
        self.done = False
        self.aborting: LibxlsrError | None = None
        if deadline is not None:
            self._timer.set(deadline, self.abort, TimedOut(f"not done within {deadline:g} s"))

    # The caller's side.

    def result(self) -> T:
        """The operation's result. Raises its error, or AoStateError when it is not done."""
        if not self.done:
            raise AoStateError("the operation is not done")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # set by complete(), T may be None

    def abort(self, reason: LibxlsrError | None = None) -> None:
        """Give up, for ``reason`` (default: Aborted). The completion comes when all has stopped.

        From anywhere, any number of times: only the first call counts, a later reason goes to the
        first one's ``later``, and after the completion nothing happens. An operation that had
        already reached its end when the abort came may still complete with its result.
        """
        if self.done:
            return
        if self.aborting is not None:
            self._note_later(self.aborting, reason)
            return
        self.aborting = reason if reason is not None else Aborted()
        self._timer.stop()
        if self._abort_handler is not None:
            self._ctx.call_soon(self._call_abort_handler)

    def drop_progress(self) -> None:
        """Call ``on_progress`` no more, not even for what was on its way."""
        self._on_progress = None

    # The operation's side.

    def set_abort_handler(self, handler: AbortHandler) -> None:
        """Have ``handler(reason)`` called, once at most, on the egc, when the ao is aborted.

        It is called for an abort that came before this call too, and never once the ao is done. A
        second handler takes the first one's place.
        """
        first = self._abort_handler is None
        self._abort_handler = handler
        if first and self.aborting is not None:
            self._ctx.call_soon(self._call_abort_handler)

    def progress(self, event: Any) -> None:
        """Tell the caller. Ignored after the completion."""
        if self._on_progress is not None and not self.done:
            self._ctx.call_soon(self._tell, event)

    def complete(self, result: T) -> None:
        """The operation has succeeded. Raises AoStateError when it was completed before."""
        self._complete(result, None)

    def fail(self, error: LibxlsrError) -> None:
        """The operation has failed. Raises AoStateError when it was completed before.

        While it is being aborted, the reason of the abort is the error that the caller sees, and
        ``error`` is kept in its ``later``.
        """
        if self.aborting is not None and not self.done:
            self._note_later(self.aborting, error)
            error = self.aborting
        self._complete(None, error)

    def found_cause(self, cause: LibxlsrError) -> None:
        """``cause`` is what led to the error that the operation is being aborted for: the caller
        sees it instead."""
        if self.aborting is not None and not self.done:
            self.aborting = cause

    def _complete(self, result: T | None, error: LibxlsrError | None) -> None:
        if self.done:
            news = f"failed: {error}" if error is not None else "succeeded"
            raise AoStateError(f"the operation was done already, and now it has {news}")
        self.done = True
        self._result = result
        self._error = error
        self._timer.stop()
        self._abort_handler = None
        if self._on_done is not None:
            self._ctx.call_soon(self._on_done, self)

    def _tell(self, event: Any) -> None:
        if self._on_progress is not None:
            self._on_progress(event)

    def _call_abort_handler(self) -> None:
        if self._abort_handler is not None and self.aborting is not None:
            self._abort_handler(self.aborting)

    @staticmethod
    def _note_later(first: LibxlsrError, error: LibxlsrError | None) -> None:
        if error is not None and error is not first and error not in first.later:
            first.later.append(error)
