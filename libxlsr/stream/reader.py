"""The stream reader: reads a libxl migration-v2 stream record by record, and has each acted on.

Layout of a stream (docs/specs/libxl-migration-stream.pandoc), all little-endian but the header::

    header   ident u64 BE "LibxlFmt", version u32 BE, options u32 BE
    record   type u32, length u32, body of that length padded with zeros to 8      (repeated)

The chains of events, in the names of libxl_stream_read.c. ``stream_continue`` starts the action of
the state that the machine is in (reader_machine.py); what it started calls back, and each callback
checks, fires a trigger and continues:

1. The stream header: ``start`` → ``_read_stream_header`` → ``_stream_header_done``.
2. Read a record: ``_setup_read_record`` → ``_record_header_done``, then ``_read_record_body`` →
   ``_record_body_done``, as often as it takes for a body that is skipped.
3. Process a record: ``_process_record`` → the handler. A handler that finished at once returns
   True, and the next action follows; one that started something calls ``_record_processed`` later.
4. A checkpoint: libxc, which is being processed, lends the fd back: ``start_checkpoint`` → 2, with
   records gathered (phase BUFFERING) until CHECKPOINT_END, then processed one after the other
   (UNBUFFERING) → ``_checkpoint_done``, and libxc has the fd again.
5. The end: ``_stream_complete`` once, from wherever; ``on_done`` on the event loop after it.

``stream_continue`` never runs inside itself, so nothing that a stream contains can grow the stack.

Ownership: at most one read is in flight, and the buffer is the reader's until ``_record_body_done``
makes a `Record` of it. Records wait in a queue: one at a time in phase NORMAL, those of one
checkpoint in BUFFERING, whose bodies together may take as much as a single record may. A record is
out of the queue before it is processed.
"""

from __future__ import annotations

import enum
import logging
from collections import deque
from typing import Callable, Protocol

from libxlsr.errors import Aborted, LibxlsrError, StreamError, TargetError
from libxlsr.events import Context, CopyResult, Outcome
from libxlsr.formats import libxl
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.formats.libxl_order import RecordOrder
from libxlsr.formats.records import LibxlBody, decode_libxl_body, decode_libxl_header
from libxlsr.stream.reader_machine import ReaderMachine, State, Trace
from libxlsr.stream.record import Record, label

logger = logging.getLogger(__name__)

SKIP_CHUNK = 64 * 1024
"""Bytes in memory at a time of an optional record that is skipped (a Linux pipe's capacity)."""

TRUNCATED = "the image is truncated: get a whole copy of it"


class Phase(enum.Enum):
    """libxl's SRS_PHASE_*."""

    NORMAL = "normal"
    BUFFERING = "buffering"
    UNBUFFERING = "unbuffering"


class RecordSource(Protocol):
    """Where the bytes come from: a datacopier bound to an fd, or a test's script."""

    def read_exactly(
        self, nbytes: int, callback: Callable[[CopyResult], None], *, what: str
    ) -> None:
        """Read exactly ``nbytes`` and call back once, later; never a byte more."""

    def kill(self) -> None:
        """Drop the read in flight, if any; its callback won't come."""


class RecordHandler(Protocol):
    """What acts on the records of a stream."""

    def stream_header(self, header: libxl.Header) -> None:
        """The header was read and is valid."""

    def process_record(self, record: Record, done: Callable[[LibxlsrError | None], None]) -> bool:
        """Act on a record: LIBXC_CONTEXT, EMULATOR_* or END.

        True: it was finished at once, and ``done`` won't be called; END always is. False: ``done``
        is called later, once, on the event loop. An error of libxlsr may be raised instead.
        """


class StreamReader:
    """Reads one libxl stream.

    ``on_done(error)`` is called once, on the event loop, with None for a stream that was read and
    acted on to its end. ``trace`` is told of each transition.
    """

    def __init__(
        self,
        ctx: Context,
        source: RecordSource,
        handler: RecordHandler,
        on_done: Callable[[LibxlsrError | None], None],
        *,
        offset: int = 0,
        trace: Trace | None = None,
    ) -> None:
        self._ctx = ctx
        self._source = source
        self._handler = handler
        self._on_done = on_done
        self._machine = ReaderMachine(trace)
        self._order = RecordOrder()
        self._phase = Phase.NORMAL
        self._offset: int | None = offset
        self._record_number = 0
        self._record_offset: int | None = None
        self._incoming: libxl.RecordHeader | None = None
        self._processing: Record | None = None
        self._body_remaining = 0
        self._queue: deque[Record] = deque()
        self._queued_bytes = 0
        self._in_stream_continue = False
        self._checkpoint_callback: Callable[[CheckpointReply], None] | None = None
        self._checkpoints = 0
        self._failover: LibxlsrError | None = None

    # -- what can be looked at, between any two steps

    @property
    def state(self) -> State:
        """Where the machine stands."""
        return self._machine.state

    @property
    def phase(self) -> Phase:
        """NORMAL, or what is being done with a checkpoint's records."""
        return self._phase

    @property
    def offset(self) -> int | None:
        """The offset of the next byte to read; None after libxc read from a pipe unseen."""
        return self._offset

    @property
    def buffered(self) -> tuple[Record, ...]:
        """The records that were read and not yet processed."""
        return tuple(self._queue)

    @property
    def record_number(self) -> int:
        """The number of the record that is being read or processed, from 1; 0 before the first."""
        return self._record_number

    @property
    def checkpoints(self) -> int:
        """How many checkpoints are whole."""
        return self._checkpoints

    @property
    def failover(self) -> LibxlsrError | None:
        """Why the stream broke off after its last whole checkpoint; None if it did not."""
        return self._failover

    # -- entry points

    def start(self) -> None:
        """Start reading, with the stream header. Called once."""
        self.stream_continue()

    def abort(self, reason: LibxlsrError | None = None) -> None:
        """Give up. Does nothing when the stream is already at its end, good or bad."""
        if self._machine.is_live:
            self._stream_complete(reason if reason is not None else Aborted())

    def advance(self, consumed: int | None) -> None:
        """Somebody else (libxc) read this many bytes from the fd; None if that isn't known."""
        if consumed is None or self._offset is None:
            self._offset = None
        else:
            self._offset += consumed

    def start_checkpoint(self, callback: Callable[[CheckpointReply], None]) -> None:
        """libxc, being processed, met a CHECKPOINT and lends the fd: read the checkpoint's records.

        ``callback`` is called once, on the event loop, with what libxc shall do.
        """
        assert self._phase is Phase.NORMAL
        assert self._checkpoint_callback is None
        if not self._machine.is_live:  # aborted while the request was on its way
            self._ctx.call_soon(callback, CheckpointReply.ERROR)
            return
        self._machine.record_processed()
        self._checkpoint_callback = callback
        self._phase = Phase.BUFFERING
        self._order.start_checkpoint()
        self.stream_continue()

    def libxc_failed_over(self, error: LibxlsrError) -> None:
        """libxc, being processed, lost the stream and went back to its last whole checkpoint.

        Called before the handler's ``done``; the stream is then complete, without END.
        """
        if self._failover is None:  # else it did as it was told, and the cause is known here
            self._failover = error

    # -- choosing the next action

    def stream_continue(self) -> None:
        """Start the action of the machine's state, and the next one of each that ends at once."""
        assert not self._in_stream_continue, "stream_continue() must not run inside itself"
        self._in_stream_continue = True
        try:
            while self._machine.is_live:
                action = _ACTIONS[self._machine.state]
                if not action(self):
                    return
        except LibxlsrError as error:
            self._failed(self._located(error))
        finally:
            self._in_stream_continue = False

    # -- the actions: each returns whether the next one is due at once

    def _read_stream_header(self) -> bool:
        return self._read(libxl.HEADER_SIZE, self._stream_header_done, "stream header")

    def _setup_read_record(self) -> bool:
        self._record_number += 1
        self._record_offset = self._offset
        self._incoming = None
        self._processing = None
        return self._read(libxl.RECORD_HEADER_SIZE, self._record_header_done, "record header")

    def _read_record_body(self) -> bool:
        """The body whole, or the next chunk of one that is skipped."""
        header = self._incoming
        assert header is not None
        nbytes = self._body_remaining
        if header.is_optional:
            nbytes = min(nbytes, SKIP_CHUNK)
        return self._read(nbytes, self._record_body_done, "record body")

    def _process_record(self) -> bool:
        """What is done with the record that was read, or with the next one of the checkpoint."""
        if self._incoming is not None and self._incoming.is_optional:
            logger.debug("skipped optional record %d", self._record_number)
            self._machine.record_processed()
            return True
        if self._phase is Phase.BUFFERING:
            if self._queue[-1].type is not libxl.RecordType.CHECKPOINT_END:
                self._machine.record_processed()  # it waits in the queue for its checkpoint
                return True
            self._phase = Phase.UNBUFFERING
        record = self._queue.popleft()
        self._queued_bytes -= record.length
        if record.type is libxl.RecordType.CHECKPOINT_END:
            self._checkpoint_done(CheckpointReply.SUCCESS)
            return False
        self._processing = record
        finished = self._handler.process_record(record, self._record_processed)
        if not self._machine.is_live:  # the handler aborted
            return False
        if record.type is libxl.RecordType.END:
            self._stream_complete(None)
            return False
        if finished:
            self._after_record()
        return finished

    # -- the callbacks: each checks, fires a trigger and continues

    def _stream_header_done(self, result: CopyResult) -> None:
        start = self._offset or 0
        try:
            header = libxl.Header.decode(self._checked(result), start)
            self._handler.stream_header(header)
        except LibxlsrError as error:
            self._failed(self._located(error))
            return
        self._machine.header_done()
        self.stream_continue()

    def _record_header_done(self, result: CopyResult) -> None:
        try:
            data = self._checked(result)
            header = decode_libxl_header(data, self._record_offset or 0)
            self._incoming = header
            if not header.is_optional:
                self._order.check(libxl.RecordType(header.type), self._record_offset)
        except LibxlsrError as error:
            self._failed(self._located(error))
            return
        self._body_remaining = header.padded_length
        self._machine.record_header_done()
        self.stream_continue()

    def _record_body_done(self, result: CopyResult) -> None:
        header = self._incoming
        assert header is not None
        offset = self._offset
        try:
            data = self._checked(result)
            if not header.is_optional:
                self._enqueue(header, decode_libxl_body(header, data, offset or 0))
        except LibxlsrError as error:
            self._failed(self._located(error))
            return
        self._body_remaining -= len(data)
        if not self._body_remaining:
            self._machine.record_body_done()
        self.stream_continue()

    def _record_processed(self, error: LibxlsrError | None) -> None:
        """The handler's callback for what it started."""
        if not self._machine.is_live:
            return
        if error is not None:
            # Not _failed(): a libxc that ended while it had lent the fd out can't fail over.
            self._stream_complete(error)
        elif self._failover is not None:
            # libxc went back to the last whole checkpoint: that is the guest, and nothing follows.
            self._stream_complete(None)
        else:
            self._after_record()
            self.stream_continue()

    def _after_record(self) -> None:
        if self._phase is Phase.NORMAL:  # else the checkpoint's next record is due
            self._machine.record_processed()

    # -- reading

    def _read(self, nbytes: int, callback: Callable[[CopyResult], None], what: str) -> bool:
        self._source.read_exactly(nbytes, callback, what=what)
        return False

    def _checked(self, result: CopyResult) -> bytearray:
        """The bytes of a read, all of them; anything less is an error."""
        if self._offset is not None:
            self._offset += result.nbytes
        if result.outcome is Outcome.EOF:
            if self._machine.state is State.RECORD_HDR and result.nbytes == 0:
                problem = "the stream ends without an END record"
            else:
                problem = f"the stream ends {result.nbytes} bytes into a {result.what}"
            raise StreamError(problem, offset=self._offset, remedy=TRUNCATED, at_end=True)
        if result.outcome is Outcome.FAILED:
            assert result.error is not None
            raise TargetError.from_oserror(result.error, "can't read the stream", call="read")
        return result.data

    def _enqueue(self, header: libxl.RecordHeader, body: LibxlBody | None) -> None:
        self._queued_bytes += header.length
        if self._queued_bytes > libxl.RECORD_LENGTH_MAX:
            raise StreamError(
                "the records of one checkpoint take more memory than a record may",
                offset=self._record_offset,
                expected=f"at most {libxl.RECORD_LENGTH_MAX} bytes",
            )
        record_type = libxl.RecordType(header.type)
        self._queue.append(
            Record(record_type, header.length, self._record_number, self._record_offset, body)
        )

    # -- the ends of things

    def _failed(self, error: LibxlsrError) -> None:
        """Something went wrong: a checkpoint may survive it, the stream does not."""
        if self._phase is Phase.BUFFERING and self._checkpoints:
            logger.warning("checkpoint %d broke off: %s", self._checkpoints + 1, error)
            self._failover = error
            self._source.kill()
            self._drop_queue()
            self._machine.checkpoint_failover()
            self._checkpoint_done(CheckpointReply.FAILOVER)
        else:
            self._stream_complete(error)

    def _located(self, error: LibxlsrError) -> LibxlsrError:
        """The error with its record named, and without an offset that isn't known."""
        if not isinstance(error, StreamError):
            return error
        if self._processing is not None:
            error.record = str(self._processing)
        elif self._incoming is not None:
            error.record = label(self._record_number, self._incoming.type)
        elif self._machine.state is not State.HEADER:
            kind = "" if error.record is None else f" ({error.record})"
            error.record = f"record {self._record_number}{kind}"
        if self._offset is None:
            error.offset = None
        return error

    def _checkpoint_done(self, reply: CheckpointReply) -> None:
        """Give the fd back to libxc. The phase is left first: the callback may be quick."""
        callback = self._checkpoint_callback
        assert callback is not None
        self._checkpoint_callback = None
        self._phase = Phase.NORMAL
        if reply is CheckpointReply.SUCCESS:
            self._checkpoints += 1
        self._ctx.call_soon(callback, reply)

    def _drop_queue(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0
        self._incoming = None

    def _stream_complete(self, error: LibxlsrError | None) -> None:
        """The one way out: the machine first, then what is registered, then the news."""
        try:
            if error is None:
                self._machine.complete()
            else:
                self._machine.fail()
        finally:  # a trace may raise KeyboardInterrupt, and the news must come all the same
            self._source.kill()
            self._drop_queue()
            if self._checkpoint_callback is not None:
                self._checkpoint_done(CheckpointReply.ERROR)
            self._ctx.call_soon(self._on_done, error)


_ACTIONS: dict[State, Callable[[StreamReader], bool]] = {
    State.HEADER: StreamReader._read_stream_header,
    State.RECORD_HDR: StreamReader._setup_read_record,
    State.RECORD_BODY: StreamReader._read_record_body,
    State.PROCESS: StreamReader._process_record,
}
"""What a reader does in each state that something leaves."""
