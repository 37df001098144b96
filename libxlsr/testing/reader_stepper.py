"""A stream reader that is stepped by hand, with no fd, no child and no target.

::

    stepper = ReaderStepper(data)
    stepper.start()
    while stepper.step():                         # one callback: the end of one read, or of a call
        print(stepper.reader.state, stepper.reader.offset)
    assert stepper.error is None

The reader is the real one, on a real context whose clock stands still. What surrounds it is
scripted: `ScriptedSource` reads from memory, `ScriptedHandler` notes the records and finishes them
at once or when told, and `ReaderStepper` plays libxc on LIBXC_CONTEXT (``skip_libxc``,
``checkpoint``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from libxlsr.errors import LibxlsrError
from libxlsr.events import Context, CopyResult, Outcome
from libxlsr.events.egc import ImmediateEvent
from libxlsr.formats import libxl
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.stream.reader import StreamReader
from libxlsr.stream.reader_machine import State
from libxlsr.stream.record import Record
from libxlsr.testing.clock import FakeClock


class ScriptedSource:
    """Bytes in memory as a `RecordSource`. Each read ends in one gathered callback.

    ``error`` is what a read beyond the last byte fails with; without it that is the end of file.
    """

    def __init__(self, ctx: Context, data: bytes, *, error: OSError | None = None) -> None:
        self._ctx = ctx
        self._data = memoryview(data)
        self._error = error
        self._event: ImmediateEvent | None = None
        self.position = 0
        """How many bytes were taken."""
        self.requests: list[tuple[int, str]] = []
        """Each read: how many bytes, and of what."""

    @property
    def in_flight(self) -> bool:
        """Whether a read waits to be ended."""
        return self._event is not None

    def read_exactly(
        self, nbytes: int, callback: Callable[[CopyResult], None], *, what: str
    ) -> None:
        """See `libxlsr.stream.reader.RecordSource`."""
        assert self._event is None, f"{what}: a read is in flight"
        self.requests.append((nbytes, what))
        self._event = self._ctx.call_soon(self._finish, nbytes, callback, what)

    def kill(self) -> None:
        """See `libxlsr.stream.reader.RecordSource`."""
        if self._event is not None:
            self._event.deregister()
            self._event = None

    def _finish(self, nbytes: int, callback: Callable[[CopyResult], None], what: str) -> None:
        self._event = None
        data = bytearray(self._data[self.position : self.position + nbytes])
        self.position += len(data)
        outcome, error = Outcome.DONE, None
        if len(data) < nbytes:
            outcome = Outcome.EOF if self._error is None else Outcome.FAILED
            error = self._error
        callback(CopyResult(outcome, len(data), data, error, False, what))


class ScriptedHandler:
    """A `RecordHandler` that notes what it is given.

    Records of the types in ``later`` are finished by a call of ``finish``, the others at once.
    ``errors`` are raised for the types that they stand for.
    """

    def __init__(
        self,
        *,
        later: Collection[libxl.RecordType] = (),
        errors: Mapping[libxl.RecordType, LibxlsrError] | None = None,
    ) -> None:
        self._later = frozenset(later)
        self._errors = dict(errors or {})
        self._done: Callable[[LibxlsrError | None], None] | None = None
        self.header: libxl.Header | None = None
        self.records: list[Record] = []
        self.on_record: Callable[[Record], object] | None = None
        """Called for each record before anything else is done with it."""

    @property
    def busy(self) -> bool:
        """Whether a record waits for ``finish``."""
        return self._done is not None

    def stream_header(self, header: libxl.Header) -> None:
        """See `libxlsr.stream.reader.RecordHandler`."""
        self.header = header

    def process_record(self, record: Record, done: Callable[[LibxlsrError | None], None]) -> bool:
        """See `libxlsr.stream.reader.RecordHandler`."""
        self.records.append(record)
        if self.on_record is not None:
            self.on_record(record)
        if record.type in self._errors:
            raise self._errors[record.type]
        if record.type not in self._later:
            return True
        self._done = done
        return False

    def finish(self, error: LibxlsrError | None = None) -> None:
        """The record that was given last has been acted on, or has failed."""
        done, self._done = self._done, None
        assert done is not None, "no record is being processed"
        done(error)


class ReaderStepper:
    """One reader over ``data``, a libxl stream, from its header on.

    Where the stream holds libxc's part too, LIBXC_CONTEXT is best among ``later``, so that
    ``skip_libxc`` and ``checkpoint`` can play libxc.
    """

    def __init__(
        self,
        data: bytes,
        *,
        offset: int = 0,
        later: Collection[libxl.RecordType] = (),
        errors: Mapping[libxl.RecordType, LibxlsrError] | None = None,
        read_error: OSError | None = None,
    ) -> None:
        self.ctx = Context(clock=FakeClock())
        self.source = ScriptedSource(self.ctx, data, error=read_error)
        self.handler = ScriptedHandler(later=later, errors=errors)
        self.transitions: list[tuple[str, State, State]] = []
        self.outcomes: list[LibxlsrError | None] = []
        """What the reader said at its end; never more than one."""
        self.replies: list[CheckpointReply] = []
        """What libxc was told at the end of each checkpoint."""
        self.reader = StreamReader(
            self.ctx,
            self.source,
            self.handler,
            self.outcomes.append,
            offset=offset,
            trace=lambda *transition: self.transitions.append(transition),
        )

    @property
    def done(self) -> bool:
        """Whether the reader has said what came of the stream."""
        return bool(self.outcomes)

    @property
    def error(self) -> LibxlsrError | None:
        """What came of the stream, once it is done."""
        (outcome,) = self.outcomes
        return outcome

    def start(self) -> None:
        """Start the reader; its first read is then in flight."""
        self.reader.start()

    def step(self) -> bool:
        """One callback; False when there was none."""
        return self.ctx.step()

    def run(self) -> None:
        """Step until nothing is left to do: the end, or a record that waits for ``finish``."""
        while self.step():
            pass

    def run_to(self, state: State) -> None:
        """Step until the machine stands in ``state``."""
        while self.reader.state is not state:
            assert self.step(), f"the reader stays in {self.reader.state}"

    # libxc's part

    def skip_libxc(self, nbytes: int) -> None:
        """libxc reads so many bytes of the stream."""
        self.source.position += nbytes
        self.reader.advance(nbytes)

    def checkpoint(self) -> None:
        """libxc, being processed, met a CHECKPOINT and lends the stream out."""
        self.reader.start_checkpoint(self.replies.append)
