"""An ao completes exactly once, the first error wins, and abort is harmless at any time."""

from __future__ import annotations

import pytest

from libxlsr.errors import Aborted, LibxlsrError, StreamError, TargetError, TimedOut
from libxlsr.events import Ao, AoStateError, Context
from libxlsr.testing.clock import FakeClock

BAD_STREAM = StreamError("bad magic", offset=0)


def test_completion_comes_on_the_egc_once_with_the_result(fake_ctx: Context) -> None:
    done: list[Ao[int]] = []
    ao: Ao[int] = Ao(fake_ctx, on_done=done.append)
    states = [ao.done]
    ao.complete(42)
    states.append(ao.done)
    assert states == [False, True]
    assert done == []
    fake_ctx.dispatch({})
    assert done == [ao]
    assert ao.result() == 42


def test_without_callbacks_it_registers_nothing(fake_ctx: Context) -> None:
    ao: Ao[None] = Ao(fake_ctx)
    ao.progress("ignored")
    ao.complete(None)
    assert fake_ctx.registered() == []
    assert ao.result() is None


def test_result_before_the_end_is_a_programming_error(fake_ctx: Context) -> None:
    ao: Ao[int] = Ao(fake_ctx)
    with pytest.raises(AoStateError, match="not done"):
        ao.result()


def test_failure_is_raised_by_result(fake_ctx: Context) -> None:
    ao: Ao[int] = Ao(fake_ctx)
    error = TargetError("no memory")
    ao.fail(error)
    for _ in range(2):
        with pytest.raises(TargetError) as caught:
            ao.result()
        assert caught.value is error


@pytest.mark.parametrize("first", ["complete", "fail"])
@pytest.mark.parametrize("second", ["complete", "fail"])
def test_a_second_completion_is_a_programming_error(
    fake_ctx: Context, first: str, second: str
) -> None:
    done: list[object] = []
    ao: Ao[int] = Ao(fake_ctx, on_done=done.append)

    def finish(how: str) -> None:
        if how == "complete":
            ao.complete(1)
        else:
            ao.fail(TargetError(f"{how} came"))

    finish(first)
    with pytest.raises(AoStateError, match=r"done already, and now it has (succeeded|failed: )"):
        finish(second)
    fake_ctx.dispatch({})
    assert done == [ao]


def test_progress_comes_in_order_and_never_after_the_completion(fake_ctx: Context) -> None:
    log: list[object] = []
    ao: Ao[str] = Ao(fake_ctx, on_done=lambda ao: log.append("done"), on_progress=log.append)
    ao.progress(1)
    ao.progress(2)
    ao.complete("x")
    ao.progress(3)
    fake_ctx.dispatch({})
    assert log == [1, 2, "done"]


def test_dropped_progress_does_not_come_even_if_it_was_on_its_way(fake_ctx: Context) -> None:
    ao: Ao[str] = Ao(fake_ctx, on_progress=lambda event: pytest.fail("dropped"))
    ao.progress(1)
    ao.drop_progress()
    ao.progress(2)
    fake_ctx.dispatch({})


def test_abort_calls_the_handler_once_on_the_egc_and_the_operation_ends_it(
    fake_ctx: Context,
) -> None:
    reasons: list[LibxlsrError] = []
    ao: Ao[int] = Ao(fake_ctx)
    ao.set_abort_handler(reasons.append)
    ao.abort()
    ao.abort()
    assert reasons == []
    fake_ctx.dispatch({})
    assert len(reasons) == 1
    assert ao.aborting is reasons[0]
    assert not ao.done
    ao.fail(reasons[0])
    with pytest.raises(Aborted) as caught:
        ao.result()
    assert caught.value.later == []


def test_a_handler_that_is_set_after_the_abort_is_called(fake_ctx: Context) -> None:
    reasons: list[LibxlsrError] = []
    ao: Ao[int] = Ao(fake_ctx)
    ao.abort(BAD_STREAM)
    ao.set_abort_handler(lambda reason: pytest.fail("a second handler took its place"))
    ao.set_abort_handler(reasons.append)
    fake_ctx.dispatch({})
    fake_ctx.dispatch({})
    assert reasons == [BAD_STREAM]


def test_an_abort_handler_that_ends_the_operation_at_once_completes_it_once(
    fake_ctx: Context,
) -> None:
    done: list[object] = []
    ao: Ao[int] = Ao(fake_ctx, on_done=done.append)
    ao.set_abort_handler(ao.fail)
    with fake_ctx.frame():
        ao.abort()
        ao.abort()
    assert done == [ao]
    ao.abort()
    fake_ctx.dispatch({})
    assert done == [ao]


def test_abort_after_the_completion_does_nothing(fake_ctx: Context) -> None:
    ao: Ao[int] = Ao(fake_ctx)
    ao.set_abort_handler(lambda reason: pytest.fail("done already"))
    ao.complete(1)
    ao.abort()
    assert ao.aborting is None
    fake_ctx.dispatch({})
    assert ao.result() == 1


def test_abort_from_inside_on_done_does_nothing(fake_ctx: Context) -> None:
    ao: Ao[int] = Ao(fake_ctx, on_done=lambda ao: ao.abort())
    ao.complete(1)
    fake_ctx.dispatch({})
    assert ao.result() == 1


def test_the_handler_is_not_called_when_the_operation_ends_first(fake_ctx: Context) -> None:
    ao: Ao[int] = Ao(fake_ctx)
    ao.set_abort_handler(lambda reason: pytest.fail("done already"))
    ao.abort()
    ao.complete(1)
    fake_ctx.dispatch({})
    assert ao.result() == 1


def test_the_first_error_wins_and_keeps_the_later_ones(fake_ctx: Context) -> None:
    ao: Ao[int] = Ao(fake_ctx)
    first = StreamError("bad magic", offset=0)
    second, third = TargetError("helper was killed"), TargetError("rollback failed")
    ao.abort(first)
    ao.abort(second)
    ao.abort(second)
    ao.abort(first)
    ao.abort()
    ao.fail(third)
    with pytest.raises(StreamError) as caught:
        ao.result()
    assert caught.value is first
    assert first.later == [second, third]


def test_a_second_failure_is_not_noted(fake_ctx: Context) -> None:
    ao: Ao[int] = Ao(fake_ctx)
    reason = Aborted()
    ao.abort(reason)
    ao.fail(reason)
    with pytest.raises(AoStateError):
        ao.fail(TargetError("again"))
    assert reason.later == []


def test_the_deadline_aborts(fake_ctx: Context, clock: FakeClock) -> None:
    ao: Ao[int] = Ao(fake_ctx, deadline=90)
    ao.set_abort_handler(ao.fail)
    clock.advance(89)
    fake_ctx.dispatch({})
    assert ao.aborting is None
    assert fake_ctx.prepare().timeout == 1
    clock.advance(1)
    fake_ctx.dispatch({})
    with pytest.raises(TimedOut, match="not done within 90 s"):
        ao.result()


@pytest.mark.parametrize("end", ["complete", "abort"])
def test_the_deadline_is_taken_back(fake_ctx: Context, clock: FakeClock, end: str) -> None:
    ao: Ao[int] = Ao(fake_ctx, deadline=90)
    if end == "complete":
        ao.complete(1)
    else:
        ao.abort()
    assert fake_ctx.registered() == []
