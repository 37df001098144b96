"""Restoring a guest: opening, reader and target joined into one operation.

The chain of events::

    start → Opening → _opened ─ libxl ─→ StreamReader ⇄ process_record ⇄ target
                               └ libxc ─→ target.restore_libxc
          → _stream_done → _check_end → target.finish → Opening.close → ao.complete

Up to three tasks run at once: the opening's filters, the reader, and one call of the target.
Whatever fails first is the operation's error. Then every task is told to stop: the reader, then the
target, and when that has given the fd back, the opening, whose pipe the fd may be. When all have
(``_check_all_finished``, the only place that goes on from there) the target rolls back and the ao
fails. Each task reports its own end exactly once, so nothing completes twice.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from libxlsr.errors import LibxlsrError, StreamError, TargetError, as_error
from libxlsr.events import Ao, Context, CopyResult, Outcome
from libxlsr.events.chain import Done
from libxlsr.events.seconds import check_deadline
from libxlsr.formats import libxl
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.formats.records import unhandled
from libxlsr.restoring import guest_records
from libxlsr.restoring.helper_limit import HelperLimit, Place
from libxlsr.restoring.journal import Journal
from libxlsr.restoring.opening import Opened, Opening
from libxlsr.restoring.progress import Phase, Progress, RestoreResult
from libxlsr.restoring.stall import StallWatch
from libxlsr.restoring.stream_fd import Loan, duplicate
from libxlsr.restoring.target import (
    CheckpointDone,
    ImageDescription,
    LibxcOutcome,
    Restored,
    Target,
)
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.stream.libxc_stream import LibxcStream
from libxlsr.stream.reader import StreamReader
from libxlsr.stream.reader_machine import Trace
from libxlsr.stream.record import Record


def restore_ao(
    ctx: Context,
    fd: int,
    target: Target,
    *,
    on_done: Callable[[Ao[RestoreResult]], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    deadline: float | None = None,
    timeouts: Timeouts | None = None,
    limit: HelperLimit | None = None,
    to_eof: bool = False,
    legacy: bool = False,
    trace: Trace | None = None,
    name: str | None = None,
) -> Ao[RestoreResult]:
    """Start restoring the image on ``fd`` into ``target``, on the caller's own event loop.

    The fd stays the caller's; don't touch it before the ao is done. Afterwards it stands right
    behind the stream's END record (unless the image was compressed), in the blocking mode in which
    it came. ``to_eof`` refuses anything that follows END: right for a file, wrong for a migration's
    connection. A compressed image is always read to its end, where its checksum is. An image of Xen
    4.5 or older is converted on its way; ``legacy`` says that it is one where it can't be told.

    ``deadline`` is for the whole, in seconds from now; ``timeouts`` for each wait within it.
    ``limit`` is shared with other restores whose helpers shall not run all at the same time.
    ``trace`` is told each transition of the stream's machine. ``name`` is the restore's in log
    records (default: its fd's number).

    The ao's result is a `RestoreResult`; its error one of `libxlsr.errors`, and then everything has
    been undone. Raises TargetError when ``fd`` is none, UsageError for a deadline that is none.
    """
    check_deadline(deadline)  # before there is an fd to close again
    own_fd = duplicate(fd)
    ao: Ao[RestoreResult] = Ao(ctx, on_done=on_done, on_progress=on_progress, deadline=deadline)
    _Restore(
        ctx,
        own_fd,
        target,
        ao,
        timeouts=timeouts,
        limit=limit,
        to_eof=to_eof,
        legacy=legacy,
        trace=trace,
        name=f"fd {fd}" if name is None else name,
    ).start()
    return ao


class _Restore:
    """One restore. It is the reader's record handler and the target's hooks, and owns ``fd``."""

    def __init__(
        self,
        ctx: Context,
        fd: int,
        target: Target,
        ao: Ao[RestoreResult],
        *,
        timeouts: Timeouts | None,
        limit: HelperLimit | None,
        to_eof: bool,
        legacy: bool,
        trace: Trace | None,
        name: str,
    ) -> None:
        self._ctx = ctx
        self._fd = fd
        self._target = target
        self._ao = ao
        self._to_eof = to_eof
        self._trace = trace
        self._error: LibxlsrError | None = None
        self._opening: Opening | None = Opening(
            ctx,
            self._fd,
            on_opened=self._opened,
            on_failed=self._opening_failed,
            on_progress=self.progress,
            on_closed=self._opening_closed,
            before_helper=self._await_place_of_filter,
            legacy=legacy,
            to_eof=to_eof,
        )
        self._image: Opened | None = None
        self._reader: StreamReader | None = None
        self._header: libxl.Header | None = None
        # Two where libxc waits while a record of its checkpoint is acted on.
        self._target_calls = 0
        self._libxc_running = False
        self._loan = Loan()
        self._libxc: LibxcOutcome | None = None
        self._libxc_bytes: int | None = 0
        self._restored: Restored | None = None
        self._emulator_context_seen = False
        self._libxc_offset = 0
        self._place = Place(ctx, limit)
        self.timeouts = timeouts or Timeouts()
        self._stall_watch: StallWatch | None = None
        self._journal = Journal(
            ctx,
            fd,
            name,
            position=self._position,
            libxl_records=self._libxl_records,
            on_progress=ao.progress,
        )

    def start(self) -> None:
        self._ao.set_abort_handler(self._fail)
        assert self._opening is not None
        self._opening.start()
        self._stall_watch = StallWatch(
            self._ctx,
            self._fd,
            self.timeouts,
            moved=self._taken,
            helper_has_it=lambda: self._loan.lent,
            expired=self._fail,
        )

    # -- the way there

    def _opened(self, image: Opened) -> None:
        self._image = image
        if image.config is not None:
            self._journal.domain = image.config.name
        if image.kind == "libxc":
            self._await_place(lambda: self._prepare(self._bare_libxc))
            return
        self._reader = StreamReader(
            self._ctx,
            image.source,
            self,
            self._stream_done,
            offset=image.offset,
            trace=self._trace,
        )
        self._reader.start()

    def _await_place(self, go: Callable[[], None]) -> None:
        """Before the first helper starts, and before memory is taken for the guest."""
        self._place.take(go)
        if self._place.waiting:
            self._journal.enter(Phase.QUEUED)

    def _await_place_of_filter(self, go: Callable[[], None]) -> None:
        """The same, in the middle of the opening, which goes on then."""

        def go_on() -> None:
            if self._journal.phase is Phase.QUEUED:
                self._journal.enter(Phase.OPENING)
            go()

        self._await_place(go_on)

    def _prepare(self, done: Done) -> None:
        assert self._image is not None
        self._journal.enter(Phase.PREPARING)
        description = ImageDescription(self._image.config, self._header)
        self._target_call(lambda finished: self._target.prepare(description, self, finished), done)

    def _bare_libxc(self, error: LibxlsrError | None) -> None:
        if error is not None:
            self._fail(error)
        else:
            self._restore_libxc(0, self._stream_done)

    def _restore_libxc(self, offset: int, done: Done) -> None:
        """Lend the fd to the target until its libxc part has ended."""
        assert self._image is not None
        self._journal.enter(Phase.MEMORY)
        self._libxc_offset = offset
        source = self._image.source
        stream = LibxcStream(source.fd, offset, source.take_prefix())
        self._loan.lend(source.fd)
        self._target_calls += 1
        self._libxc_running = True

        def finished(outcome: LibxcOutcome | None, error: LibxlsrError | None) -> None:
            self._target_calls -= 1
            self._libxc_running = False
            self._loan.take_back()
            if not self._filtered():
                self._place.give_back()
            self._libxc = outcome
            if outcome is not None:
                self._libxc_done(outcome)
            if self._error is not None:
                self._note_later(error)
                self._check_all_finished()
            else:
                self._journal.enter(Phase.RECORDS)
                done(error)

        self._call(
            "let the target read the memory",
            lambda: self._target.restore_libxc(stream, finished),
            lambda error: finished(None, error),
        )

    def _libxc_done(self, outcome: LibxcOutcome) -> None:
        self._advance(outcome.consumed)
        if self._reader is not None and outcome.failover is not None:
            self._reader.libxc_failed_over(outcome.failover)

    def _advance(self, consumed: int | None) -> None:
        """libxc read so many bytes more; None where that isn't known."""
        if consumed is None or self._libxc_bytes is None:
            self._libxc_bytes = None
        else:
            self._libxc_bytes += consumed
        if self._reader is not None:
            self._reader.advance(consumed)

    # -- the reader's record handler

    def stream_header(self, header: libxl.Header) -> None:
        """The stream header is valid."""
        self._header = header

    def process_record(self, record: Record, done: Done) -> bool:
        """Act on a record; see `libxlsr.stream.reader.RecordHandler`."""
        if record.type is libxl.RecordType.END:
            self._check_complete(record.offset)
            return True
        if record.type is libxl.RecordType.LIBXC_CONTEXT:
            assert self._reader is not None
            offset = self._reader.offset
            assert offset is not None

            def prepared(error: LibxlsrError | None) -> None:
                if error is not None:
                    done(error)
                else:
                    self._restore_libxc(offset, done)

            self._await_place(lambda: self._prepare(prepared))
            return False
        guest_records.check_guest_has(self._domain_type(), record)
        body = record.body
        if isinstance(body, libxl.EmulatorXenstoreData):
            keys = body
            self._target_call(
                lambda finished: self._target.emulator_xenstore_data(keys, finished), done
            )
        elif isinstance(body, libxl.EmulatorContext):
            context = body
            self._emulator_context_seen = True
            self._target_call(
                lambda finished: self._target.emulator_context(context, finished), done
            )
        else:
            raise unhandled(record.type.name, "a restore", record.offset)
        return False

    def _domain_type(self) -> str | None:
        assert self._image is not None
        return guest_records.domain_type(self._image.config, self._libxc)

    def _check_complete(self, offset: int | None) -> None:
        guest_records.check_complete(
            self._domain_type(), emulator_context=self._emulator_context_seen, offset=offset
        )

    # -- the target's hooks

    def progress(self, counters: Mapping[str, int]) -> None:
        """Counters grew; see `libxlsr.targets.TargetHooks`."""
        self._journal.count(counters)

    def log(self, level: int, text: str) -> None:
        """See `libxlsr.targets.TargetHooks`."""
        self._journal.log(level, text)

    def checkpoint(self, consumed: int, done: CheckpointDone) -> None:
        """libxc met a CHECKPOINT; see `libxlsr.targets.TargetHooks`."""
        reader = self._reader
        self._advance(consumed)
        if reader is None:  # a bare libxc stream has no libxl records between its checkpoints
            done(CheckpointReply.SUCCESS, self._libxc_bytes or 0)
            return
        self._loan.take_back()
        assert self._image is not None
        fd = self._image.source.fd

        def finished(reply: CheckpointReply) -> None:
            if self._libxc_running:
                self._loan.lend(fd)
                done(reply, reader.offset or 0)

        reader.start_checkpoint(finished)

    # -- the end

    def _stream_done(self, error: LibxlsrError | None) -> None:
        if error is not None:
            self._fail(error)
        elif self._error is not None:
            self._check_all_finished()
        elif self._failed_over() is not None:
            self._finish_failover()
        elif self._to_eof or self._filtered():
            assert self._image is not None
            self._image.source.read_exactly(1, self._check_end, what="end of the file")
        else:
            self._finish()

    def _filtered(self) -> bool:
        """Whether the image is decompressed or converted on its way."""
        if self._opening is not None:
            return self._opening.filtered
        image = self._image
        return image is not None and (image.compression is not None or image.kind == "legacy")

    def _finish_failover(self) -> None:
        """The stream broke off: the guest of the last checkpoint is the result, if it is whole."""
        reason = self._failed_over()
        assert reason is not None
        if self._filtered() or (self._to_eof and not reason.at_end):
            # A compressed file has no sender that could have died: it is damaged, whatever of it
            # could be read. A converted image has no checkpoints. And a sender that dies leaves a
            # file that ends too early, not one with something wrong in it.
            self._fail(reason)
            return
        try:
            self._check_complete(reason.offset if isinstance(reason, StreamError) else None)
        except StreamError as error:
            self._fail(error)
        else:
            self._finish()

    def _failed_over(self) -> LibxlsrError | None:
        if self._reader is not None:
            return self._reader.failover
        return None if self._libxc is None else self._libxc.failover

    def _check_end(self, result: CopyResult) -> None:
        if result.outcome is Outcome.EOF:
            assert self._opening is not None
            self._opening.when_ended(self._finish)
            return
        if result.error is not None:
            self._fail(TargetError.from_oserror(result.error, "can't read the stream", call="read"))
            return
        self._fail(
            StreamError(
                "something follows the end of the image",
                offset=self._stream_bytes(),
                expected="the end of the file",
                remedy="cut it off, or pipe the image in to have it ignored",
            )
        )

    def _finish(self) -> None:
        self._stop_stall_watch()
        self._journal.enter(Phase.FINISHING)
        self._target_calls += 1

        def finished(restored: Restored | None, error: LibxlsrError | None) -> None:
            self._target_calls -= 1
            if restored is not None:
                # The guest is there, and an abort that came too late can't unmake it.
                self._error = None
                self._restored = restored
                assert self._opening is not None
                self._opening.close()
            elif self._error is not None:
                self._note_later(error)
                self._check_all_finished()
            else:
                assert error is not None
                self._fail(error)

        self._call(
            "let the target finish",
            lambda: self._target.finish(finished),
            lambda error: finished(None, error),
        )

    def _opening_closed(self) -> None:
        self._opening = None
        if self._restored is None:
            self._check_all_finished()
            return
        self._place.give_back()
        self._journal.enter(Phase.FINISHING)
        self._journal.log(logging.INFO, f"restored: {self._restored.where}")
        os.close(self._fd)
        assert self._image is not None
        self._ao.complete(
            RestoreResult(
                guest=self._restored,
                image_kind=self._image.kind,
                compression=self._image.compression,
                stream_bytes=self._stream_bytes(),
                libxl_records=self._libxl_records(),
                checkpoints=0 if self._reader is None else self._reader.checkpoints,
                failover=self._failed_over(),
                seconds=self._journal.seconds,
                phases=dict(self._journal.phases),
            )
        )

    def _stream_bytes(self) -> int | None:
        return self._libxc_bytes if self._reader is None else self._reader.offset

    # -- failure

    def _opening_failed(self, error: LibxlsrError) -> None:
        """What a filter could not read is the cause of whatever its reader complained of."""
        if self._restored is not None:
            return
        if self._error is not None and self._ao.aborting is None:
            if not self._error.at_end:
                error.later.append(self._error)
            self._error = error
        else:
            self._fail(error)

    def _fail(self, error: LibxlsrError) -> None:
        """The first error: tell every task to stop. Also the ao's abort handler."""
        if self._restored is not None:
            return
        if self._error is not None:
            self._note_later(error)
            return
        self._error = error
        # What a filter could not read may be the cause: _opening_failed() will say.
        if not self._filtered() or self._ao.aborting is not None:
            self._ao.abort(error)
            self._error = self._ao.aborting  # the caller's abort, if that came first
        self._stop_stall_watch()
        if self._place.waiting:
            self._place.give_back()
        self._journal.enter(Phase.UNDOING)
        if self._image is not None:
            self._image.source.kill()
        if self._reader is not None:
            self._reader.abort(error)
        if self._target_calls:
            self._call(
                "stop the target's call", lambda: self._target.abort(error), self._note_later
            )
        self._check_all_finished()

    def _note_later(self, error: LibxlsrError | None) -> None:
        """Keep an error that came after the first one."""
        first = self._error
        if first is None or error is None or error is first or error in first.later:
            return
        if error.at_end and self._filtered():
            return  # as the filter's own error says
        first.later.append(error)

    def _check_all_finished(self) -> None:
        """When every task has stopped: undo, once, and report the first error."""
        if self._target_calls:
            return
        if self._opening is not None:
            self._opening.close()
            return
        error = self._error
        assert error is not None
        self._target_calls += 1  # for good: nothing comes after the rollback

        def rolled_back(undo_error: LibxlsrError | None) -> None:
            self._note_later(undo_error)
            self._place.give_back()
            self._journal.log(logging.INFO, f"failed: {error}")
            os.close(self._fd)
            self._ao.abort(error)
            self._ao.fail(error)

        self._call(
            "let the target undo everything",
            lambda: self._target.rollback(rolled_back),
            rolled_back,
        )

    # -- small things

    def _target_call(self, call: Callable[[Done], None], done: Done) -> None:
        """Make one call of the target; go on with ``done`` unless the restore has failed since."""
        self._target_calls += 1

        def finished(error: LibxlsrError | None) -> None:
            self._target_calls -= 1
            if self._error is not None:
                self._note_later(error)
                self._check_all_finished()
            else:
                done(error)

        self._call("let the target do its part", lambda: call(finished), finished)

    def _call(
        self, doing: str, call: Callable[[], None], failed: Callable[[LibxlsrError], None]
    ) -> None:
        """Call the target. It must not raise; if it does, its *done* would never come."""
        try:
            call()
        except Exception as error:
            self._ctx.call_soon(failed, as_error(error, doing))

    def _stop_stall_watch(self) -> None:
        if self._stall_watch is not None:
            self._stall_watch.stop()

    def _libxl_records(self) -> int:
        return 0 if self._reader is None else self._reader.record_number

    def _taken(self) -> int:
        """What was taken from the fd, in bytes, frames and records; it grows, or it does not."""
        own = 0 if self._opening is None else self._opening.received
        return own + sum(self._journal.counters.values())

    def _position(self) -> int:
        """How many bytes of the input were read, as far as is known."""
        counters = self._journal.counters
        if self._filtered():
            return counters["source_bytes"]
        read = 0 if self._reader is None else self._reader.offset or 0
        return max(read, self._libxc_offset + counters["bytes"])
