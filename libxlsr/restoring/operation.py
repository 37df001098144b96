"""Restoring a guest: opening, reading and finishing or undoing, joined into one operation.

Each is made when what it needs is there::

    restore_ao → Opening ─ what it is ─→ Reading ─ all tasks have ended ─→ finish → ao.complete
                    │                       │                                │
                    └────── the first error: all tasks are stopped ──────────┴→ undo → ao.fail

Up to three tasks run at once (`libxlsr.events.tasks`): the opening's filters, the reader, and a
call of the target. When all have stopped after an error, the target rolls back.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable

from libxlsr.errors import LibxlsrError
from libxlsr.events import Ao, Context
from libxlsr.events.chain import Call, Step, Teardown, Wait
from libxlsr.events.tasks import Tasks
from libxlsr.restoring.choose import make_target
from libxlsr.restoring.helper_limit import Place
from libxlsr.restoring.journal import Journal
from libxlsr.restoring.opening import Opened, Opening
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import Phase, Progress, RestoreResult
from libxlsr.restoring.reading import BareLibxcReading, LibxlReading, Reading
from libxlsr.restoring.run import Run
from libxlsr.restoring.stall import StallWatch
from libxlsr.restoring.stream_fd import Loan, duplicate
from libxlsr.restoring.target import Restored, Target
from libxlsr.source.path_or_fd import PathOrFd, described, opened


def restore_ao(
    ctx: Context,
    source: PathOrFd,
    options: RestoreOptions | None = None,
    *,
    target: Target | None = None,
    on_done: Callable[[Ao[RestoreResult]], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Ao[RestoreResult]:
    """Start restoring the image at ``source``, a path or an open fd, on the caller's event loop.

    An fd stays the caller's; don't touch it before the ao is done. Afterwards it stands right
    behind the stream's END record (unless the image was compressed), in the blocking mode in which
    it came. An image of Xen 4.5 or older is converted on its way.

    ``target`` is one of the caller's own, in place of what ``options.target`` and
    ``options.output`` say.

    The ao's result is a `RestoreResult`; its error one of `libxlsr.errors`, and then everything has
    been undone. Raises TargetError for a path that can't be opened and an fd that is not open, and
    UsageError for options that contradict themselves.
    """
    options = options or RestoreOptions()
    if target is None:
        target = make_target(ctx, options)
    if options.to_eof is None:
        options = dataclasses.replace(options, to_eof=not isinstance(source, int))
    with opened(source) as fd:
        own_fd = duplicate(fd)
    ao: Ao[RestoreResult] = Ao(
        ctx, on_done=on_done, on_progress=on_progress, deadline=options.deadline
    )
    name = described(source) if options.name is None else options.name
    _Restore(ctx, own_fd, target, options, ao, name).start()
    return ao


class _Restore:
    """One restore, which owns ``fd``."""

    def __init__(
        self,
        ctx: Context,
        fd: int,
        target: Target,
        options: RestoreOptions,
        ao: Ao[RestoreResult],
        name: str,
    ) -> None:
        self._ao = ao
        self._fd = fd
        self._journal = Journal(ctx, fd, name, ao.progress)
        self._run = Run(
            ctx,
            target,
            options,
            Tasks(ctx, ao, stopping=self._stopping, stopped=self._undo),
            self._journal,
            Place(ctx, options.limit),
            Loan(),
        )
        self._opening = Opening(self._run, fd, self._opened)
        self._stall_watch = StallWatch(
            ctx,
            fd,
            options.timeouts,
            moved=lambda: self._opening.received + sum(self._journal.counters.values()),
            helper_has_it=lambda: self._run.loan.lent,
            expired=self._run.tasks.fail,
        )

    def start(self) -> None:
        self._opening.start()
        self._stall_watch.start()

    def _opened(self, image: Opened) -> None:
        if image.config is not None:
            self._journal.domain = image.config.name
        kind = BareLibxcReading if image.kind == "libxc" else LibxlReading
        reading = kind(self._run, image, self._read)
        self._journal.follow(reading)
        reading.start()

    def _read(self, reading: Reading) -> None:
        self._run.tasks.when_ended(lambda: self._finish(reading))

    # -- a good end

    def _finish(self, reading: Reading) -> None:
        self._stall_watch.stop()
        self._journal.enter(Phase.FINISHING)
        task = self._run.tasks.start(self._run.stop_target)

        def finished(restored: Restored | None, error: LibxlsrError | None) -> None:
            if restored is None:
                task.ended(error)
            else:
                # The guest is there, and an abort that came too late can't unmake it.
                self._complete(reading, restored)

        self._run.tasks.attempt(
            lambda: self._run.target.finish(finished), task.ended, doing="let the target finish"
        )

    def _complete(self, reading: Reading, restored: Restored) -> None:
        self._opening.close()
        self._run.place.give_back()
        self._journal.enter(Phase.FINISHING)
        self._journal.log(logging.INFO, f"restored: {restored.where}")
        os.close(self._fd)
        self._ao.complete(
            RestoreResult(
                guest=restored,
                image_kind=reading.image.kind,
                compression=reading.image.compression,
                stream_bytes=reading.offset,
                libxl_records=reading.libxl_records,
                checkpoints=reading.checkpoints,
                failover=reading.failover,
                seconds=self._journal.seconds,
                phases=dict(self._journal.phases),
            )
        )

    # -- a bad one

    def _stopping(self, _error: LibxlsrError) -> None:
        self._stall_watch.stop()
        self._journal.enter(Phase.UNDOING)

    def _undo(self, error: LibxlsrError) -> None:
        """All tasks have stopped: undo what they did, then report the first error."""

        def undone(errors: list[LibxlsrError]) -> None:
            for undo_error in errors:
                self._ao.abort(undo_error)  # which has been aborted, and keeps it for later
            cause = self._opening.cause_of(error)
            self._ao.found_cause(cause)
            self._run.place.give_back()
            self._journal.log(logging.INFO, f"failed: {cause}")
            os.close(self._fd)
            self._ao.fail(cause)

        steps: list[Step] = [
            Call(self._run.ctx, self._opening.close),
            Wait(self._run.target.rollback),
        ]
        Teardown(self._run.ctx, steps, undone, doing="let the target undo everything").start()
