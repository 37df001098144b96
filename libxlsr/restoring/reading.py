"""Reading an image that was opened, up to the end of it that the caller wants.

There are two kinds: a libxl stream, whose reader has libxc's part read in its middle, and a bare
libxc stream. Both end in the same way: with the stream's END, or as of its last checkpoint where it
broke off after one, and with the end of the file where nothing may follow.
"""

from __future__ import annotations

from collections.abc import Callable

from libxlsr.errors import LibxlsrError, StreamError, TargetError
from libxlsr.events import CopyResult, Outcome
from libxlsr.events.chain import Done
from libxlsr.formats import libxl
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.formats.records import unhandled
from libxlsr.restoring import guest_records
from libxlsr.restoring.libxc_part import LibxcPart
from libxlsr.restoring.opening import Opened
from libxlsr.restoring.run import Run
from libxlsr.restoring.target import CheckpointDone, ImageDescription
from libxlsr.stream.reader import StreamReader
from libxlsr.stream.record import Record


class Reading:
    """One of either kind. ``on_read(reading)`` is called when the image was read to its end, while
    the reading is still one of the restore's tasks."""

    checkpoints = 0
    """How many are whole; of a bare libxc stream libxc alone knows."""
    libxl_records = 0
    """How many have been read, or have begun to be."""

    def __init__(self, run: Run, image: Opened, on_read: Callable[[Reading], None]) -> None:
        self._run = run
        self.image = image
        self._on_read = on_read
        self._task = run.tasks.start(self._stop)
        self._emulator_context_seen = False
        self._libxc = LibxcPart(
            run,
            image.source,
            advanced=self._advance,
            on_checkpoint=self._checkpoint,
            keeps_place=image.filtered,
        )

    # What the kinds differ in.

    def start(self) -> None:
        """Start reading."""
        raise NotImplementedError

    @property
    def offset(self) -> int | None:
        """Of the next byte in the stream; None after libxc read from a pipe unseen."""
        raise NotImplementedError

    @property
    def failover(self) -> LibxlsrError | None:
        """Why a checkpointed stream broke off after its last whole checkpoint."""
        raise NotImplementedError

    def _stop(self, reason: LibxlsrError) -> None:
        raise NotImplementedError

    def _advance(self, consumed: int | None) -> None:
        raise NotImplementedError

    def _checkpoint(self, done: CheckpointDone) -> None:
        raise NotImplementedError

    # What they share.

    @property
    def position(self) -> int:
        """How many bytes of the input were read, as far as is known."""
        counters = self._run.journal.counters
        if self.image.filtered:
            return counters["source_bytes"]
        return max(self.offset or 0, self._libxc.offset + counters["bytes"])

    def _description(self, header: libxl.Header | None) -> ImageDescription:
        return ImageDescription(self.image.config, header)

    def _domain_type(self) -> str | None:
        return guest_records.domain_type(self.image.config, self._libxc.outcome)

    def _check_complete(self, offset: int | None) -> None:
        guest_records.check_complete(
            self._domain_type(), emulator_context=self._emulator_context_seen, offset=offset
        )

    def _stream_done(self, error: LibxlsrError | None) -> None:
        if error is None and self._run.tasks.error is None:
            error = self._end()
        self._task.ended(error)

    def _end(self) -> LibxlsrError | None:
        """The stream has ended well, or broke off after a checkpoint: what is wrong with that."""
        reason = self.failover
        if reason is not None:
            # A compressed file has no sender that could have died: it is damaged, whatever of it
            # could be read. A converted image has no checkpoints. And a sender that dies leaves a
            # file that ends too early, not one with something wrong in it.
            if self.image.filtered or (self._run.options.to_eof and not reason.at_end):
                return reason
            try:
                self._check_complete(reason.offset if isinstance(reason, StreamError) else None)
            except StreamError as error:
                return error
            self._on_read(self)
        elif self._run.options.to_eof or self.image.filtered:
            self._await_end_of_file()
        else:
            self._on_read(self)
        return None

    def _await_end_of_file(self) -> None:
        source = self.image.source

        def stop(_reason: LibxlsrError) -> None:
            source.kill()
            task.ended()

        def checked(result: CopyResult) -> None:
            if result.outcome is Outcome.EOF:
                self._on_read(self)
                task.ended()
            elif result.error is not None:
                task.ended(
                    TargetError.from_oserror(result.error, "can't read the stream", call="read")
                )
            else:
                task.ended(
                    StreamError(
                        "something follows the end of the image",
                        offset=self.offset,
                        expected="the end of the file",
                        remedy="cut it off, or pipe the image in to have it ignored",
                    )
                )

        task = self._run.tasks.start(stop)
        source.read_exactly(1, checked, what="end of the file")


class LibxlReading(Reading):
    """Of a libxl stream. It is the reader's record handler."""

    def __init__(self, run: Run, image: Opened, on_read: Callable[[Reading], None]) -> None:
        super().__init__(run, image, on_read)
        self._header: libxl.Header | None = None
        self._reader = StreamReader(
            run.ctx,
            image.source,
            self,
            self._stream_done,
            offset=image.offset,
            trace=run.options.trace,
        )

    def start(self) -> None:
        """See `Reading`."""
        self._reader.start()

    @property
    def offset(self) -> int | None:
        """See `Reading`."""
        return self._reader.offset

    @property
    def failover(self) -> LibxlsrError | None:
        """See `Reading`."""
        return self._reader.failover

    @property
    def checkpoints(self) -> int:  # type: ignore[override]
        """See `Reading`."""
        return self._reader.checkpoints

    @property
    def libxl_records(self) -> int:  # type: ignore[override]
        """See `Reading`."""
        return self._reader.record_number

    def _stop(self, reason: LibxlsrError) -> None:
        self._reader.abort(reason)

    def _advance(self, consumed: int | None) -> None:
        self._reader.advance(consumed)
        outcome = self._libxc.outcome
        if outcome is not None and outcome.failover is not None:
            self._reader.libxc_failed_over(outcome.failover)

    def _checkpoint(self, done: CheckpointDone) -> None:
        self._reader.start_checkpoint(lambda reply: done(reply, self._reader.offset or 0))

    # -- the reader's record handler

    def stream_header(self, header: libxl.Header) -> None:
        """See `libxlsr.stream.reader.RecordHandler`."""
        self._header = header

    def process_record(self, record: Record, done: Done) -> bool:
        """See `libxlsr.stream.reader.RecordHandler`."""
        if record.type is libxl.RecordType.END:
            self._check_complete(record.offset)
            return True
        if record.type is libxl.RecordType.LIBXC_CONTEXT:
            self._libxc.restore(self._description(self._header), self.offset or 0, done)
            return False
        guest_records.check_guest_has(self._domain_type(), record)
        target, body = self._run.target, record.body
        if isinstance(body, libxl.EmulatorXenstoreData):
            keys = body
            self._call(lambda ended: target.emulator_xenstore_data(keys, ended), record, done)
        elif isinstance(body, libxl.EmulatorContext):
            context = body
            self._emulator_context_seen = True
            self._call(lambda ended: target.emulator_context(context, ended), record, done)
        else:
            raise unhandled(record.type.name, "a restore", record.offset)
        return False

    def _call(self, call: Callable[[Done], None], record: Record, done: Done) -> None:
        doing = f"let the target take {record}"
        self._run.tasks.call(call, done, stop=self._run.stop_target, doing=doing)


class BareLibxcReading(Reading):
    """Of a bare libxc stream."""

    _bytes: int | None = 0

    def start(self) -> None:
        """See `Reading`."""
        self._libxc.restore(self._description(None), 0, self._libxc_done)

    @property
    def offset(self) -> int | None:
        """See `Reading`."""
        return self._bytes

    @property
    def failover(self) -> LibxlsrError | None:
        """See `Reading`."""
        outcome = self._libxc.outcome
        return None if outcome is None else outcome.failover

    def _libxc_done(self, error: LibxlsrError | None) -> None:
        if error is None and self.failover is None:
            try:
                self._check_complete(self.offset)
            except StreamError as failure:
                error = failure
        self._stream_done(error)

    def _stop(self, reason: LibxlsrError) -> None:
        self._task.ended()  # what runs is a call of the target, which is a task of its own

    def _advance(self, consumed: int | None) -> None:
        self._bytes = None if consumed is None or self._bytes is None else self._bytes + consumed

    def _checkpoint(self, done: CheckpointDone) -> None:
        # There are no records of libxl's between its checkpoints.
        done(CheckpointReply.SUCCESS, self._bytes or 0)
