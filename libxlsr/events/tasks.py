"""The tasks that one operation runs at the same time.

Four rules, the same for every operation:

* The first error wins. It is the ao's; those that come after it are kept in its ``later``.
* Then every task is told to stop, once, in the order in which they were started.
* Each task says once that it has ended, when it has, from the event loop.
* When the last one has, the operation goes on: to its end, or to undoing what it did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libxlsr.errors import LibxlsrError, as_error
from libxlsr.events.ao import Ao
from libxlsr.events.chain import Done
from libxlsr.events.context import Context

Stop = Callable[[LibxlsrError], object]
"""Makes a task end soon, for the given reason. It says itself when it has ended."""


class Task:
    """One task, from `Tasks.start`."""

    def __init__(self, tasks: Tasks, stop: Stop) -> None:
        self._tasks = tasks
        self.stop = stop

    def ended(self, error: LibxlsrError | None = None) -> None:
        """It has ended, with an error or without."""
        self._tasks._ended(self, error)


class Tasks:
    """The tasks of the operation behind ``ao``, whose aborts stop them.

    ``stopping(error)`` is called at the first error, before the tasks are told; ``stopped(error)``
    once all of them have ended after it.
    """

    def __init__(
        self,
        ctx: Context,
        ao: Ao[Any],
        *,
        stopped: Callable[[LibxlsrError], object],
        stopping: Callable[[LibxlsrError], object] = lambda _error: None,
    ) -> None:
        self._ctx = ctx
        self._ao = ao
        self._stopping = stopping
        self._stopped = stopped
        self._running: list[Task] = []
        self._when_ended: Callable[[], object] | None = None
        self.error: LibxlsrError | None = None
        """The first error, which is why the tasks are told to stop."""
        ao.set_abort_handler(self.fail)

    def start(self, stop: Stop) -> Task:
        """Note one more task as running. ``stop(reason)`` is called if it is to end early."""
        task = Task(self, stop)
        self._running.append(task)
        return task

    def call(self, call: Callable[[Done], object], done: Done, *, stop: Stop, doing: str) -> None:
        """Make a call whose outcome another task waits for: ``call(ended)`` starts it.

        ``done(error)`` gets the outcome, unless an error was first: then it is only kept. What
        ``call`` raises counts as its outcome; ``doing`` says in the message what failed.
        """
        task = self.start(stop)

        def ended(error: LibxlsrError | None) -> None:
            if self.error is not None:
                task.ended(error)
                return
            task.ended()
            done(error)

        self.attempt(lambda: call(ended), ended, doing=doing)

    def attempt(self, call: Callable[[], object], failed: Done, *, doing: str) -> None:
        """Make a call that begins something. What it raises nevertheless comes to ``failed``, as an
        error that says ``doing``."""
        try:
            call()
        except Exception as error:
            self._ctx.call_soon(failed, as_error(error, doing))

    def when_ended(self, callback: Callable[[], object]) -> None:
        """Call back when the last task that runs has ended, unless one fails before."""
        self._when_ended = callback

    def fail(self, error: LibxlsrError) -> None:
        """Something has gone wrong: the first time everything is stopped, later it is kept."""
        self._ao.abort(error)
        if self.error is not None or self._ao.done:
            return
        self.error = self._ao.aborting or error  # an abort by the caller may have been first
        self._stopping(self.error)
        for task in tuple(self._running):
            if task in self._running:  # else the end of another one was its end, too
                self._stop(task, self.error)
        self._go_on()

    def _stop(self, task: Task, reason: LibxlsrError) -> None:
        try:
            task.stop(reason)
        except Exception as failure:
            self._ao.abort(as_error(failure, "stop what was running"))

    def _ended(self, task: Task, error: LibxlsrError | None) -> None:
        self._running.remove(task)
        if error is None:
            self._go_on()
        elif self.error is None:
            self.fail(error)
        else:
            self._ao.abort(error)
            self._go_on()

    def _go_on(self) -> None:
        if self._running:
            return
        if self.error is not None:
            stopped, self._stopped = self._stopped, lambda _error: None
            stopped(self.error)
        elif self._when_ended is not None and self._ao.aborting is None:
            when_ended, self._when_ended = self._when_ended, None
            when_ended()
