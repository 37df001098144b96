"""The stream reader, stepped by hand: one call, one step, then a look at it. No fd anywhere."""

from __future__ import annotations

import errno

import pytest
from transitions import MachineError

from libxlsr.errors import Aborted, LibxlsrError, StreamError, TargetError
from libxlsr.formats import libxl
from libxlsr.formats.framing import RECORD_HEADER
from libxlsr.stream.reader import SKIP_CHUNK, Phase
from libxlsr.stream.reader_machine import State
from libxlsr.testing.libxl_records import EMULATOR, HEADER, OPTIONAL, WHOLE, T, record, stream
from libxlsr.testing.reader_stepper import ReaderStepper


def failed(stepper: ReaderStepper) -> LibxlsrError:
    """The error of a stream that failed, after a look at what a failure leaves."""
    assert stepper.reader.state is State.FAILED
    assert stepper.reader.buffered == ()
    assert not stepper.source.in_flight
    assert not stepper.step()
    assert stepper.ctx.registered() == []
    assert stepper.error is not None
    return stepper.error


def stream_error(data: bytes, *, offset: int = 0) -> StreamError:
    """The StreamError in which reading ``data`` ends."""
    stepper = ReaderStepper(data, offset=offset)
    stepper.start()
    stepper.run()
    error = failed(stepper)
    assert isinstance(error, StreamError)
    return error


def test_one_step_at_a_time() -> None:
    stepper = ReaderStepper(
        stream(T.LIBXC_CONTEXT, T.EMULATOR_CONTEXT, T.END), later=[T.EMULATOR_CONTEXT]
    )
    reader = stepper.reader
    seen: list[tuple[State, int | None, int]] = []
    stepper.start()
    assert stepper.source.in_flight
    assert seen == []  # nothing is called from inside start()
    while stepper.step():
        seen.append((reader.state, reader.offset, reader.record_number))
        assert reader.buffered == ()
        assert reader.phase is Phase.NORMAL
    body = len(record(T.EMULATOR_CONTEXT))
    assert seen == [
        (State.RECORD_HDR, 16, 1),
        (State.RECORD_BODY, 24, 1),
        (State.RECORD_HDR, 24, 2),
        (State.RECORD_BODY, 32, 2),
        (State.PROCESS, 24 + body, 2),
    ]
    assert stepper.handler.busy
    stepper.handler.finish()
    assert stepper.transitions[-1] == ("record_processed", State.PROCESS, State.RECORD_HDR)
    stepper.run()
    assert stepper.error is None
    assert reader.state is State.DONE
    assert reader.offset == 32 + body
    assert [(r.type, r.number, r.offset) for r in stepper.handler.records] == [
        (T.LIBXC_CONTEXT, 1, 16),
        (T.EMULATOR_CONTEXT, 2, 24),
        (T.END, 3, 24 + body),
    ]
    assert stepper.handler.header == libxl.Header()


def test_it_asks_for_exactly_what_is_due() -> None:
    stepper = ReaderStepper(WHOLE + b"whose is this?")
    stepper.start()
    stepper.run()
    assert stepper.error is None
    assert stepper.source.position == len(WHOLE)
    assert sum(nbytes for nbytes, _ in stepper.source.requests) == len(WHOLE)


def test_the_transitions_of_a_plain_stream() -> None:
    stepper = ReaderStepper(stream(T.LIBXC_CONTEXT, T.END))
    stepper.start()
    stepper.run()
    assert [trigger for trigger, _, _ in stepper.transitions] == [
        "header_done",
        "record_header_done",
        "record_body_done",
        "record_processed",
        "record_header_done",
        "record_body_done",
        "complete",
    ]


def test_offsets_count_from_where_the_stream_began() -> None:
    stepper = ReaderStepper(WHOLE, offset=1000)
    stepper.start()
    stepper.run()
    assert stepper.reader.offset == 1000 + len(WHOLE)
    assert stream_error(WHOLE[:-3], offset=1000).offset == 1000 + len(WHOLE) - 3


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_cut_anywhere(length: int) -> None:
    error = stream_error(WHOLE[:length])
    assert error.offset == length
    assert "the stream ends" in str(error)
    assert "truncated" in str(error)


def test_a_read_that_fails() -> None:
    stepper = ReaderStepper(WHOLE[:20], read_error=OSError(errno.EIO, "I/O error"))
    stepper.start()
    stepper.run()
    error = failed(stepper)
    assert isinstance(error, TargetError)
    assert error.errno == errno.EIO
    assert error.call == "read"


@pytest.mark.parametrize(
    ("records", "offset", "problem"),
    [
        ((T.END,), 16, "END before LIBXC_CONTEXT"),
        ((T.EMULATOR_CONTEXT,), 16, "EMULATOR_CONTEXT before LIBXC_CONTEXT"),
        ((T.CHECKPOINT_END,), 16, "CHECKPOINT_END before LIBXC_CONTEXT"),
        ((T.LIBXC_CONTEXT, T.LIBXC_CONTEXT), 24, "a second LIBXC_CONTEXT"),
        ((T.LIBXC_CONTEXT, T.CHECKPOINT_END), 24, "CHECKPOINT_END outside a checkpoint"),
        ((T.LIBXC_CONTEXT, record(T.CHECKPOINT_STATE, bytes(4))), 24, "COLO's back channel"),
        (
            (T.LIBXC_CONTEXT, T.EMULATOR_CONTEXT, T.EMULATOR_CONTEXT),
            24 + len(record(T.EMULATOR_CONTEXT)),
            "a second EMULATOR_CONTEXT",
        ),
        (
            (T.LIBXC_CONTEXT, T.EMULATOR_CONTEXT, T.EMULATOR_XENSTORE_DATA),
            24 + len(record(T.EMULATOR_CONTEXT)),
            "EMULATOR_XENSTORE_DATA after EMULATOR_CONTEXT",
        ),
    ],
)
def test_order(records: tuple[int | bytes, ...], offset: int, problem: str) -> None:
    error = stream_error(stream(*records, T.END))
    assert error.offset == offset
    assert problem in str(error)


def test_optional_records_may_stand_anywhere() -> None:
    odd = record(OPTIONAL, b"abc")
    stepper = ReaderStepper(stream(odd, T.LIBXC_CONTEXT, odd, T.EMULATOR_CONTEXT, odd, T.END))
    stepper.start()
    stepper.run()
    assert stepper.error is None
    assert [r.number for r in stepper.handler.records] == [2, 4, 6]


def test_a_large_optional_record_is_skipped_in_chunks() -> None:
    body = bytes(2 * SKIP_CHUNK + 100)
    stepper = ReaderStepper(stream(record(OPTIONAL, body), T.LIBXC_CONTEXT, T.END))
    stepper.start()
    stepper.run()
    assert stepper.error is None
    reads = [nbytes for nbytes, what in stepper.source.requests if what == "record body"]
    assert reads[:3] == [SKIP_CHUNK, SKIP_CHUNK, 104]


@pytest.mark.parametrize("kept", [1, SKIP_CHUNK, SKIP_CHUNK + 7])
def test_a_skipped_record_is_cut(kept: int) -> None:
    data = stream(record(OPTIONAL, bytes(2 * SKIP_CHUNK)))[: 24 + kept]
    error = stream_error(data)
    assert error.offset == 24 + kept
    assert error.record == f"record 1 ({libxl.record_name(OPTIONAL)})"


@pytest.mark.parametrize("length", [(128 << 20) + 1, 0xFFFFFFF8, 0xFFFFFFF9, 0xFFFFFFFF])
@pytest.mark.parametrize("record_type", [T.EMULATOR_CONTEXT, OPTIONAL])
def test_an_absurd_length_is_refused_before_a_byte_of_it_is_read(
    record_type: int, length: int
) -> None:
    stepper = ReaderStepper(stream(T.LIBXC_CONTEXT, RECORD_HEADER.pack(record_type, length)))
    stepper.start()
    stepper.run()
    error = failed(stepper)
    assert isinstance(error, StreamError)
    assert error.offset == 28
    assert "at most" in str(error)
    assert stepper.source.requests[-1] == (8, "record header")


def test_wrong_padding_names_the_byte() -> None:
    good = record(T.EMULATOR_CONTEXT)
    assert len(EMULATOR) % 8
    error = stream_error(stream(T.LIBXC_CONTEXT, good[:-1] + b"\1", T.END))
    assert error.offset == 24 + len(good) - 1
    assert error.record == "record 2 (EMULATOR_CONTEXT)"


def test_a_body_that_does_not_decode_never_becomes_a_record() -> None:
    stepper = ReaderStepper(stream(T.LIBXC_CONTEXT, record(T.EMULATOR_CONTEXT, bytes(7)), T.END))
    stepper.start()
    stepper.run()
    assert isinstance(failed(stepper), StreamError)
    assert stepper.transitions[-1] == ("fail", State.RECORD_BODY, State.FAILED)
    assert [r.type for r in stepper.handler.records] == [T.LIBXC_CONTEXT]


@pytest.mark.parametrize(
    ("header", "offset"),
    [
        (b"LibxlFmT" + HEADER[8:], 0),
        (HEADER[:8] + b"\0\0\0\3" + HEADER[12:], 8),
        (HEADER[:12] + b"\0\0\0\1", 12),
        (HEADER[:12] + b"\0\x10\0\0", 12),
    ],
)
def test_a_wrong_header(header: bytes, offset: int) -> None:
    error = stream_error(header + WHOLE[16:])
    assert error.offset == offset
    assert error.record == "libxl header"


def test_an_error_of_the_handler_at_once() -> None:
    cause = StreamError("not for this guest", offset=24)
    stepper = ReaderStepper(
        stream(T.LIBXC_CONTEXT, T.EMULATOR_CONTEXT, T.END), errors={T.EMULATOR_CONTEXT: cause}
    )
    stepper.start()
    stepper.run()
    assert failed(stepper) is cause
    assert cause.record == "record 2 (EMULATOR_CONTEXT)"


@pytest.mark.parametrize("record_type", [T.LIBXC_CONTEXT, T.EMULATOR_CONTEXT])
def test_an_error_of_the_handler_later(record_type: libxl.RecordType) -> None:
    stepper = ReaderStepper(stream(T.LIBXC_CONTEXT, T.EMULATOR_CONTEXT, T.END), later=[record_type])
    stepper.start()
    stepper.run()
    cause = TargetError("no space")
    stepper.handler.finish(cause)
    stepper.run()
    assert failed(stepper) is cause


def test_an_error_at_the_end_record() -> None:
    cause = StreamError("something is missing", offset=24)
    stepper = ReaderStepper(stream(T.LIBXC_CONTEXT, T.END), errors={T.END: cause})
    stepper.start()
    stepper.run()
    assert failed(stepper) is cause


def _callbacks(data: bytes) -> int:
    stepper = ReaderStepper(data)
    stepper.start()
    steps = 0
    while stepper.step():
        steps += 1
    return steps


@pytest.mark.parametrize("steps", range(_callbacks(WHOLE)))
def test_abort_at_every_step(steps: int) -> None:
    stepper = ReaderStepper(WHOLE)
    stepper.start()
    for _ in range(steps):
        assert stepper.step()
    was_live = stepper.reader.state is not State.DONE
    reason = Aborted("enough")
    stepper.reader.abort(reason)
    stepper.reader.abort(Aborted("once more"))
    stepper.run()
    if was_live:
        assert failed(stepper) is reason
    else:
        assert stepper.error is None
    stepper.reader.abort()
    assert not stepper.step()


def test_abort_without_a_reason() -> None:
    stepper = ReaderStepper(WHOLE)
    stepper.start()
    stepper.reader.abort()
    stepper.run()
    assert isinstance(failed(stepper), Aborted)


@pytest.mark.parametrize("record_type", [T.LIBXC_CONTEXT, T.EMULATOR_CONTEXT, T.END])
def test_abort_from_inside_the_handler(record_type: libxl.RecordType) -> None:
    stepper = ReaderStepper(stream(T.LIBXC_CONTEXT, T.EMULATOR_CONTEXT, T.END))
    reason = Aborted("in the middle")

    def on_record(record: object) -> None:
        if stepper.handler.records[-1].type is record_type:
            stepper.reader.abort(reason)

    stepper.handler.on_record = on_record
    stepper.start()
    stepper.run()
    assert failed(stepper) is reason


def test_a_record_that_is_done_after_an_abort_changes_nothing() -> None:
    stepper = ReaderStepper(stream(T.LIBXC_CONTEXT, T.END), later=[T.LIBXC_CONTEXT])
    stepper.start()
    stepper.run()
    reason = Aborted()
    stepper.reader.abort(reason)
    stepper.handler.finish()
    stepper.run()
    assert failed(stepper) is reason


def test_a_record_is_done_only_once() -> None:
    stepper = ReaderStepper(
        stream(T.LIBXC_CONTEXT, T.EMULATOR_CONTEXT, T.END), later=[T.LIBXC_CONTEXT]
    )
    stepper.start()
    stepper.run()
    done = stepper.handler._done
    assert done is not None
    done(None)
    assert stepper.reader.state is State.RECORD_HDR
    requests = list(stepper.source.requests)
    with pytest.raises(MachineError):
        done(None)
    assert stepper.reader.state is State.RECORD_HDR
    assert stepper.source.requests == requests
    stepper.run()
    assert stepper.error is None


def test_libxc_can_not_lend_the_stream_before_it_has_it() -> None:
    stepper = ReaderStepper(WHOLE)
    stepper.start()
    stepper.run_to(State.RECORD_HDR)
    with pytest.raises(MachineError):
        stepper.checkpoint()
    assert stepper.reader.phase is Phase.NORMAL
    stepper.run()
    assert stepper.error is None
    assert stepper.replies == []


def test_after_libxc_read_unseen_no_offset_is_made_up() -> None:
    stepper = ReaderStepper(
        stream(T.LIBXC_CONTEXT, T.EMULATOR_CONTEXT, T.EMULATOR_CONTEXT), later=[T.LIBXC_CONTEXT]
    )
    stepper.start()
    stepper.run()
    stepper.reader.advance(None)
    stepper.handler.finish()
    stepper.run()
    error = failed(stepper)
    assert isinstance(error, StreamError)
    assert error.offset is None
    assert error.record == "record 3 (EMULATOR_CONTEXT)"
    assert stepper.handler.records[-1].offset is None
    stepper.reader.advance(8)
    assert stepper.reader.offset is None
