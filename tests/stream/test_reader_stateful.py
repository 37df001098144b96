"""The stream reader against a model that is a list of bytes and a list of records.

Hypothesis lets bytes arrive, right and wrong ones, in any pieces; it hangs up, finishes records,
fails them, has libxc meet checkpoints and end, aborts, and steps, in any order. The model knows
which record the handler must have by then, what libxc was told, and how the stream ended.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from libxlsr.errors import Aborted, LibxlsrError, StreamError, TargetError
from libxlsr.events import Context, CopyResult, Outcome
from libxlsr.events.egc import ImmediateEvent
from libxlsr.formats import libxl
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.formats.libxl import RecordType
from libxlsr.stream.reader import StreamReader
from libxlsr.stream.reader_machine import TABLE, State
from libxlsr.stream.record import Record
from libxlsr.testing import libxl_records
from libxlsr.testing.clock import FakeClock

T = RecordType

# What may follow LIBXC_CONTEXT, as libxl-migration-stream.pandoc has it ("Layout"), and what each
# checkpoint may consist of: every sequence there is.
EMULATOR_RECORDS: tuple[tuple[RecordType, ...], ...] = (
    (),
    (T.EMULATOR_XENSTORE_DATA,),
    (T.EMULATOR_CONTEXT,),
    (T.EMULATOR_XENSTORE_DATA, T.EMULATOR_CONTEXT),
)
LAST_RECORDS = [(*records, T.END) for records in EMULATOR_RECORDS]
CHECKPOINTS = [(*records, T.CHECKPOINT_END) for records in EMULATOR_RECORDS]

SHORT_BODY = "short body"
UNKNOWN = "unknown"
OPTIONAL = "optional"
PIECES: dict[str, bytes] = {
    **{known.name: libxl_records.record(known) for known in T},
    OPTIONAL: libxl_records.record(libxl_records.OPTIONAL, b"skipped"),
    UNKNOWN: libxl_records.record(0x42, b""),
    SHORT_BODY: libxl_records.record(T.EMULATOR_CONTEXT, b"four"),
}
HEADER_SIZE, RECORD_HEADER_SIZE = libxl.HEADER_SIZE, libxl.RECORD_HEADER_SIZE


SELDOM = st.integers(0, 19)


class ArrivingBytes:
    """A `RecordSource` whose bytes come when they are told to."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._data = bytearray()
        self._eof = False
        self._wanted: tuple[int, Callable[[CopyResult], None], str] | None = None
        self._event: ImmediateEvent | None = None
        self.taken = 0

    def read_exactly(
        self, nbytes: int, callback: Callable[[CopyResult], None], *, what: str
    ) -> None:
        assert self._wanted is None
        self._wanted = (nbytes, callback, what)
        self._wake()

    def kill(self) -> None:
        self._wanted = None
        if self._event is not None:
            self._event.deregister()
            self._event = None

    def arrive(self, data: bytes) -> None:
        self._data += data
        self._wake()

    def hang_up(self) -> None:
        self._eof = True
        self._wake()

    def _wake(self) -> None:
        if self._wanted is None or self._event is not None:
            return
        if len(self._data) >= self._wanted[0] or self._eof:
            self._event = self._ctx.call_soon(self._finish)

    def _finish(self) -> None:
        assert self._wanted is not None
        nbytes, callback, what = self._wanted
        self.kill()
        data = self._data[:nbytes]
        del self._data[:nbytes]
        self.taken += len(data)
        outcome = Outcome.DONE if len(data) == nbytes else Outcome.EOF
        callback(CopyResult(outcome, len(data), data, None, False, what))


class Handler:
    """A `RecordHandler` that finishes nothing by itself but END."""

    def __init__(self) -> None:
        self.records: list[RecordType] = []
        self.libxc_done: Callable[[LibxlsrError | None], None] | None = None
        self.record_done: Callable[[LibxlsrError | None], None] | None = None

    def stream_header(self, header: libxl.Header) -> None:
        assert self.records == []

    def process_record(self, record: Record, done: Callable[[LibxlsrError | None], None]) -> bool:
        assert self.record_done is None, "one record at a time"
        self.records.append(record.type)
        if record.type is T.LIBXC_CONTEXT:
            self.libxc_done = done
        elif record.type is not T.END:
            self.record_done = done
        return record.type is T.END


class Model:
    """What a reader must do, said once more and without events."""

    def __init__(self) -> None:
        self.unread: list[tuple[str, int]] = [("header", HEADER_SIZE)]
        self.arrived = 0
        self.eof = False
        self.processed: list[RecordType] = []
        self.libxc_runs = self.record_runs = self.lent = self.failover = False
        self.checkpoints = 0
        self.replies: list[CheckpointReply] = []
        self.ended: str | None = None
        self._queue: list[RecordType] = []
        self._section: tuple[RecordType, ...] | None = None  # since LIBXC_CONTEXT or a CHECKPOINT

    def go_on(self) -> None:
        """Read and process as far as the bytes and the handler allow."""
        while self.ended is None and self._one():
            pass

    def _one(self) -> bool:
        if self.lent and T.CHECKPOINT_END in self._queue:
            return self._unbuffer()
        if (self.libxc_runs or self.record_runs) and not self.lent:
            return False
        kind, size = self.unread[0] if self.unread else ("nothing", 1)
        record = T.EMULATOR_CONTEXT if kind == SHORT_BODY else T.__members__.get(kind)
        refused = kind == UNKNOWN or (record is not None and not self.may_follow(record))
        if self.arrived < (RECORD_HEADER_SIZE if refused else size):
            if self.eof:
                self._broken()
            return self.eof
        if refused or kind == SHORT_BODY:
            self._broken()
            return True
        self.unread.pop(0)
        self.arrived -= size
        if record is not None:
            self._record(record)
        return True

    def _unbuffer(self) -> bool:
        """The records of a checkpoint that is whole, one after another."""
        if self.record_runs:
            return False
        record = self._queue.pop(0)
        if record is T.CHECKPOINT_END:
            self.lent = False
            self.checkpoints += 1
            self.replies.append(CheckpointReply.SUCCESS)
        else:
            self.processed.append(record)
            self.record_runs = True
        return True

    def _record(self, record: RecordType) -> None:
        section_ends = self._section is None or record is T.CHECKPOINT_END
        self._section = () if section_ends else (*(self._section or ()), record)
        if self.lent:
            self._queue.append(record)
            return
        self.processed.append(record)
        self.libxc_runs = record is T.LIBXC_CONTEXT
        self.record_runs = record in (T.EMULATOR_XENSTORE_DATA, T.EMULATOR_CONTEXT)
        if record is T.END:
            self.ended = "done"

    def may_follow(self, record: RecordType) -> bool:
        if self._section is None:
            return record is T.LIBXC_CONTEXT
        so_far = (*self._section, record)
        sequences = CHECKPOINTS if self.lent else LAST_RECORDS
        return any(sequence[: len(so_far)] == so_far for sequence in sequences)

    def _broken(self) -> None:
        if self.lent and self.checkpoints:
            self._queue.clear()
            self.lent, self.failover = False, True
            self.replies.append(CheckpointReply.FAILOVER)
        else:
            self.fail()

    def fail(self) -> None:
        self.ended = "failed"
        if self.lent:
            self.lent = False
            self.replies.append(CheckpointReply.ERROR)

    def finish(self, error: bool) -> None:
        libxc_ends = not self.record_runs
        if libxc_ends:
            self.libxc_runs = False
        self.record_runs = False
        if error:
            self.fail()
        elif self.failover and libxc_ends:
            self.ended = "done"

    def checkpoint(self) -> None:
        self.lent = True
        self._section = ()


class Reader(RuleBasedStateMachine):
    """See this module's first lines."""

    def __init__(self) -> None:
        super().__init__()
        self.ctx = Context(clock=FakeClock())
        self.source = ArrivingBytes(self.ctx)
        self.handler = Handler()
        self.outcomes: list[LibxlsrError | None] = []
        self.replies: list[CheckpointReply] = []
        self.state = State.HEADER
        self.transitions: list[tuple[str, State, State]] = []
        self.reader = StreamReader(
            self.ctx, self.source, self.handler, self.outcomes.append, trace=self._trace
        )
        self.reader.start()
        self.model = Model()
        self.pending = bytearray(libxl_records.HEADER)
        self.given: LibxlsrError | None = None

    def _trace(self, trigger: str, source: State, dest: State) -> None:
        self.transitions.append((trigger, source, dest))

    def _settle(self) -> None:
        while self.ctx.step():
            pass
        for transition in self.transitions:
            assert transition in TABLE
            assert transition[1] is self.state
            self.state = transition[2]
        self.transitions.clear()
        self.model.go_on()
        assert self.handler.records == self.model.processed
        assert self.replies == self.model.replies
        assert self.reader.checkpoints == self.model.checkpoints
        assert (self.reader.failover is not None) == self.model.failover
        assert bool(self.outcomes) == (self.model.ended is not None)

    def _queue(self, kind: str) -> None:
        self.pending += PIECES[kind]
        self.model.unread.append((kind, len(PIECES[kind])))

    @rule(kind=st.sampled_from(sorted(PIECES)), chance=SELDOM)
    def queue_anything(self, kind: str, chance: int) -> None:
        if chance == 0:
            self._queue(kind)

    @rule(choice=st.integers(0, 3))
    def queue_what_may_follow(self, choice: int) -> None:
        self._settle()
        if all(kind == "header" for kind, _ in self.model.unread):
            fitting = [record.name for record in T if self.model.may_follow(record)]
            if fitting:
                self._queue([*fitting, OPTIONAL][choice % (len(fitting) + 1)])

    @rule(nbytes=st.integers(1, 60))
    @precondition(lambda self: not self.model.eof)
    def arrive(self, nbytes: int) -> None:
        self._arrive(nbytes)

    @rule()
    @precondition(lambda self: not self.model.eof)
    def arrive_all(self) -> None:
        self._arrive(len(self.pending))

    def _arrive(self, nbytes: int) -> None:
        data = bytes(self.pending[:nbytes])
        del self.pending[:nbytes]
        self.source.arrive(data)
        self.model.arrived += len(data)

    @rule(chance=SELDOM)
    @precondition(lambda self: not self.model.eof)
    def hang_up(self, chance: int) -> None:
        if chance:
            return
        self.source.hang_up()
        self.model.eof = True

    @rule()
    def step(self) -> None:
        self.ctx.step()

    @rule()
    def settle(self) -> None:
        self._settle()

    @rule(chance=SELDOM)
    def finish(self, chance: int) -> None:
        """The record that is being processed ends; libxc only while it has the fd."""
        self._settle()
        self._finish(None if chance else TargetError("no"))

    def _finish(self, failure: LibxlsrError | None) -> None:
        model, handler = self.model, self.handler
        if model.ended is not None:
            return
        done: Callable[[LibxlsrError | None], None] | None
        if model.record_runs:
            done, handler.record_done = handler.record_done, None
        elif model.libxc_runs and not model.lent:
            done, handler.libxc_done = handler.libxc_done, None
        else:
            return
        self.given = self.given or failure
        assert done is not None
        done(failure)
        model.finish(failure is not None)
        self._settle()

    @rule()
    def checkpoint(self) -> None:
        """libxc meets a CHECKPOINT."""
        self._settle()
        model = self.model
        if model.ended is None and model.libxc_runs and not model.lent and not model.failover:
            model.checkpoint()
            self.reader.start_checkpoint(self.replies.append)
            self._settle()

    @rule(times=st.integers(1, 2), chance=SELDOM)
    def abort(self, times: int, chance: int = 0) -> None:
        if chance:
            return
        self._settle()
        for _ in range(times):
            self.reader.abort(Aborted("enough"))
        if self.model.ended is None:
            self.given = self.given or Aborted("enough")
            self.model.fail()
        self._settle()

    @invariant()
    def the_end_is_told_once(self) -> None:
        assert len(self.outcomes) <= 1
        if self.outcomes:
            assert self.reader.buffered == ()
            assert self.reader.state in (State.DONE, State.FAILED)
            assert (self.outcomes[0] is None) == (self.reader.state is State.DONE)
            assert self.reader.offset == self.source.taken

    def _bring_to_an_end(self) -> None:
        """A good one, if nothing was wrong so far."""
        while self.model.ended is None:
            if all(kind == "header" for kind, _ in self.model.unread):
                fitting = [record for record in T if self.model.may_follow(record)]
                last = [record for record in fitting if record in (T.CHECKPOINT_END, T.END)]
                if fitting:
                    self._queue((last or fitting)[0].name)
            if not self.model.eof:
                self._arrive(len(self.pending))
            self._settle()
            if self.model.ended is None:
                self._finish(None)

    def teardown(self) -> None:
        self._settle()
        self._bring_to_an_end()
        (outcome,) = self.outcomes
        assert (outcome is None) == (self.model.ended == "done")
        if outcome is not None:
            assert isinstance(outcome, StreamError if self.given is None else type(self.given))
        assert self.ctx.registered() == []


Reader.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
TestReader = Reader.TestCase
