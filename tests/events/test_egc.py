"""Callbacks are gathered, run in order, never nest, and survive each other's exceptions."""

from __future__ import annotations

import functools
import os

import pytest

from libxlsr.events import READ, WRITE, Context
from libxlsr.events.egc import Event
from libxlsr.testing.clock import FakeClock


def test_outside_a_frame_a_callback_waits_for_the_next_dispatch(fake_ctx: Context) -> None:
    calls: list[int] = []
    fake_ctx.call_soon(calls.append, 1)
    assert calls == []
    assert fake_ctx.prepare().timeout == 0
    fake_ctx.dispatch({})
    assert calls == [1]
    assert fake_ctx.prepare().timeout is None


def test_the_outermost_frame_runs_what_was_gathered_when_it_is_left(fake_ctx: Context) -> None:
    calls: list[str] = []
    with fake_ctx.frame():
        with fake_ctx.frame():
            fake_ctx.call_soon(calls.append, "a")
        fake_ctx.call_soon(calls.append, "b")
        assert calls == []
    assert calls == ["a", "b"]


def test_a_frame_inside_a_callback_is_not_outermost(fake_ctx: Context) -> None:
    log: list[str] = []

    def outer() -> None:
        log.append("outer begins")
        with fake_ctx.frame():
            fake_ctx.call_soon(log.append, "inner")
        log.append("outer ends")

    fake_ctx.call_soon(outer)
    fake_ctx.dispatch({})
    assert log == ["outer begins", "outer ends", "inner"]


def test_a_chain_of_callbacks_does_not_grow_the_stack(fake_ctx: Context) -> None:
    left = 100_000

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            with fake_ctx.frame():
                fake_ctx.call_soon(again)

    fake_ctx.call_soon(again)
    fake_ctx.dispatch({})
    assert left == 0


def test_step_runs_exactly_one_callback(fake_ctx: Context) -> None:
    calls: list[int] = []
    for number in range(3):
        fake_ctx.call_soon(calls.append, number)
    fake_ctx.call_soon(lambda: fake_ctx.call_soon(calls.append, 99))
    assert fake_ctx.step()
    assert calls == [0]
    assert fake_ctx.step()
    assert calls == [0, 1]
    assert fake_ctx.step()
    assert fake_ctx.step()
    assert calls == [0, 1, 2]
    assert fake_ctx.step()
    assert calls == [0, 1, 2, 99]
    assert not fake_ctx.step()


@pytest.mark.parametrize("where", ["frame", "callback"])
@pytest.mark.parametrize("what", ["dispatch", "step"])
def test_dispatch_and_step_refuse_to_nest(fake_ctx: Context, what: str, where: str) -> None:
    call = functools.partial(fake_ctx.dispatch, {}) if what == "dispatch" else fake_ctx.step
    if where == "frame":
        with fake_ctx.frame(), pytest.raises(RuntimeError, match="never nest"):
            call()
    else:
        fake_ctx.call_soon(call)
        with pytest.raises(RuntimeError, match="never nest"):
            fake_ctx.dispatch({})
    assert not fake_ctx.entered


def test_a_deregistered_immediate_event_does_not_come(fake_ctx: Context) -> None:
    calls: list[int] = []
    first = fake_ctx.call_soon(calls.append, 1)
    fake_ctx.call_soon(calls.append, 2)
    first.deregister()
    first.deregister()
    assert fake_ctx.registered() == ["pending immediate: list.append"]
    assert fake_ctx.step()
    assert calls == [2]
    first.deregister()


def test_an_exception_leaves_the_other_callbacks_gathered(fake_ctx: Context) -> None:
    calls: list[int] = []

    def boom(number: int) -> None:
        raise ValueError(f"boom {number}")

    fake_ctx.call_soon(boom, 1)
    fake_ctx.call_soon(calls.append, 1)
    fake_ctx.call_soon(boom, 2)
    fake_ctx.call_soon(calls.append, 2)
    with pytest.raises(ValueError, match="boom 1"):
        fake_ctx.dispatch({})
    assert calls == []
    assert fake_ctx.prepare().timeout == 0
    with pytest.raises(ValueError, match="boom 2"):
        fake_ctx.dispatch({})
    assert calls == [1]
    fake_ctx.dispatch({})
    assert calls == [1, 2]


def test_an_exception_leaves_a_frame_with_the_rest_gathered(fake_ctx: Context) -> None:
    calls: list[int] = []

    def entry_point() -> None:
        with fake_ctx.frame():
            fake_ctx.call_soon(lambda: 1 // 0)
            fake_ctx.call_soon(calls.append, 1)

    with pytest.raises(ZeroDivisionError):
        entry_point()
    assert calls == []
    assert not fake_ctx.entered
    fake_ctx.dispatch({})
    assert calls == [1]


def test_an_exception_in_a_frames_body_passes_and_what_it_gathered_waits(
    fake_ctx: Context,
) -> None:
    calls: list[int] = []

    def entry_point() -> None:
        with fake_ctx.frame():
            fake_ctx.call_soon(calls.append, 1)
            raise KeyError

    with pytest.raises(KeyError):
        entry_point()
    assert calls == []
    with fake_ctx.frame():
        fake_ctx.call_soon(calls.append, 2)
    assert calls == [1, 2]


def test_on_change_is_called_once_for_each_change_outside_dispatch(fake_ctx: Context) -> None:
    changes: list[list[str]] = []
    fake_ctx.on_change = lambda: changes.append(fake_ctx.registered())
    event = fake_ctx.watch_fd(0, READ, print, what="stdin")
    assert changes == [["fd 0 read: stdin"]]
    event.modify(WRITE)
    event.deregister()
    assert changes[1:] == [["fd 0 write: stdin"], []]
    timer = fake_ctx.call_later(5, print)
    timer.deregister()
    soon = fake_ctx.call_soon(print)
    assert changes[3:] == [["timer at 1005.000: print"], [], ["pending immediate: print"]]
    soon.deregister()


def test_on_change_comes_after_the_outermost_frame(fake_ctx: Context) -> None:
    changes: list[bool] = []
    fake_ctx.on_change = lambda: changes.append(fake_ctx.entered)
    with fake_ctx.frame():
        fake_ctx.call_later(1, print).deregister()
        fake_ctx.call_soon(list)
        with fake_ctx.frame():
            pass
        assert changes == []
    assert changes == [False]
    with fake_ctx.frame():
        pass
    assert changes == [False]


def test_on_change_is_silent_inside_dispatch_and_step(fake_ctx: Context) -> None:
    changes: list[int] = []
    fake_ctx.call_soon(lambda: fake_ctx.call_soon(list))
    fake_ctx.call_soon(lambda: fake_ctx.call_later(1, print).deregister())
    fake_ctx.on_change = lambda: changes.append(1)
    fake_ctx.step()
    fake_ctx.dispatch({})
    with fake_ctx.frame():
        pass
    assert changes == []


def test_registered_names_everything(clock: FakeClock) -> None:
    ctx = Context(clock=clock)

    class Nameless:
        def __call__(self) -> None: ...

        def __repr__(self) -> str:
            return "<nameless>"

    read_end, write_end = os.pipe()
    watch = ctx.watch_fd(read_end, READ, lambda ready: None, what="the pipe")
    both = ctx.watch_fd(write_end, READ | WRITE, functools.partial(print, "x"))
    both.modify(0)
    timer = ctx.call_at(3, functools.partial(functools.partial(print, 1), 2))
    soon = ctx.call_soon(Nameless())
    assert ctx.registered() == [
        f"fd {read_end} read: the pipe",
        f"fd {write_end} paused: print",
        "timer at 3.000: print",
        "pending immediate: <nameless>",
    ]
    ctx.gather({read_end: READ})
    assert ctx.registered()[2:] == [
        "pending immediate: <nameless>",
        f"pending fd {read_end} read: the pipe",
        "pending timer at 3.000: print",
    ]
    for event in (watch, both, timer, soon):
        event.deregister()
    assert ctx.registered() == []
    os.close(read_end)
    os.close(write_end)


def test_an_event_without_a_kind_can_neither_fire_nor_be_described() -> None:
    event = Event()
    assert event.live
    with pytest.raises(NotImplementedError):
        event.fire()
    with pytest.raises(NotImplementedError):
        event.describe()
