"""What a stream contains can't grow the stack or the memory of its reader."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from libxlsr.errors import LibxlsrError
from libxlsr.events import Context, CopyResult, Outcome
from libxlsr.formats import libxl
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.stream.reader import StreamReader
from libxlsr.stream.record import Record
from libxlsr.testing.clock import FakeClock
from libxlsr.testing.libxl_records import OPTIONAL, T, record, stream
from libxlsr.testing.reader_stepper import ScriptedHandler

FEW, MANY = 2_000, 20_000
FRAMES_MAX = 60
"""Frames that a read may be deep: 20 are transitions', and not even FEW records would fit."""
BLOCKS_MAX = 180
"""Objects that MANY - FEW records more may leave allocated: one for each hundredth."""


def depth() -> int:
    """How many frames are on the stack."""
    frame, count = sys._getframe(), 0
    while frame.f_back is not None:
        frame, count = frame.f_back, count + 1
    return count


@contextmanager
def little_stack() -> Iterator[None]:
    """Only FRAMES_MAX frames more."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(depth() + FRAMES_MAX)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


class RepeatingSource:
    """``head``, then ``again`` as often as is asked for. No byte of it is kept."""

    def __init__(self, ctx: Context, head: bytes, again: bytes) -> None:
        self._ctx = ctx
        self._data, self._again = head, again
        self.bytes_read = 0

    def read_exactly(
        self, nbytes: int, callback: Callable[[CopyResult], None], *, what: str
    ) -> None:
        if nbytes and not self._data:
            self._data = self._again
        data, self._data = self._data[:nbytes], self._data[nbytes:]
        self.bytes_read += nbytes
        result = CopyResult(Outcome.DONE, nbytes, bytearray(data), None, False, what)
        self._event = self._ctx.call_soon(callback, result)

    def kill(self) -> None:
        """The read in flight does not come."""
        self._event.deregister()


class ForgetfulHandler(ScriptedHandler):
    """Does not note the records, which would grow."""

    def process_record(self, record: Record, done: Callable[[LibxlsrError | None], None]) -> bool:
        self.records.clear()
        return super().process_record(record, done)


def read_many(reader: StreamReader, ctx: Context) -> None:
    """Step until MANY records were read; the stack and the memory stay as with FEW."""
    with little_stack():
        while reader.record_number < FEW:
            assert ctx.step()
        blocks = sys.getallocatedblocks()
        while reader.record_number <= MANY:
            assert ctx.step()
        assert sys.getallocatedblocks() - blocks < BLOCKS_MAX


def give_up(reader: StreamReader, ctx: Context) -> None:
    """Leave the stream, which has no end."""
    reader.abort()
    while ctx.step():
        pass


@pytest.mark.parametrize("body", [b"", b"\1"], ids=["empty", "tiny"])
def test_optional_records_without_number(body: bytes) -> None:
    ctx = Context(clock=FakeClock())
    source = RepeatingSource(ctx, stream(T.LIBXC_CONTEXT), record(OPTIONAL, body))
    outcomes: list[LibxlsrError | None] = []
    reader = StreamReader(ctx, source, ScriptedHandler(), outcomes.append)
    reader.start()
    read_many(reader, ctx)
    assert outcomes == []
    assert reader.offset == source.bytes_read - 8 == 24 + (MANY - 1) * len(record(OPTIONAL, body))
    give_up(reader, ctx)


def test_tiny_known_records_without_number() -> None:
    """Known types can't repeat but from one checkpoint to the next: two records in each here."""
    ctx = Context(clock=FakeClock())
    tiny = libxl.EmulatorContext(libxl.EMULATOR_QEMU_UPSTREAM, 0, b"").encode()
    checkpoint = record(T.EMULATOR_CONTEXT, tiny) + record(T.CHECKPOINT_END)
    source = RepeatingSource(ctx, stream(T.LIBXC_CONTEXT), checkpoint)
    handler = ForgetfulHandler(later=[T.LIBXC_CONTEXT])
    outcomes: list[LibxlsrError | None] = []
    reader = StreamReader(ctx, source, handler, outcomes.append)

    def next_checkpoint(reply: CheckpointReply) -> None:
        if reply is CheckpointReply.SUCCESS:
            reader.start_checkpoint(next_checkpoint)

    reader.start()
    while not handler.busy:
        assert ctx.step()
    next_checkpoint(CheckpointReply.SUCCESS)
    read_many(reader, ctx)
    assert outcomes == []
    assert reader.checkpoints == MANY // 2 - 1  # the last one is being read
    give_up(reader, ctx)
