"""Stepping a context by hand, one gathered callback at a time, and running it without a hang.

``step`` and ``run_until_idle`` never wait: what is not ready now is not gathered, and time is what
the context's clock says. ``run_until`` does wait, for children and other processes, and gives up
with an AssertionError that lists what was still registered.
"""

from __future__ import annotations

import time
from typing import Callable

from libxlsr.events.context import Context, Prepared
from libxlsr.events.loop import Waiter

STEPS_MAX = 1_000_000
PATIENCE = 60.0


def poll(ctx: Context) -> dict[int, int]:
    """Which of the context's fds are ready now, as ``Context.dispatch`` takes it."""
    with Waiter() as waiter:
        return waiter.wait(Prepared(ctx.prepare().fds, 0.0))


def step(ctx: Context) -> bool:
    """Run one gathered callback; gather first when none is. False when nothing is to be done."""
    if ctx.step():
        return True
    ctx.gather(poll(ctx))
    return ctx.step()


def run_until_idle(ctx: Context, *, steps_max: int = STEPS_MAX) -> int:
    """Step until nothing is to be done. Returns how many callbacks ran.

    Raises AssertionError after ``steps_max``: an fd that is always ready is never idle.
    """
    for steps in range(steps_max):
        if not step(ctx):
            return steps
    raise AssertionError(f"not idle after {steps_max} callbacks: {ctx.registered()}")


def run_until(ctx: Context, condition: Callable[[], bool], *, patience: float = PATIENCE) -> None:
    """Run the loop until ``condition()``; AssertionError when it does not come true.

    That is: when nothing is left to wait for, or after ``patience`` seconds of real time.
    """
    give_up = time.monotonic() + patience
    with Waiter() as waiter:
        while not condition():
            prepared = ctx.prepare()
            left = give_up - time.monotonic()
            hopeless = not prepared.fds and prepared.timeout is None
            if hopeless or left <= 0:
                raise AssertionError(f"still waiting; registered: {ctx.registered()}")
            timeout = left if prepared.timeout is None else min(prepared.timeout, left)
            ctx.dispatch(waiter.wait(Prepared(prepared.fds, timeout)))
