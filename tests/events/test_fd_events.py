"""fd events: level triggered, cancelled for good, never delivered to a reused fd number."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from libxlsr.events import READ, WRITE, Context


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def test_the_callback_gets_what_it_waited_for_and_is_ready(ctx: Context) -> None:
    got: list[int] = []
    event = ctx.watch_fd(7, READ, got.append)
    assert ctx.prepare().fds == {7: READ}
    ctx.dispatch({7: READ | WRITE})
    ctx.dispatch({7: WRITE})
    ctx.dispatch({8: READ})
    ctx.dispatch({7: READ})
    event.deregister()
    assert got == [READ, READ]
    assert ctx.prepare().fds == {}


def test_two_watchers_share_an_fd_in_opposite_directions(ctx: Context) -> None:
    got: list[tuple[str, int]] = []
    reader = ctx.watch_fd(7, READ, lambda ready: got.append(("r", ready)))
    writer = ctx.watch_fd(7, WRITE, lambda ready: got.append(("w", ready)))
    assert ctx.prepare().fds == {7: READ | WRITE}
    ctx.dispatch({7: READ | WRITE})
    assert got == [("r", READ), ("w", WRITE)]
    reader.deregister()
    assert ctx.prepare().fds == {7: WRITE}
    writer.deregister()


@pytest.mark.parametrize("how", ["watch", "modify"])
def test_two_watchers_for_the_same_direction_are_refused(ctx: Context, how: str) -> None:
    first = ctx.watch_fd(7, READ, print, what="the first")
    if how == "watch":
        with pytest.raises(ValueError, match=r"fd 7 is already watched for read: .*the first"):
            ctx.watch_fd(7, READ | WRITE, print)
    else:
        second = ctx.watch_fd(7, WRITE, print)
        with pytest.raises(ValueError, match="already watched for read"):
            second.modify(READ)
        second.deregister()
    assert ctx.registered() == ["fd 7 read: the first"]
    first.deregister()


@pytest.mark.parametrize(("fd", "interest"), [(-1, READ), (7, 4), (7, -1)])
def test_nonsense_is_refused(ctx: Context, fd: int, interest: int) -> None:
    with pytest.raises(ValueError, match=r"not a file descriptor|bits other than"):
        ctx.watch_fd(fd, interest, print)


def test_a_deregistered_event_does_not_fire_although_it_was_gathered(ctx: Context) -> None:
    got: list[str] = []
    second = ctx.watch_fd(8, READ, lambda ready: got.append("second"))

    def first_callback(ready: int) -> None:
        got.append("first")
        second.deregister()

    first = ctx.watch_fd(7, READ, first_callback)
    ctx.gather({7: READ, 8: READ})
    second_gathered = [line for line in ctx.registered() if line.startswith("pending fd 8")]
    assert second_gathered
    assert ctx.step()
    assert not ctx.step()
    assert got == ["first"]
    first.deregister()
    first.deregister()
    with pytest.raises(ValueError, match="fd 7: the event is deregistered"):
        first.modify(READ)


def test_a_reused_fd_number_does_not_get_the_old_readiness(
    ctx: Context, pipe: tuple[int, int]
) -> None:
    got: list[str] = []
    doomed_read, doomed_write = os.pipe()
    os.write(doomed_write, b"x")
    doomed = ctx.watch_fd(doomed_read, READ, lambda ready: got.append("doomed"))

    def replace(ready: int) -> None:
        nonlocal doomed
        doomed.deregister()
        os.close(doomed_read)
        assert os.dup(pipe[0]) == doomed_read  # the lowest free number is given out again
        doomed = ctx.watch_fd(doomed_read, READ, lambda ready: got.append("new"))

    first = ctx.watch_fd(doomed_write, WRITE, replace)
    ctx.dispatch({doomed_write: WRITE, doomed_read: READ})
    assert got == []
    ctx.dispatch({doomed_read: READ})
    assert got == ["new"]
    for event in (first, doomed):
        event.deregister()
    os.close(doomed_read)
    os.close(doomed_write)


def test_readiness_is_dropped_by_modify_and_not_revived(ctx: Context) -> None:
    got: list[int] = []
    event = ctx.watch_fd(7, READ | WRITE, got.append)
    ctx.gather({7: READ | WRITE})
    event.modify(WRITE)
    event.modify(READ | WRITE)
    assert ctx.step()
    assert got == [WRITE]
    ctx.gather({7: READ})
    event.modify(0)
    assert ctx.prepare() == ({}, None)
    event.modify(READ)
    assert not ctx.step()
    assert got == [WRITE]
    event.modify(READ)
    event.deregister()


def test_an_event_that_was_dropped_from_the_queue_can_be_gathered_again(ctx: Context) -> None:
    got: list[int] = []
    event = ctx.watch_fd(7, READ, got.append)
    ctx.gather({7: READ})
    event.modify(0)
    assert ctx.prepare().timeout is None
    event.modify(READ)
    ctx.dispatch({7: READ})
    assert got == [READ]
    event.deregister()


def test_gathered_twice_fires_once_with_both(ctx: Context) -> None:
    got: list[int] = []
    event = ctx.watch_fd(7, READ | WRITE, got.append)
    ctx.gather({7: READ})
    ctx.gather({7: WRITE})
    ctx.dispatch({})
    assert got == [READ | WRITE]
    event.deregister()


def test_a_paused_event_in_the_queue_does_not_bring_back_old_bits(ctx: Context) -> None:
    got: list[int] = []
    event = ctx.watch_fd(7, READ | WRITE, got.append)
    ctx.gather({7: WRITE})
    event.modify(0)
    event.modify(READ | WRITE)
    ctx.gather({7: READ})  # still in the queue from the first time
    ctx.dispatch({})
    assert got == [READ]
    event.deregister()


def test_a_loop_that_keeps_registrations_is_told_of_each_change_at_once(ctx: Context) -> None:
    seen: list[tuple[int, int]] = []
    ctx.on_fd_change = lambda fd, interest: seen.append((fd, interest))
    first = ctx.watch_fd(7, READ, lambda ready: None)
    second = ctx.watch_fd(7, WRITE, lambda ready: None)
    first.modify(0)

    def inside_a_callback() -> None:
        second.deregister()
        assert seen[-1] == (7, 0)

    ctx.call_soon(inside_a_callback)
    ctx.dispatch({})
    first.deregister()
    assert seen[:4] == [(7, READ), (7, READ | WRITE), (7, WRITE), (7, 0)]
    assert set(seen[4:]) <= {(7, 0)}
