"""A target in memory: it notes what it is given, and fails or dawdles where it is told to.

It keeps the rules of `libxlsr.restoring.target` and passes the conformance suite. libxc's part is
looked at in this process and blocking, so the stream has to be there; pages are passed over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Callable

from libxlsr.errors import LibxlsrError, StreamError
from libxlsr.events import Context
from libxlsr.events.chain import Done
from libxlsr.formats import libxc, libxl
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.libxc.guest import Guest
from libxlsr.libxc.visitor import Problem, Record, Visitor
from libxlsr.libxc.walker import Walker
from libxlsr.restoring.target import (
    FinishDone,
    ImageDescription,
    LibxcDone,
    LibxcOutcome,
    Restored,
    TargetHooks,
)
from libxlsr.source.exact_reader import ExactReader
from libxlsr.stream.libxc_stream import LibxcStream


class FakeTarget:
    """``errors``: calls that fail, by name. ``held``: calls that end only when they are aborted."""

    name = "fake"

    def __init__(
        self,
        ctx: Context,
        *,
        errors: Mapping[str, LibxlsrError] | None = None,
        held: Collection[str] = (),
    ) -> None:
        self._ctx = ctx
        self._errors = dict(errors or {})
        self._held = frozenset(held)
        self._stop: Callable[[LibxlsrError], None] | None = None
        self.calls: list[str] = []
        """The names of the calls that came, ``abort`` included."""
        self.on_call: Callable[[str], object] | None = None
        """Called with the name of each call, from inside it."""
        self.image: ImageDescription | None = None
        self.hooks: TargetHooks | None = None
        self.stream: LibxcStream | None = None
        self.libxc_records: list[int] = []
        """Types of libxc's records."""
        self.emulator: list[libxl.EmulatorXenstoreData | libxl.EmulatorContext] = []
        self.finished = False
        self.rolled_back = False

    @property
    def busy(self) -> bool:
        """Whether a held call waits to be aborted."""
        return self._stop is not None

    def prepare(self, image: ImageDescription, hooks: TargetHooks, done: Done) -> None:
        """Note both."""
        self.image, self.hooks = image, hooks
        self._end("prepare", done)

    def restore_libxc(self, stream: LibxcStream, done: LibxcDone) -> None:
        """Read over the libxc stream."""
        self.stream = stream

        def ended(error: LibxlsrError | None) -> None:
            if error is not None:
                done(None, error)
            else:
                self._ctx.call_soon(_LibxcPart(self, stream, done).start)

        self._end("restore_libxc", ended)

    def emulator_xenstore_data(self, data: libxl.EmulatorXenstoreData, done: Done) -> None:
        """Note it."""
        self.emulator.append(data)
        self._end("emulator_xenstore_data", done)

    def emulator_context(self, context: libxl.EmulatorContext, done: Done) -> None:
        """Note it."""
        self.emulator.append(context)
        self._end("emulator_context", done)

    def finish(self, done: FinishDone) -> None:
        """The guest is there."""

        def ended(error: LibxlsrError | None) -> None:
            if error is not None:
                done(None, error)
            else:
                self.finished = True
                done(Restored(target=self.name, where="nowhere"), None)

        self._end("finish", ended)

    def rollback(self, done: Done) -> None:
        """Note it."""
        self.rolled_back = True
        self._end("rollback", done)

    def abort(self, reason: LibxlsrError) -> None:
        """End the call that is held."""
        self.calls.append("abort")
        stop, self._stop = self._stop, None
        if stop is not None:
            self._ctx.call_soon(stop, reason)

    def _end(self, name: str, done: Done) -> None:
        """End the call ``name`` from the event loop, as was asked for."""
        self.calls.append(name)
        if self.on_call is not None:
            self.on_call(name)
        if name in self._held:
            self._stop = done
        else:
            self._ctx.call_soon(done, self._errors.get(name))


class _LibxcPart(Visitor):
    """Reads over one libxc stream, from checkpoint to checkpoint to END."""

    def __init__(self, target: FakeTarget, stream: LibxcStream, done: LibxcDone) -> None:
        self._target = target
        self._done = done
        self._reader = ExactReader(stream.fd, stream.offset, stream.prefix)
        self._walker = Walker(self._reader, self)
        self._lent_at = stream.offset
        self._guest_kind: str | None = None
        self._checkpoints = 0

    def domain_header(self, guest: Guest) -> None:
        self._guest_kind = "pv" if guest.is_pv else "hvm"

    def record(self, record: Record) -> None:
        self._target.libxc_records.append(record.type)

    def checkpoint(self, number: int) -> None:
        self._checkpoints = number

    def problem(self, problem: Problem) -> None:
        raise problem.error

    def start(self) -> None:
        try:
            self._walker.headers()
        except LibxlsrError as error:
            self._done(None, error)
            return
        self._read_on()

    def _read_on(self) -> None:
        failover = None
        try:
            if self._walker.section() == libxc.RecordType.CHECKPOINT:
                consumed = self._reader.offset - self._lent_at
                self._lent_at = self._reader.offset
                assert self._target.hooks is not None
                self._target.hooks.checkpoint(consumed, self._checkpoint_done)
                return
        except LibxlsrError as error:
            if not isinstance(error, StreamError) or not self._checkpoints:
                self._done(None, error)
                return
            failover = error
        self._end(failover)

    def _checkpoint_done(self, reply: CheckpointReply, offset: int) -> None:
        if reply is CheckpointReply.SUCCESS:
            self._reader.offset = self._lent_at = offset
            self._walker.go_on()
            self._read_on()
        elif reply is CheckpointReply.FAILOVER:
            self._end(StreamError("the stream broke off inside a checkpoint", offset=None))
        else:
            self._done(None, StreamError("the checkpoint was refused", offset=None))

    def _end(self, failover: LibxlsrError | None) -> None:
        consumed = self._reader.offset - self._lent_at
        self._done(LibxcOutcome(consumed, self._guest_kind, failover), None)
