"""The spare helper's life; a restore that takes it is in tests/xenlab/in_dom0."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from libxlsr.domain.save_helper import parent
from libxlsr.domain.save_helper.parent import RestoreHelper
from libxlsr.domain.save_helper.spare import SpareHelper
from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import Context, run
from libxlsr.testing.leaks import children

from ...forks import in_a_fork


@pytest.fixture(autouse=True)
def a_worker_that_loads_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one opens the hypervisor before it waits for its work."""
    monkeypatch.setattr(parent, "WORKER", "libxlsr.testing.faulty_worker")


def refill(ctx: Context, spare: SpareHelper) -> None:
    spare.refill()
    assert spare.pid is None  # not before the loop's next round
    run(ctx, lambda: not any(line.startswith("timer") for line in ctx.registered()))


def retire(ctx: Context, helper: RestoreHelper) -> None:
    over: list[LibxlsrError | None] = []
    helper.retire(over.append)
    run(ctx, lambda: bool(over))
    assert over == [None]


def test_it_is_there_until_it_is_closed() -> None:
    ctx = Context()
    with SpareHelper(ctx) as spare:
        assert list(children()) == [spare.pid]
    assert spare.pid is None
    assert not children()
    assert ctx.registered() == []


def test_one_restore_takes_it_and_the_next_has_its_own() -> None:
    ctx = Context()
    with SpareHelper(ctx) as spare:
        pid = spare.pid
        first, second = spare.take(), spare.take()
        assert first.pid == pid
        assert second.pid not in (None, pid)
        for helper in (first, second):
            retire(ctx, helper)
    assert ctx.registered() == []


def test_the_next_spare_comes_when_it_is_called_for() -> None:
    ctx = Context()
    with SpareHelper(ctx) as spare:
        pids = [spare.pid]
        taken = spare.take()
        pids.append(spare.pid)
        refill(ctx, spare)
        pids.append(spare.pid)
        spare.refill()
        pids.append(spare.pid)
        first, none, second, still_second = pids
        assert none is None
        assert second not in (None, first)
        assert still_second == second
        retire(ctx, taken)


def test_one_that_has_died_is_replaced() -> None:
    ctx = Context()
    with SpareHelper(ctx) as spare:
        dead = spare.pid
        assert dead is not None
        os.kill(dead, signal.SIGKILL)
        run(ctx, lambda: spare.pid is None)
        taken = spare.take()
        assert taken.pid not in (None, dead)
        retire(ctx, taken)
    assert ctx.registered() == []


def test_the_end_of_one_that_has_died_leaves_nothing_to_be_called() -> None:
    ctx = Context()
    with SpareHelper(ctx) as spare:
        assert spare.pid is not None
        os.kill(spare.pid, signal.SIGKILL)
        run(ctx, lambda: spare.pid is None)
    assert ctx.registered() == []


def test_a_forked_child_does_not_end_its_parents() -> None:
    ctx = Context()
    with SpareHelper(ctx) as spare:
        in_a_fork(spare.close)
        assert list(children()) == [spare.pid]


def test_a_refill_after_the_end_starts_nothing() -> None:
    ctx = Context()
    spare = SpareHelper(ctx)
    spare.close()
    spare.close()
    spare.refill()
    assert ctx.registered() == []
    assert not children()


def test_who_comes_before_the_refill_is_served_first() -> None:
    ctx = Context()
    with SpareHelper(ctx) as spare:
        first = spare.take()
        spare.refill()
        second = spare.take()
        ctx.dispatch({})  # the round in which a refill would come
        assert set(children()) == {first.pid, second.pid}
        for helper in (first, second):
            retire(ctx, helper)
    assert ctx.registered() == []


def test_the_end_comes_before_a_refill() -> None:
    ctx = Context()
    with SpareHelper(ctx) as spare:
        retire(ctx, spare.take())
        spare.refill()
    assert ctx.registered() == []
    assert not children()


def test_no_refill_is_no_error_for_the_restore(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ctx = Context()
    with SpareHelper(ctx) as spare:
        taken = spare.take()
        monkeypatch.setattr("sys.executable", str(Path("/no/such/python")))
        refill(ctx, spare)
        assert "no spare helper: can't start a helper process" in caplog.text
        with pytest.raises(TargetError, match="can't start"):
            spare.take()
        retire(ctx, taken)
    assert ctx.registered() == []
