"""What goes wrong in libxl's own reader, and what happens here.

The first half: defects of tools/libs/light/libxl_stream_read.c as it is in Xen 4.22. The second:
what a real ``xl restore`` (Xen 4.17) does with damaged images. Each test is named after the defect
and asserts the right behaviour.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from libxlsr.errors import StreamError, TargetError
from libxlsr.events import Context
from libxlsr.formats import libxl
from libxlsr.formats.libxc import RecordType as LibxcRecordType
from libxlsr.restoring.image import output, small_files
from libxlsr.restoring.operation import restore_ao
from libxlsr.stream.reader import Phase
from libxlsr.stream.reader_machine import State
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.fake_target import FakeTarget
from libxlsr.testing.feeding import feed
from libxlsr.testing.in_process import InProcessImageTarget
from libxlsr.testing.offline import restore_bytes
from libxlsr.testing.pages import stamped_page
from libxlsr.testing.parts import LIBXL_HEADER, Part, record_part
from libxlsr.testing.reader_stepper import ReaderStepper
from libxlsr.testing.stepping import run_until, run_until_idle

T = libxl.RecordType
GUESTS = ("pv", "pvh", "hvm")


def refused(stream: StreamBuilder | bytes, tmp_path: Path, **options: Any) -> StreamError:
    """The StreamError that comes of the stream; nothing else may, and nothing is left."""
    data = stream if isinstance(stream, bytes) else stream.build()
    options.setdefault("make", InProcessImageTarget)
    with pytest.raises(StreamError) as caught:
        restore_bytes(data, tmp_path / "guest", to_eof=True, **options)
    assert caught.value.exit_code == 1
    return caught.value


def accepted(stream: StreamBuilder, tmp_path: Path, **options: Any) -> None:
    options.setdefault("make", InProcessImageTarget)
    restore_bytes(stream.build(), tmp_path / "guest", to_eof=True, **options)


# 1. EOF or a short read is success


@pytest.mark.parametrize("guest", GUESTS)
def test_a_stream_of_a_header_only(tmp_path: Path, guest: str) -> None:
    stream = StreamBuilder(guest)
    stream.truncate_after(stream.find_header(LIBXL_HEADER))
    error = refused(stream, tmp_path)
    assert error.offset == stream.size
    assert "without an END record" in str(error)


@pytest.mark.parametrize("guest", GUESTS)
def test_a_stream_that_ends_right_behind_libxc(tmp_path: Path, guest: str) -> None:
    stream = StreamBuilder(guest)
    stream.truncate_after(stream.find(LibxcRecordType.END))
    error = refused(stream, tmp_path)
    assert error.offset == stream.size
    assert "without an END record" in str(error)


def test_twelve_bytes_of_an_emulator_context(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", emulator=bytes(4088))
    data = stream.build()
    start = stream.offset_of(stream.find(T.EMULATOR_CONTEXT)) + 8
    error = refused(data[: start + 12], tmp_path)
    assert error.offset == start + 12
    assert "12 bytes into a record body" in str(error)


def test_eof_while_buffering_is_no_end_record(tmp_path: Path) -> None:
    """libxl loops forever here, and queues one END after the other."""
    stream = StreamBuilder("hvm", checkpoints=[[1]])
    stream.truncate_after(stream.find(LibxcRecordType.CHECKPOINT))
    error = refused(stream, tmp_path, make=FakeTargetMaker())
    assert error.offset == stream.size


class FakeTargetMaker:
    """Makes a fake target where an offline one is asked for."""

    def __call__(self, ctx: Context, output: Path) -> FakeTarget:
        self.made = FakeTarget(ctx)
        return self.made


# 2. No cap on a record's length; 32-bit rounding turns 0xfffffff9 into 0


@pytest.mark.parametrize("length", [(128 << 20) + 1, 0xFFFFFFF8, 0xFFFFFFF9, 0xFFFFFFFF])
@pytest.mark.parametrize("layer", ["libxl", "libxc"])
def test_a_length_of_4_gib(tmp_path: Path, layer: str, length: int) -> None:
    stream = StreamBuilder("hvm")
    part = stream.find(T.EMULATOR_CONTEXT if layer == "libxl" else LibxcRecordType.HVM_CONTEXT)
    part.length = length
    error = refused(stream, tmp_path)
    assert error.offset == stream.offset_of(part) + 4
    assert "at most 0x8000000 (128 MiB)" in str(error)


# 3. END inside a checkpoint aborts the process


def test_end_inside_a_checkpoint(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", checkpoints=[[1]])
    place = stream.find(T.CHECKPOINT_END)
    end = stream.insert_before(place, record_part(T.END))
    error = refused(stream, tmp_path, make=FakeTargetMaker())
    assert error.offset == stream.offset_of(end)
    assert "END inside a checkpoint" in str(error)


# 4. A failover with a record in the queue aborts the process


def test_failover_with_a_queued_record(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", checkpoints=[[1], [2]])
    stream.truncate_after(stream.find(T.EMULATOR_CONTEXT, 1))
    result = restore_bytes(stream.build(), tmp_path / "guest")
    assert result.checkpoints == 1
    assert isinstance(result.failover, StreamError)
    assert result.failover.offset == stream.size
    memory = (tmp_path / "guest" / "memory").read_bytes()
    assert memory[4096:8192] == stamped_page(1, 1)
    assert memory[8192:12288] == stamped_page(2, 0)  # the broken checkpoint has left nothing


# 5. CHECKPOINT_STATE of length 0 is a NULL pointer


@pytest.mark.parametrize("body", [b"", bytes(4), bytes(8)])
def test_checkpoint_state(tmp_path: Path, body: bytes) -> None:
    stream = StreamBuilder("hvm")
    state = record_part(T.CHECKPOINT_STATE, body)
    stream.insert_before(stream.find(T.EMULATOR_CONTEXT), state)
    assert refused(stream, tmp_path).offset == stream.offset_of(state)


# 6. Unknown optional records are refused


@pytest.mark.parametrize("body", [b"", b"abc", bytes(100_000)])
@pytest.mark.parametrize("layer", ["libxl", "libxc"])
def test_optional_records_are_skipped(tmp_path: Path, layer: str, body: bytes) -> None:
    stream = StreamBuilder("hvm")
    for place in [part for part in stream.parts if part.layer == layer and part.type is not None]:
        stream.insert_before(place, record_part(0x80000001, body, layer=layer))
    accepted(stream, tmp_path)


@pytest.mark.parametrize("before", [T.LIBXC_CONTEXT, T.END, LibxcRecordType.HVM_CONTEXT])
def test_unknown_mandatory_records_are_refused(tmp_path: Path, before: int) -> None:
    stream = StreamBuilder("hvm")
    place = stream.find(before)
    unknown = stream.insert_before(place, record_part(0x1234, layer=place.layer))
    error = refused(stream, tmp_path)
    assert error.offset == stream.offset_of(unknown)
    assert "unknown mandatory record" in str(error)


# 7. An abort with a read in flight leaves it registered: a use after free


@pytest.mark.parametrize("kept", [0, 4, 20, 60, -3])
def test_an_abort_with_a_read_in_flight(ctx: Context, kept: int) -> None:
    data = StreamBuilder("hvm", pages=4).build()
    target = FakeTarget(ctx)
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, data[:kept])
        ao = restore_ao(ctx, read_end, target=target)
        run_until_idle(ctx)
        assert ctx.registered() != []
        ao.abort()
        run_until_idle(ctx)
        assert ao.done
        assert ctx.registered() == []
        assert target.rolled_back
    finally:
        os.close(read_end)
        os.close(write_end)


# 8. Order, duplicates, ids, bodies, padding and reserved bits are unchecked


def changed(stream: StreamBuilder, part: Part, **fields: Any) -> StreamBuilder:
    for name, value in fields.items():
        setattr(part, name, value)
    return stream


def test_no_libxc_context(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm")
    stream.parts = [part for part in stream.parts if part.layer != "libxc"]
    stream.drop(T.LIBXC_CONTEXT)
    assert "before LIBXC_CONTEXT" in str(refused(stream, tmp_path))


def test_two_libxc_contexts(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm")
    second = stream.insert_after(stream.find(LibxcRecordType.END), record_part(T.LIBXC_CONTEXT))
    error = refused(stream, tmp_path)
    assert error.offset == stream.offset_of(second)
    assert "a second LIBXC_CONTEXT" in str(error)


def test_emulator_records_before_libxc(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm")
    emulator = stream.find(T.EMULATOR_CONTEXT)
    stream.parts.remove(emulator)
    stream.insert_before(stream.find(T.LIBXC_CONTEXT), emulator)
    assert refused(stream, tmp_path).offset == stream.offset_of(emulator)


def test_a_repeated_emulator_context(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm")
    emulator = stream.find(T.EMULATOR_CONTEXT)
    second = stream.insert_after(emulator, record_part(T.EMULATOR_CONTEXT, emulator.body))
    assert refused(stream, tmp_path).offset == stream.offset_of(second)


def test_an_unknown_emulator(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm")
    emulator = stream.find(T.EMULATOR_CONTEXT)
    emulator.body = b"\x09\0\0\0" + emulator.body_bytes()[4:]
    error = refused(stream, tmp_path)
    assert error.offset == stream.offset_of(emulator) + 8
    assert "emulator id is 0x9" in str(error)


@pytest.mark.parametrize("record_type", [T.LIBXC_CONTEXT, T.END])
def test_a_body_where_there_is_none(tmp_path: Path, record_type: libxl.RecordType) -> None:
    stream = StreamBuilder("hvm")
    part = stream.find(record_type)
    part.body = bytes(8)
    assert refused(stream, tmp_path).offset == stream.offset_of(part) + 4


def test_padding_that_is_not_zero(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", emulator=b"QEVM!")
    part = stream.find(T.EMULATOR_CONTEXT)
    part.padding = b"\0\0\1"
    assert refused(stream, tmp_path).offset == stream.offset_of(part) + 8 + 8 + 5 + 2


# 9. The checkpoint's state is not reset at the start of a reader


def test_a_reader_starts_outside_of_any_checkpoint() -> None:
    reader = ReaderStepper(b"").reader
    assert reader.phase is Phase.NORMAL
    assert reader.state is State.HEADER
    assert reader.checkpoints == 0


# 10. The callback of a checkpoint runs before the checkpoint is over


def test_a_checkpoint_is_over_when_libxc_hears_of_it(tmp_path: Path) -> None:
    """A libxc that asks for the next checkpoint at once finds the reader ready for it."""
    stream = StreamBuilder("hvm", checkpoints=[[]] * 50, pages=4)
    maker = FakeTargetMaker()
    result = restore_bytes(stream.build(), tmp_path / "guest", make=maker, to_eof=True)
    assert result.checkpoints == 50
    assert len(maker.made.emulator) == 51


# 11. A slow sender blocks the whole loop


def test_a_slow_sender_does_not_block_the_loop(ctx: Context) -> None:
    read_end, write_end = os.pipe()  # a blocking one, as xl hands over
    try:
        ao = restore_ao(ctx, read_end, target=FakeTarget(ctx))
        ticks: list[int] = []
        for piece in (b"Xe", b"n sa", b"ve"):
            os.write(write_end, piece)
            run_until_idle(ctx)  # would hang in read() if it read once too often
            ctx.call_soon(ticks.append, len(ticks))
            run_until_idle(ctx)
        assert ticks == [0, 1, 2]
        assert not ao.done
        ao.abort()
        run_until(ctx, lambda: ao.done)
    finally:
        os.close(read_end)
        os.close(write_end)


# 12. Failed writes of the device model's state go unnoticed


@pytest.mark.parametrize("name", ["emulator/xenstore.json", "emulator/context", "image.json"])
def test_a_write_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_file = small_files.write_file

    def failing(path: Path, data: bytes) -> None:
        if str(path).endswith(name):
            raise OSError(28, "No space left on device")
        write_file(path, data)

    monkeypatch.setattr(output, "write_file", failing)
    stream = StreamBuilder("hvm", xenstore=[("physmap/a0000/size", "1")])
    with pytest.raises(TargetError) as caught:
        restore_bytes(stream.build(), tmp_path / "guest", make=InProcessImageTarget)
    assert caught.value.errno == 28
    assert name in str(caught.value)
    assert caught.value.exit_code == 3


# 13. Nothing is read ahead (also test_feeding.py, for each kind of fd)


def test_what_follows_end_is_left_where_it_is(tmp_path: Path) -> None:
    data = StreamBuilder("hvm").build()
    with feed("file", data + b"GO") as fd:
        ctx = Context()
        ao = restore_ao(ctx, fd, target=InProcessImageTarget(ctx, tmp_path / "guest"))
        run_until(ctx, lambda: ao.done)
        ao.result()
        assert os.lseek(fd, 0, os.SEEK_CUR) == len(data)


# 14. Assertions end the calling process: tests/restoring/test_faults.py, test_a_helper_that_dies


# What a real `xl restore` does with damaged images


@pytest.mark.parametrize("guest", GUESTS)
@pytest.mark.parametrize("kept", [0, 4])
def test_end_cut_off(tmp_path: Path, guest: str, kept: int) -> None:
    data = StreamBuilder(guest).build()
    assert refused(data[: len(data) - 8 + kept], tmp_path).offset == len(data) - 8 + kept


def test_emulator_context_cut_at_2000_of_6141_bytes(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", emulator=bytes(6141 - 8))
    start = stream.offset_of(stream.find(T.EMULATOR_CONTEXT)) + 8
    assert refused(stream.build()[: start + 2000], tmp_path).offset == start + 2000


def test_no_emulator_context_at_all(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm")
    stream.drop(T.EMULATOR_CONTEXT)
    error = refused(stream, tmp_path)
    assert error.offset == stream.offset_of(stream.find(T.END))
    assert "without an EMULATOR_CONTEXT" in str(error)


@pytest.mark.parametrize("guest", ["pv", "pvh"])
def test_emulator_records_of_a_guest_without_a_device_model(tmp_path: Path, guest: str) -> None:
    stream = StreamBuilder(guest, emulator=b"QEVM")
    part = stream.find(T.EMULATOR_CONTEXT)
    error = refused(stream, tmp_path)
    assert error.offset == stream.offset_of(part)
    assert f"a {guest} guest has no EMULATOR_" in str(error)


def test_rubbish_after_end_of_a_file(tmp_path: Path) -> None:
    data = StreamBuilder("hvm").build()
    error = refused(data + bytes(32), tmp_path)
    assert error.offset == len(data)
    assert "something follows the end" in str(error)


@pytest.mark.parametrize(
    ("at", "header"),
    [
        (0, b"LibxlFmT\0\0\0\2\0\0\0\0"),
        (8, b"LibxlFmt\0\0\0\3\0\0\0\0"),
        (12, b"LibxlFmt\0\0\0\2\0\0\0\1"),
        (12, b"LibxlFmt\0\0\0\2\0\x10\0\0"),
    ],
    ids=["ident", "version 3", "big-endian", "reserved option bit 20"],
)
def test_a_wrong_libxl_header(tmp_path: Path, at: int, header: bytes) -> None:
    stream = StreamBuilder("hvm")
    part = stream.find_header(LIBXL_HEADER)
    part.body = header
    assert refused(stream, tmp_path).offset == stream.offset_of(part) + at


def test_nothing_after_the_xl_header(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm")
    size = stream.offset_of(stream.find_header(LIBXL_HEADER))
    assert refused(stream.build()[:size], tmp_path).offset == size


def test_remus_eof_right_behind_checkpoint_end(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", checkpoints=[[1], [2]])
    stream.truncate_after(stream.find(T.CHECKPOINT_END, 1))
    result = restore_bytes(stream.build(), tmp_path / "guest", to_eof=True)
    assert result.checkpoints == 2
    assert result.failover is not None
    assert result.stream_bytes == stream.size
    memory = (tmp_path / "guest" / "memory").read_bytes()
    assert memory[8192:12288] == stamped_page(2, 2)


def test_remus_eof_behind_a_checkpoint_of_libxc(tmp_path: Path) -> None:
    """libxl spins here and never fails over."""
    stream = StreamBuilder("hvm", checkpoints=[[1], [2]])
    stream.truncate_after(stream.find(LibxcRecordType.CHECKPOINT, 1))
    result = restore_bytes(stream.build(), tmp_path / "guest")
    assert result.checkpoints == 1
    assert isinstance(result.failover, StreamError)
    assert result.failover.offset == stream.size
    assert result.stream_bytes == stream.size
    memory = (tmp_path / "guest" / "memory").read_bytes()
    assert memory[8192:12288] == stamped_page(2, 0)


def test_remus_failover_of_a_guest_without_its_device_model(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", checkpoints=[[1], [2]])
    stream.truncate_after(stream.find(T.CHECKPOINT_END, 0))
    stream.drop(T.EMULATOR_CONTEXT)
    error = refused(stream, tmp_path, make=FakeTargetMaker())
    assert "without an EMULATOR_CONTEXT" in str(error)


@pytest.mark.parametrize("context_first", [True, False])
def test_hvm_params_and_context_in_either_order(tmp_path: Path, context_first: bool) -> None:
    """The spec wants the one order, every Xen writes the other."""
    stream = StreamBuilder("hvm")
    context = stream.find(LibxcRecordType.HVM_CONTEXT)
    params = stream.find(LibxcRecordType.HVM_PARAMS)
    assert stream.offset_of(context) < stream.offset_of(params)
    if not context_first:
        stream.swap(context, params)
    accepted(stream, tmp_path)
