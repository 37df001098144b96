"""The child that attaches devices: batches, deadlines, ends, the undo. Real children, no Xen."""

from __future__ import annotations

import re

import pytest

from libxlsr.domain.devices import attaching, destruction
from libxlsr.domain.devices.attaching import Attaching
from libxlsr.domain.devices.plan import Device, Plan
from libxlsr.domain.host import XenHost
from libxlsr.errors import Aborted, LibxlsrError, TargetError, TimedOut
from libxlsr.events import Context
from libxlsr.events.chain import Chain
from libxlsr.testing.stepping import run_until

from ...helper.unkillable import unkillable

DOMID = 32750  # beyond any that Xen gives out


def device(words: str, do: str = "") -> Device:
    return Device("disks", {"do": do}, words)


class Bench:
    """One Attaching on an event loop, and what its children did."""

    def __init__(self, ctx: Context, timeout: float | None = None) -> None:
        self.ctx = ctx
        self.did: list[str] = []
        self.attaching = Attaching(
            ctx,
            XenHost(),
            Plan((), ()),
            files=[],
            timeout=timeout,
            on_log=lambda _level, text: self.did.append(text),
        )
        self.attaching.spawn()
        self.ended: list[LibxlsrError | None] = []
        self.chain: Chain | None = None

    def start(self, *devices: Device) -> None:
        steps = [*self.attaching.steps(DOMID, devices), self.attaching.ending()]
        self.chain = Chain(self.ctx, steps, self.ended.append, doing="attach")
        self.chain.start()

    def attach(self, *devices: Device) -> LibxlsrError | None:
        self.start(*devices)
        run_until(self.ctx, lambda: bool(self.ended))
        return self.ended.pop()

    def undo(self) -> None:
        undone: list[LibxlsrError | None] = []
        self.attaching.undo(undone.append)
        run_until(self.ctx, lambda: bool(undone))
        assert undone == [None]
        assert self.ctx.registered() == []


@pytest.fixture(autouse=True)
def no_xen(monkeypatch: pytest.MonkeyPatch) -> None:
    package = __name__.rpartition(".")[0]
    monkeypatch.setattr(attaching, "ATTACH_WORKER", f"{package}.attach_worker")
    monkeypatch.setattr(destruction, "DESTROY_WORKER", f"{package}.destroying_worker")


def test_in_their_order_and_then_the_child_ends(ctx: Context) -> None:
    bench = Bench(ctx)
    assert bench.attach(device("a"), device("b")) is None
    assert bench.did == [f"{DOMID}: disks a", f"{DOMID}: disks b"]
    assert ctx.registered() == []


def test_more_than_one_message_can_hold(ctx: Context) -> None:
    bench = Bench(ctx)
    many = [Device("disks", {"path": "x" * 10_000}, str(number)) for number in range(12)]
    assert bench.attach(*many) is None
    assert bench.did == [f"{DOMID}: disks {number}" for number in range(12)]


def test_the_first_that_fails_is_the_last(ctx: Context) -> None:
    bench = Bench(ctx)
    error = bench.attach(device("a"), device("b", "fail"), device("c"))
    assert error is not None
    assert str(error).startswith("could not attach its b")
    bench.undo()
    assert bench.did[1:] == [f"{DOMID}: disks b", f"{DOMID}: destroyed"]


def test_a_child_that_dies(ctx: Context) -> None:
    bench = Bench(ctx)
    error = bench.attach(device("a", "die"))
    assert isinstance(error, TargetError)
    assert "killed by SIGKILL" in str(error)
    bench.undo()
    assert bench.did[-1] == f"{DOMID}: destroyed"


def test_a_device_that_takes_too_long(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attaching, "BACKEND_TIMEOUT", 0.0)
    error = Bench(ctx, timeout=0.1).attach(device("disk xvda", "hang"))
    assert isinstance(error, TimedOut)
    assert str(error) == "attaching the disk xvda took longer than 0.1 s"


def test_a_child_that_does_not_end(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attaching, "END_TIMEOUT", 0.1)
    error = Bench(ctx).attach(device("disk xvda", "hang at the end"))
    assert isinstance(error, TimedOut)
    assert str(error) == "the end of the process that attached the devices took longer than 0.1 s"


def test_one_that_can_not_be_killed_is_named_and_the_domain_destroyed(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(ctx)
    bench.start(device("a", "hang"))
    run_until(ctx, lambda: bool(bench.did))
    undone: list[LibxlsrError | None] = []
    with unkillable(monkeypatch):
        bench.attaching.undo(undone.append)
        run_until(ctx, lambda: bool(undone))
    assert re.match(r"the helper process \d+ does not end", str(undone[0]))
    assert bench.did[-1] == f"{DOMID}: destroyed"
    run_until(ctx, lambda: not ctx.registered())


def test_an_abort_waits_for_the_child_before_it_undoes(ctx: Context) -> None:
    bench = Bench(ctx)
    bench.start(device("a", "hang"))
    run_until(ctx, lambda: bool(bench.did))
    assert bench.chain is not None
    bench.chain.abort(Aborted("enough"))
    run_until(ctx, lambda: bool(bench.ended))
    assert isinstance(bench.ended[0], Aborted)
    bench.undo()
    assert bench.did[-1] == f"{DOMID}: destroyed"


def test_nothing_is_destroyed_that_was_not_begun(ctx: Context) -> None:
    bench = Bench(ctx)
    bench.undo()
    assert bench.did == []
