"""Invariant: any bytes, in whatever chunks they arrive, lead the stream reader to one end, the same
one, along its table; it reads nothing beyond, leaves nothing registered, and an error is placed
within what was read. Byte 0: how many checkpoints libxc meets, and whether records take time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from libxlsr.errors import LibxlsrError, StreamError
from libxlsr.events import READ, Context
from libxlsr.formats import libxl
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.formats.framing import encode_record
from libxlsr.formats.libxl import RecordType
from libxlsr.stream.fd_source import FdSource
from libxlsr.stream.reader import StreamReader
from libxlsr.stream.reader_machine import TABLE, State
from libxlsr.stream.record import Record
from libxlsr.testing.clock import FakeClock
from libxlsr.testing.fds import EOF, ScriptedFd, chunked

from ..invariants import check_message

SHORT = 128
"""Bytes of a stream that is also read byte by byte; a longer one takes too long for that."""

_TABLE = set(TABLE)


@dataclass
class _Run:
    """One reader over a scripted fd; this is its handler, and plays libxc."""

    control: int
    transitions: list[tuple[str, State, State]] = field(default_factory=list)
    outcomes: list[LibxlsrError | None] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ctx = Context(clock=FakeClock())
        self.checkpoints_left = self.control & 3
        self.delayed = bool(self.control & 4)

    def run(self, reads: list[bytes]) -> None:
        with ScriptedFd([*reads, EOF]) as fd:
            source = FdSource(self.ctx, fd.fileno())
            self.reader = StreamReader(
                self.ctx,
                source,
                self,
                self.outcomes.append,
                trace=lambda *transition: self.transitions.append(transition),
            )
            self.reader.start()
            while not self.outcomes:
                self.ctx.dispatch({fd.fileno(): READ})
            self.unread = fd.unread
        assert self.ctx.registered() == []
        assert len(self.outcomes) == 1
        assert _TABLE.issuperset(self.transitions)

    def stream_header(self, header: libxl.Header) -> None:
        self.heard.append(f"header {header}")

    def process_record(self, record: Record, done: Callable[[LibxlsrError | None], None]) -> bool:
        self.heard.append(f"{record} {record.offset} {record.body}")
        if record.type is RecordType.LIBXC_CONTEXT:
            self.done = done
            self.ctx.call_soon(self._libxc)
            return False
        if self.delayed and record.type is not RecordType.END:
            self.ctx.call_soon(done, None)
            return False
        return True

    def _libxc(self, reply: CheckpointReply = CheckpointReply.SUCCESS) -> None:
        self.heard.append(reply.name)
        if reply is CheckpointReply.FAILOVER:
            self.checkpoints_left = 0
        if reply is CheckpointReply.SUCCESS and self.checkpoints_left:
            self.checkpoints_left -= 1
            self.reader.start_checkpoint(self._libxc)
        else:
            self.done(None)

    def story(self) -> tuple[object, ...]:
        error = self.outcomes[0]
        return (
            str(error),
            self.heard,
            self.transitions,
            self.reader.offset,
            self.reader.record_number,
            self.reader.checkpoints,
            str(self.reader.failover),
        )


def check(data: bytes) -> None:
    if not data:
        return
    stream = data[1:]
    whole = _Run(data[0])
    whole.run([stream])
    _check_end(whole, stream)
    for size in (1, 13) if len(stream) <= SHORT else (13, 4095):
        if size < len(stream):
            parts = _Run(data[0])
            parts.run(chunked(stream, size))
            assert parts.story() == whole.story()
            assert parts.unread == whole.unread


def _check_end(run: _Run, stream: bytes) -> None:
    error, reader = run.outcomes[0], run.reader
    assert reader.buffered == ()
    assert reader.offset is not None
    assert 0 <= reader.offset == len(stream) - len(run.unread)
    if error is None:
        assert reader.state is State.DONE
        ended = stream[reader.offset - 8 : reader.offset] == bytes(8)
        assert ended or reader.failover is not None
    else:
        assert reader.state is State.FAILED
        check_message(error)
        assert isinstance(error, StreamError)
        assert error.offset is not None
        assert 0 <= error.offset <= reader.offset


def seeds() -> Mapping[str, bytes]:
    header = libxl.Header().encode() + encode_record(RecordType.LIBXC_CONTEXT)
    keys = libxl.EmulatorXenstoreData(2, 0, (("physmap/1/size", "2"),)).encode()
    context = libxl.EmulatorContext(2, 0, b"QEVM").encode()
    emulator = encode_record(RecordType.EMULATOR_XENSTORE_DATA, keys)
    emulator += encode_record(RecordType.EMULATOR_CONTEXT, context)
    end, checkpoint_end = encode_record(RecordType.END), encode_record(RecordType.CHECKPOINT_END)
    optional = encode_record(libxl.REC_TYPE_OPTIONAL | 1, b"skipped")
    return {
        "plain": b"\0" + header + emulator + end,
        "delayed": b"\4" + header + optional + emulator + end + b"more",
        "checkpoints": b"\2" + header + (emulator + checkpoint_end) * 2 + end,
        "broken-off": b"\3" + header + emulator + checkpoint_end + emulator,
    }
