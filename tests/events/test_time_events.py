"""Time events, on a clock that stands still."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libxlsr.events import Context, TimeEvent
from libxlsr.events.time_events import DEAD_ENTRIES_MIN
from libxlsr.testing.clock import FakeClock

TIMES = st.integers(0, 100)


def test_prepare_says_how_long_to_wait(fake_ctx: Context, clock: FakeClock) -> None:
    assert fake_ctx.prepare().timeout is None
    late = fake_ctx.call_later(5, print)
    early = fake_ctx.call_at(clock() + 2, print)
    assert fake_ctx.prepare().timeout == 2
    clock.advance(1.5)
    assert fake_ctx.prepare().timeout == 0.5
    early.deregister()
    assert fake_ctx.prepare().timeout == 3.5
    clock.advance(100)
    assert fake_ctx.prepare().timeout == 0
    late.deregister()


def test_due_timers_run_by_time_and_then_by_registration(
    fake_ctx: Context, clock: FakeClock
) -> None:
    calls: list[str] = []
    for when, name in [(3.0, "c"), (1.0, "a"), (3.0, "d"), (2.0, "b"), (4.0, "late")]:
        fake_ctx.call_later(when, calls.append, name)
    clock.advance(3)
    fake_ctx.dispatch({})
    assert calls == ["a", "b", "c", "d"]
    fake_ctx.dispatch({}, now=clock() + 1)
    assert calls[4:] == ["late"]


def test_a_timer_fires_once(fake_ctx: Context) -> None:
    calls: list[int] = []
    event = fake_ctx.call_later(0, calls.append, 1)
    fake_ctx.dispatch({})
    fake_ctx.dispatch({})
    assert calls == [1]
    event.deregister()


def test_a_timer_set_by_a_timer_waits_for_the_next_round(fake_ctx: Context) -> None:
    calls: list[int] = []
    fake_ctx.call_later(-1, lambda: fake_ctx.call_later(-1, calls.append, 1))
    fake_ctx.dispatch({})
    assert calls == []
    fake_ctx.dispatch({})
    assert calls == [1]


def test_a_gathered_timer_can_still_be_deregistered(fake_ctx: Context) -> None:
    calls: list[str] = []
    fake_ctx.call_at(0, lambda: second.deregister())
    second: TimeEvent = fake_ctx.call_at(1, calls.append, "second")
    fake_ctx.gather({})
    assert fake_ctx.step()
    assert not fake_ctx.step()
    assert calls == []


def test_a_clock_that_goes_back_delays_and_harms_nothing(
    fake_ctx: Context, clock: FakeClock
) -> None:
    calls: list[int] = []
    fake_ctx.call_later(1, calls.append, 1)
    clock.advance(-10)
    fake_ctx.dispatch({})
    assert calls == []
    assert fake_ctx.prepare().timeout == 11
    clock.advance(11)
    fake_ctx.dispatch({})
    clock.advance(-10)
    fake_ctx.dispatch({})
    assert calls == [1]


def test_deregistered_timers_do_not_pile_up(fake_ctx: Context) -> None:
    keep = [fake_ctx.call_later(2000 + number, print) for number in range(3)]
    for _ in range(20 * DEAD_ENTRIES_MIN):
        fake_ctx.call_later(1000, print).deregister()
        assert len(fake_ctx._timers) <= DEAD_ENTRIES_MIN + len(keep) + 1
    assert len(fake_ctx.registered()) == 3
    assert fake_ctx.prepare().timeout == 2000
    for event in keep:
        event.deregister()


@given(st.lists(st.tuples(st.sampled_from(["add", "cancel", "gather", "prepare"]), TIMES)))
def test_the_heap_knows_how_many_of_its_entries_are_deregistered(
    actions: list[tuple[str, int]],
) -> None:
    clock = FakeClock(0)
    ctx = Context(clock=clock)
    events: list[TimeEvent] = []
    for action, number in actions:
        if action == "add":
            events += [ctx.call_at(number, print) for _ in range(number)]
        elif action == "cancel":
            for event in events[::2]:
                event.deregister()
            del events[::2]
        elif action == "gather":
            ctx.gather({}, number)
        else:
            ctx.prepare()
        entries = [entry[2] for entry in ctx._timers._heap]
        assert ctx._timers._dead == sum(not event.registered for event in entries)
    for event in events:
        event.deregister()
    assert ctx.registered() == []


def test_now_is_the_clocks_time(fake_ctx: Context, clock: FakeClock) -> None:
    clock.advance(2.5)
    assert fake_ctx.now() == clock() == 1002.5


def test_a_time_that_never_comes(fake_ctx: Context) -> None:
    with pytest.raises(ValueError, match="NaN"):
        fake_ctx.call_at(math.nan, print)
    event = fake_ctx.call_at(math.inf, print)
    assert fake_ctx.prepare().timeout == math.inf
    event.deregister()
