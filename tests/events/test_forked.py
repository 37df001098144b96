"""A context in a child that was forked from its process: it does nothing there."""

from __future__ import annotations

import os

import pytest

from libxlsr.events import Child, Context, ExitStatus, run
from libxlsr.testing.stepping import run_until

from ..forks import in_a_fork


def test_a_context_refuses_to_run(ctx: Context) -> None:
    def check() -> None:
        for call in (ctx.prepare, ctx.step, lambda: ctx.dispatch({}), ctx.frame().__enter__):
            with pytest.raises(RuntimeError, match=f"belongs to process {os.getppid()}"):
                call()
        with pytest.raises(RuntimeError, match="belongs to process"):
            run(ctx, lambda: False)
        assert ctx.forked

    ran: list[str] = []
    ctx.call_soon(ran.append, "here")
    assert not ctx.forked
    in_a_fork(check)
    assert ran == []
    ctx.dispatch({})
    assert ran == ["here"]


def test_a_child_process_is_not_killed(ctx: Context) -> None:
    statuses: list[ExitStatus] = []
    read_end, write_end = os.pipe()
    child = Child.spawn(ctx, ["cat"], statuses.append, stdin=read_end)

    def check() -> None:
        child.kill()
        child.destroy()

    in_a_fork(check)
    os.close(read_end)
    os.close(write_end)
    run_until(ctx, lambda: bool(statuses))
    assert statuses == [ExitStatus(0, None)]
