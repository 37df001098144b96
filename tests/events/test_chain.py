"""Steps are taken in their order, and none after the one that fails or is stopped."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from typing import Callable

import pytest

from libxlsr.errors import Aborted, LibxlsrError, TargetError
from libxlsr.events import Context
from libxlsr.events.chain import Call, Chain, Done, Step, Teardown, Wait
from libxlsr.testing.stepping import run_until


class Ended:
    """What a chain came to."""

    def __init__(self) -> None:
        self.errors: list[LibxlsrError | None] = []

    def __call__(self, error: LibxlsrError | None) -> None:
        self.errors.append(error)


@pytest.fixture
def ended() -> Ended:
    return Ended()


def fail(error: Exception) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


def test_each_step_is_asked_for_when_the_one_before_is_done(ctx: Context, ended: Ended) -> None:
    taken: list[str] = []

    def steps() -> Iterator[Step]:
        yield Call(ctx, lambda: taken.append("first"))
        taken.append("between")
        yield Wait(lambda done: ctx.call_soon(done, None), lambda: None)
        yield Call(ctx, lambda: taken.append("last"))

    Chain(ctx, steps(), ended, doing="test").start()
    run_until(ctx, lambda: bool(ended.errors))
    assert (taken, ended.errors) == (["first", "between", "last"], [None])


def test_no_step_at_all(ctx: Context, ended: Ended) -> None:
    Chain(ctx, [], ended, doing="test").start()
    assert ended.errors == []
    run_until(ctx, lambda: bool(ended.errors))
    assert ended.errors == [None]


@pytest.mark.parametrize("error", [TargetError("no"), OSError(errno.ENOSPC, "full", "/a/file")])
def test_nothing_is_done_after_an_error(ctx: Context, ended: Ended, error: Exception) -> None:
    taken: list[str] = []
    steps = [Call(ctx, fail(error)), Call(ctx, lambda: taken.append("second"))]
    Chain(ctx, steps, ended, doing="do it").start()
    run_until(ctx, lambda: bool(ended.errors))
    (came,) = ended.errors
    assert isinstance(came, TargetError)
    assert taken == []
    if isinstance(error, OSError):
        assert came.errno == errno.ENOSPC
        assert "could not do it (/a/file)" in str(came)


def test_an_exception_that_must_not_be_is_an_error_as_well(
    ctx: Context, ended: Ended, caplog: pytest.LogCaptureFixture
) -> None:
    bug = TypeError("'NoneType' object is not iterable")
    with caplog.at_level(logging.DEBUG, "libxlsr"):
        Chain(ctx, [Call(ctx, fail(bug))], ended, doing="do it").start()
        run_until(ctx, lambda: bool(ended.errors))
    (came,) = ended.errors
    assert isinstance(came, TargetError)
    assert str(came).startswith(
        "internal error: could not do it: TypeError: 'NoneType' object is not iterable; "
        "please report it"
    )
    assert came.__cause__ is bug
    (record,) = caplog.records
    assert (record.levelno, record.exc_info and record.exc_info[1]) == (logging.DEBUG, bug)


def test_aborted_after_an_interrupt_in_a_step(ctx: Context, ended: Ended) -> None:
    """As Ctrl-C does it to a restore that blocks: what it interrupts is no error of the step."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    reason = Aborted()
    chain = Chain(ctx, [Call(ctx, interrupted)], ended, doing="test")
    with pytest.raises(KeyboardInterrupt):
        chain.start()
    chain.abort(reason)
    run_until(ctx, lambda: bool(ended.errors))
    assert ended.errors == [reason]


def test_a_step_that_says_an_error(ctx: Context, ended: Ended) -> None:
    error = TargetError("said")
    steps: list[Step] = [
        Wait(lambda done: ctx.call_soon(done, error), lambda: None),
        Call(ctx, fail(TargetError("no"))),
    ]
    Chain(ctx, steps, ended, doing="test").start()
    run_until(ctx, lambda: bool(ended.errors))
    assert ended.errors == [error]


def test_an_error_while_the_next_step_is_made(ctx: Context, ended: Ended) -> None:
    error = TargetError("not even made")

    def steps() -> Iterator[Step]:
        yield from []
        raise error

    Chain(ctx, steps(), ended, doing="test").start()
    run_until(ctx, lambda: bool(ended.errors))
    assert ended.errors == [error]


def test_aborted_in_a_step_that_waits(ctx: Context, ended: Ended) -> None:
    reason, stopped = Aborted(), []
    begun: list[Done] = []
    steps: list[Step] = [
        Wait(begun.append, lambda: stopped.append(True)),
        Call(ctx, fail(TargetError("no"))),
    ]
    chain = Chain(ctx, steps, ended, doing="test")
    chain.start()
    chain.abort(reason)
    chain.abort(Aborted("again"))
    run_until(ctx, lambda: bool(ended.errors))
    assert (ended.errors, stopped, len(begun)) == ([reason], [True], 1)


def test_aborted_in_a_step_that_does_not_wait(ctx: Context, ended: Ended) -> None:
    reason = Aborted()
    chain = Chain(ctx, [Call(ctx, lambda: None)], ended, doing="test")
    chain.start()
    chain.abort(reason)
    run_until(ctx, lambda: bool(ended.errors))
    assert ended.errors == [reason]
    assert ctx.registered() == []


def test_a_teardown_takes_every_step_whatever_becomes_of_the_others(ctx: Context) -> None:
    taken: list[str] = []
    errors: list[list[LibxlsrError]] = []
    refused, late = TargetError("refused"), TargetError("late")

    def steps() -> Iterator[Step]:
        yield Call(ctx, fail(refused))
        yield Wait(lambda done: ctx.call_soon(done, late))
        yield Call(ctx, fail(ZeroDivisionError("oops")))
        yield Call(ctx, lambda: taken.append("last"))

    Teardown(ctx, steps(), errors.append, doing="undo it").start()
    run_until(ctx, lambda: bool(errors))
    ((first, second, third),) = errors
    assert (taken, first, second) == (["last"], refused, late)
    assert "could not undo it: ZeroDivisionError: oops" in str(third)


def test_a_teardown_of_nothing(ctx: Context) -> None:
    errors: list[list[LibxlsrError]] = []
    Teardown(ctx, [], errors.append, doing="undo it").start()
    assert errors == []
    run_until(ctx, lambda: bool(errors))
    assert errors == [[]]
