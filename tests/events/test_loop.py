"""The built-in loop: every kind of fd, numbers above 1023, closed fds, and nothing to wait for."""

from __future__ import annotations

import os
import resource
import selectors
from collections.abc import Iterator
from pathlib import Path

import pytest

from libxlsr.errors import TargetError
from libxlsr.events import READ, WRITE, Context, CopyResult, Datacopier, Outcome, Prepared, run
from libxlsr.events.loop import FD_SETSIZE, WAIT_MAX, Waiter


@pytest.fixture
def high_fd() -> Iterator[int]:
    """The reading end of a pipe with 5 bytes in it, beyond select()'s fd_set."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= FD_SETSIZE + 10:
        pytest.skip("RLIMIT_NOFILE does not allow an fd above 1023")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FD_SETSIZE + 10), hard))
    read_end, write_end = os.pipe()
    os.write(write_end, b"hello")
    high = FD_SETSIZE + 5
    os.dup2(read_end, high, inheritable=False)
    os.close(read_end)
    yield high
    os.close(high)
    os.close(write_end)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_fd_above_1023(ctx: Context, high_fd: int) -> None:
    results: list[CopyResult] = []
    Datacopier(ctx).read_exactly(high_fd, 5, results.append, what="high")
    run(ctx, lambda: bool(results))
    assert results[0].data == b"hello"


def test_the_waiter_changes_to_poll_only_for_a_high_fd(high_fd: int) -> None:
    read_end, write_end = os.pipe()
    with Waiter() as waiter:
        assert waiter.wait(Prepared({write_end: WRITE}, None)) == {write_end: WRITE}
        assert isinstance(waiter._selector, selectors.SelectSelector)
        fds = {write_end: WRITE, high_fd: READ, read_end: READ}
        assert waiter.wait(Prepared(fds, None)) == {write_end: WRITE, high_fd: READ}
        assert isinstance(waiter._selector, selectors.PollSelector)
        assert waiter.wait(Prepared({read_end: READ}, 0)) == {}
        assert isinstance(waiter._selector, selectors.PollSelector)
    os.close(read_end)
    os.close(write_end)


def test_the_waiter_follows_each_change() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"x")
    with Waiter() as waiter:
        assert waiter.wait(Prepared({read_end: READ}, 0)) == {read_end: READ}
        assert waiter.wait(Prepared({read_end: WRITE}, 0)) == {}
        assert waiter.wait(Prepared({}, 0)) == {}
        both = {read_end: READ, write_end: WRITE}
        assert waiter.wait(Prepared(both, 0)) == both
    os.close(read_end)
    os.close(write_end)


def test_regular_files_directories_and_devices_are_always_ready(
    ctx: Context, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"data")
    for name in (path, tmp_path, Path(os.devnull)):
        fd = os.open(name, os.O_RDONLY)
        got: list[int] = []
        event = ctx.watch_fd(fd, READ, got.append)
        run(ctx, lambda got=got: bool(got))  # type: ignore[misc]
        event.deregister()
        os.close(fd)


@pytest.mark.parametrize("poll", [False, True])
def test_an_fd_closed_while_it_is_watched_tells_its_owner(
    ctx: Context, high_fd: int, poll: bool
) -> None:
    results: list[CopyResult] = []
    read_end, write_end = os.pipe()
    bystander = ctx.watch_fd(high_fd if poll else 0, 0, print)
    disturbed: list[int] = []
    quiet_pipe = os.pipe()
    quiet = ctx.watch_fd(quiet_pipe[0], READ, disturbed.append)
    if poll:
        bystander.modify(READ)
    Datacopier(ctx).read_exactly(read_end, 5, results.append, what="header")
    os.close(read_end)
    run(ctx, lambda: bool(results))
    assert results[0].outcome is Outcome.FAILED
    assert results[0].error is not None
    assert results[0].error.strerror == "Bad file descriptor"
    assert disturbed == []
    bystander.deregister()
    quiet.deregister()
    for fd in (write_end, *quiet_pipe):
        os.close(fd)


def test_a_wait_that_the_system_refuses_is_a_target_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(timeout: float) -> None:
        raise OSError(12, "Cannot allocate memory")

    with Waiter() as waiter:
        monkeypatch.setattr(waiter._selector, "select", fail)
        with pytest.raises(TargetError, match="can't wait for events: Cannot allocate memory"):
            waiter.wait(Prepared({}, 0))


def test_timers_and_immediate_callbacks_run_in_the_loop(ctx: Context) -> None:
    calls: list[str] = []
    ctx.call_later(0.001, calls.append, "timer")
    ctx.call_soon(calls.append, "soon")
    run(ctx, lambda: len(calls) == 2)
    assert calls == ["soon", "timer"]


def test_a_far_timer_does_not_overflow_select(monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts: list[float] = []

    def select(timeout: float) -> list[object]:
        timeouts.append(timeout)
        return []

    with Waiter() as waiter:
        monkeypatch.setattr(waiter._selector, "select", select)
        waiter.wait(Prepared({}, float("inf")))
        waiter.wait(Prepared({}, 1e300))
        waiter.wait(Prepared({}, None))
    assert timeouts == [WAIT_MAX, WAIT_MAX, None]


def test_until_is_asked_before_the_first_wait(ctx: Context) -> None:
    run(ctx, lambda: True)


def test_with_nothing_to_wait_for_it_raises_and_does_not_hang(ctx: Context) -> None:
    event = ctx.watch_fd(0, 0, print)
    with pytest.raises(RuntimeError, match="nothing is left to wait for"):
        run(ctx, lambda: False)
    event.deregister()


def test_it_refuses_to_run_inside_a_callback(ctx: Context) -> None:
    ctx.call_soon(run, ctx, lambda: False)
    with pytest.raises(RuntimeError, match="never nest"):
        ctx.dispatch({})


def test_it_can_be_entered_again_after_an_exception(ctx: Context) -> None:
    calls: list[int] = []
    ctx.call_soon(lambda: 1 // 0)
    ctx.call_soon(calls.append, 1)
    with pytest.raises(ZeroDivisionError):
        run(ctx, lambda: False)
    run(ctx, lambda: bool(calls))
