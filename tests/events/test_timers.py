"""A timer that may be stopped and set at any time."""

from __future__ import annotations

from libxlsr.events import Context, Timer
from libxlsr.testing.clock import FakeClock


def test_it_comes_once(fake_ctx: Context, clock: FakeClock) -> None:
    calls: list[str] = []
    timer = Timer(fake_ctx)
    set_at = [timer.is_set]
    timer.set(5, calls.append, "due")
    set_at.append(timer.is_set)
    fake_ctx.dispatch({})
    assert calls == []
    clock.advance(5)
    fake_ctx.dispatch({})
    fake_ctx.dispatch({})
    assert calls == ["due"]
    assert [*set_at, timer.is_set] == [False, True, False]


def test_stopping_is_harmless_at_any_time(fake_ctx: Context, clock: FakeClock) -> None:
    calls: list[str] = []
    timer = Timer(fake_ctx)
    timer.stop()
    timer.set(1, calls.append, "stopped")
    timer.stop()
    timer.stop()
    timer.set(1, calls.append, "due")
    clock.advance(1)
    fake_ctx.dispatch({})
    timer.stop()
    assert calls == ["due"]
    assert fake_ctx.registered() == []


def test_setting_it_anew_forgets_the_time_before(fake_ctx: Context, clock: FakeClock) -> None:
    calls: list[str] = []
    timer = Timer(fake_ctx)
    timer.set(1, calls.append, "before")
    timer.set(2, calls.append, "anew")
    clock.advance(1)
    fake_ctx.dispatch({})
    assert calls == []
    clock.advance(1)
    fake_ctx.dispatch({})
    assert calls == ["anew"]


def test_it_may_be_set_by_its_own_callback(fake_ctx: Context, clock: FakeClock) -> None:
    calls: list[float] = []
    timer = Timer(fake_ctx)

    def tick() -> None:
        calls.append(clock())
        timer.set(1, tick)

    start = clock()
    timer.set(1, tick)
    for _ in range(3):
        clock.advance(1)
        fake_ctx.dispatch({})
    assert calls == [start + 1, start + 2, start + 3]
    timer.stop()
    assert fake_ctx.registered() == []
