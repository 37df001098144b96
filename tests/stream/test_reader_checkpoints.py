"""Checkpoints, stepped by hand: buffering, unbuffering, failover, and aborts in all of them."""

from __future__ import annotations

import errno

import pytest

from libxlsr.errors import Aborted, LibxlsrError, StreamError, TargetError
from libxlsr.formats import libxl
from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.formats.framing import RECORD_HEADER
from libxlsr.stream.reader import Phase
from libxlsr.stream.reader_machine import State
from libxlsr.testing.libxl_records import OPTIONAL, T, record, stream
from libxlsr.testing.reader_stepper import ReaderStepper

RECORDS = (T.EMULATOR_XENSTORE_DATA, T.EMULATOR_CONTEXT, T.CHECKPOINT_END)
ONE = b"".join(record(record_type) for record_type in RECORDS)


def lent(*rest: int | bytes, **options: object) -> ReaderStepper:
    """A reader whose libxc has just met a CHECKPOINT and lent the stream out."""
    stepper = ReaderStepper(
        stream(T.LIBXC_CONTEXT, *rest),
        later=[T.LIBXC_CONTEXT],
        **options,  # type: ignore[arg-type]
    )
    stepper.start()
    stepper.run()
    assert stepper.handler.busy
    stepper.checkpoint()
    return stepper


def whole_checkpoint(stepper: ReaderStepper) -> None:
    stepper.run()
    assert stepper.replies[-1] is CheckpointReply.SUCCESS
    assert stepper.reader.state is State.PROCESS


def phase(stepper: ReaderStepper) -> Phase:
    return stepper.reader.phase


def failed(stepper: ReaderStepper) -> LibxlsrError:
    stepper.run()
    assert stepper.reader.state is State.FAILED
    assert stepper.ctx.registered() == []
    assert not stepper.source.in_flight
    assert stepper.error is not None
    return stepper.error


def test_records_are_buffered_until_the_checkpoint_is_whole() -> None:
    stepper = lent(ONE)
    reader = stepper.reader
    assert phase(stepper) is Phase.BUFFERING
    while phase(stepper) is Phase.BUFFERING:
        assert [r.type for r in stepper.handler.records] == [T.LIBXC_CONTEXT]
        assert stepper.replies == []
        if reader.state is State.RECORD_HDR and reader.record_number == 4:
            assert [r.type for r in reader.buffered] == list(RECORDS[:2])
        assert stepper.step()
    stepper.run()
    assert [r.type for r in stepper.handler.records][1:] == list(RECORDS[:2])
    assert stepper.replies == [CheckpointReply.SUCCESS]
    assert phase(stepper) is Phase.NORMAL
    assert reader.state is State.PROCESS  # libxc has the stream again
    assert reader.checkpoints == 1
    assert reader.buffered == ()


def test_unbuffering_waits_for_each_record() -> None:
    stepper = ReaderStepper(
        stream(T.LIBXC_CONTEXT, ONE), later=[T.LIBXC_CONTEXT, T.EMULATOR_XENSTORE_DATA]
    )
    stepper.start()
    stepper.run()
    libxc_done, stepper.handler._done = stepper.handler._done, None
    stepper.checkpoint()
    stepper.run()
    assert stepper.reader.phase is Phase.UNBUFFERING
    assert stepper.reader.state is State.PROCESS
    assert [r.type for r in stepper.reader.buffered] == [T.EMULATOR_CONTEXT, T.CHECKPOINT_END]
    stepper.handler.finish()
    stepper.run()
    assert stepper.replies == [CheckpointReply.SUCCESS]
    assert libxc_done is not None


def test_checkpoints_and_then_a_good_end() -> None:
    stepper = lent(ONE, ONE, T.EMULATOR_CONTEXT, T.END)
    whole_checkpoint(stepper)
    stepper.checkpoint()
    whole_checkpoint(stepper)
    stepper.handler.finish()
    stepper.run()
    assert stepper.error is None
    assert stepper.reader.checkpoints == 2
    assert stepper.reader.failover is None
    assert stepper.reader.record_number == 9


def test_an_empty_checkpoint() -> None:
    stepper = lent(T.CHECKPOINT_END, T.END)
    whole_checkpoint(stepper)
    stepper.handler.finish()
    stepper.run()
    assert stepper.error is None


def test_optional_records_inside_a_checkpoint_are_not_buffered() -> None:
    stepper = lent(record(OPTIONAL, bytes(100)), ONE)
    stepper.run_to(State.RECORD_BODY)
    stepper.step()
    assert stepper.reader.buffered == ()
    whole_checkpoint(stepper)


@pytest.mark.parametrize("kept", range(len(ONE)))
def test_the_second_checkpoint_breaks_off_anywhere(kept: int) -> None:
    stepper = lent(ONE, ONE[:kept])
    whole_checkpoint(stepper)
    stepper.checkpoint()
    stepper.run()
    assert stepper.replies[1:] == [CheckpointReply.FAILOVER]
    reader = stepper.reader
    assert stepper.transitions[-1][2] is State.PROCESS
    assert reader.buffered == ()
    assert phase(stepper) is Phase.NORMAL
    assert not stepper.source.in_flight
    cause = reader.failover
    assert isinstance(cause, StreamError)
    assert cause.offset == 24 + len(ONE) + kept
    # What libxc says of it then does not hide the cause.
    reader.libxc_failed_over(StreamError("it was told so", offset=None))
    stepper.handler.finish()
    stepper.run()
    assert stepper.error is None
    assert reader.failover is cause
    assert reader.state is State.DONE
    assert reader.checkpoints == 1


@pytest.mark.parametrize("kept", range(len(ONE)))
def test_the_first_checkpoint_breaks_off_anywhere(kept: int) -> None:
    stepper = lent(ONE[:kept])
    error = failed(stepper)
    assert isinstance(error, StreamError)
    assert error.offset == 24 + kept
    assert stepper.replies == [CheckpointReply.ERROR]
    assert stepper.reader.failover is None


def test_a_read_error_inside_a_later_checkpoint_fails_over_too() -> None:
    stepper = lent(ONE, read_error=OSError(errno.ECONNRESET, "reset"))
    whole_checkpoint(stepper)
    stepper.checkpoint()
    stepper.run()
    assert stepper.replies[1:] == [CheckpointReply.FAILOVER]
    assert isinstance(stepper.reader.failover, TargetError)


def test_a_wrong_record_inside_a_later_checkpoint_fails_over_too() -> None:
    stepper = lent(ONE, T.EMULATOR_CONTEXT, T.END)
    whole_checkpoint(stepper)
    stepper.checkpoint()
    stepper.run()
    assert stepper.replies[1:] == [CheckpointReply.FAILOVER]
    assert "END inside a checkpoint" in str(stepper.reader.failover)


def test_a_wrong_body_inside_a_later_checkpoint_fails_over_too() -> None:
    stepper = lent(ONE, record(T.EMULATOR_CONTEXT, bytes(7)))
    whole_checkpoint(stepper)
    stepper.checkpoint()
    stepper.run()
    assert stepper.replies[1:] == [CheckpointReply.FAILOVER]
    assert stepper.transitions[-1] == ("checkpoint_failover", State.RECORD_BODY, State.PROCESS)
    assert "at least 8 bytes" in str(stepper.reader.failover)


def test_a_record_that_can_not_be_acted_on_is_no_failover() -> None:
    cause = TargetError("no space")
    stepper = lent(ONE, ONE)
    whole_checkpoint(stepper)
    stepper.handler._errors[T.EMULATOR_CONTEXT] = cause
    stepper.checkpoint()
    assert failed(stepper) is cause
    assert stepper.replies[1:] == [CheckpointReply.ERROR]


def test_libxc_fails_over_by_itself() -> None:
    stepper = lent(ONE)
    whole_checkpoint(stepper)
    cause = StreamError("the stream ends in PAGE_DATA", offset=99)
    stepper.reader.libxc_failed_over(cause)
    stepper.handler.finish()
    stepper.run()
    assert stepper.error is None
    assert stepper.reader.failover is cause


@pytest.mark.parametrize("whole_before", [False, True])
@pytest.mark.parametrize("steps", range(6))
def test_libxc_dies_while_the_stream_is_lent_out(whole_before: bool, steps: int) -> None:
    stepper = lent(ONE, ONE)
    if whole_before:
        whole_checkpoint(stepper)
        stepper.checkpoint()
    for _ in range(steps):
        stepper.step()
    cause = TargetError("the helper was killed by SIGKILL")
    stepper.handler.finish(cause)
    assert failed(stepper) is cause
    assert stepper.reader.failover is None


@pytest.mark.parametrize("steps", range(6))
def test_abort_at_every_step_of_a_checkpoint(steps: int) -> None:
    stepper = lent(ONE, ONE)
    whole_checkpoint(stepper)
    stepper.checkpoint()
    for _ in range(steps):
        assert stepper.step()
    reason = Aborted()
    stepper.reader.abort(reason)
    assert failed(stepper) is reason
    assert stepper.replies[1:] == [CheckpointReply.ERROR]
    stepper.handler.finish()  # libxc ends some time later
    stepper.run()
    assert stepper.error is reason


def test_a_checkpoint_that_was_asked_for_before_an_abort_is_refused() -> None:
    stepper = ReaderStepper(stream(T.LIBXC_CONTEXT, ONE), later=[T.LIBXC_CONTEXT])
    stepper.start()
    stepper.run()
    stepper.reader.abort()
    stepper.checkpoint()
    failed(stepper)
    assert stepper.replies == [CheckpointReply.ERROR]


def test_a_checkpoint_may_take_no_more_memory_than_a_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emulator = record(T.EMULATOR_CONTEXT)
    (_, length) = RECORD_HEADER.unpack(emulator[:8])
    monkeypatch.setattr(libxl, "RECORD_LENGTH_MAX", length)
    stepper = lent(record(T.EMULATOR_CONTEXT), T.CHECKPOINT_END, ONE)
    whole_checkpoint(stepper)  # alone it may
    stepper.checkpoint()
    stepper.run()
    cause = stepper.reader.failover
    assert isinstance(cause, StreamError)
    assert "more memory than a record may" in str(cause)
    assert cause.offset == 24 + len(emulator) + 8
