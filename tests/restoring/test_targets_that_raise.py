"""A target must not raise. If one does, its call has failed, and all is undone all the same."""

from __future__ import annotations

import pytest

from libxlsr.errors import Aborted, LibxlsrError, TargetError
from libxlsr.events import Context
from libxlsr.restoring.operation import restore_ao
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.fake_target import FakeTarget
from libxlsr.testing.feeding import feed
from libxlsr.testing.stepping import run_until

DATA = StreamBuilder("hvm", pages=4, xenstore=[("physmap/a0000/size", "20000")]).build()
CALLS = ["prepare", "restore_libxc", "emulator_xenstore_data", "emulator_context", "finish"]


def raise_in(target: FakeTarget, *names: str) -> None:
    def on_call(name: str) -> None:
        if name in names:
            raise ZeroDivisionError(name)

    target.on_call = on_call


def error_of(ctx: Context, target: FakeTarget) -> TargetError:
    with feed("file", DATA) as fd:
        ao = restore_ao(ctx, fd, target=target)
        run_until(ctx, lambda: ao.done)
    with pytest.raises(TargetError) as caught:
        ao.result()
    return caught.value


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_raises_has_failed(ctx: Context, name: str) -> None:
    target = FakeTarget(ctx)
    raise_in(target, name)
    error = error_of(ctx, target)
    assert f"ZeroDivisionError: {name}" in str(error)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert target.calls[-2:] == [name, "rollback"]


def test_a_rollback_that_raises_is_a_later_error(ctx: Context) -> None:
    target = FakeTarget(ctx)
    raise_in(target, "finish", "rollback")
    (later,) = error_of(ctx, target).later
    assert "ZeroDivisionError: rollback" in str(later)


def test_an_abort_that_raises_is_a_later_error(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = FakeTarget(ctx, held=["prepare"])
    with feed("file", DATA) as fd:
        ao = restore_ao(ctx, fd, target=target)
        run_until(ctx, lambda: target.busy)
        stop = target.abort

        def abort(reason: LibxlsrError) -> None:
            stop(reason)
            raise ZeroDivisionError("abort")

        monkeypatch.setattr(target, "abort", abort)
        ao.abort()
        run_until(ctx, lambda: ao.done)
    with pytest.raises(Aborted) as caught:
        ao.result()
    assert ["ZeroDivisionError: abort" in str(error) for error in caught.value.later] == [True]
    assert target.rolled_back
