"""A callback on the adapter's context raises: each restore ends with an error, all is undone."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from libxlsr import LibxlsrError, Phase, RestoreResult, TargetError, aio
from libxlsr.aio import adapter as adapter_module
from libxlsr.aio.operation import UNDOING_MAX
from libxlsr.events import Context
from libxlsr.events.waiting import RAISED_MAX
from libxlsr.restoring.helper_limit import HelperLimit
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.target import LibxcDone
from libxlsr.stream.libxc_stream import LibxcStream
from libxlsr.testing.clock import FakeClock
from libxlsr.testing.fake_target import FakeTarget

from .loops import IMAGE, Run, image, loop, pipe_holding, run_async

__all__ = ["image", "loop", "run_async"]


@pytest.fixture(autouse=True)
def reported(loop: asyncio.AbstractEventLoop) -> list[BaseException]:
    """What the loop's exception handler is given."""
    seen: list[BaseException] = []
    loop.set_exception_handler(lambda loop, context: seen.append(context["exception"]))
    return seen


def fail() -> None:
    raise ZeroDivisionError("on the loop")


async def until_memory(restoration: aio.Operation[RestoreResult]) -> None:
    async for progress in restoration:
        if progress.phase is Phase.MEMORY:
            return


async def internal_error(waiting: Coroutine[Any, Any, object]) -> TargetError:
    with pytest.raises(TargetError, match=r"internal error: .* raised ZeroDivisionError") as caught:
        await waiting
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    return caught.value


def test_all_restores_end_and_are_undone_and_the_adapter_goes_on(
    run_async: Run, image: Path, tmp_path: Path, reported: list[BaseException]
) -> None:
    async def restore_two(read_ends: list[int]) -> None:
        async with aio.Adapter(limit=HelperLimit(2)) as adapter:
            async with (
                adapter.restoration(read_ends[0], target="image", output=tmp_path / "0") as first,
                adapter.restoration(read_ends[1], target="image", output=tmp_path / "1") as second,
            ):
                await until_memory(first)
                await until_memory(second)
                adapter.ctx.call_soon(fail)
                errors = [await internal_error(each.result()) for each in (first, second)]
                assert errors[0] is not errors[1]
                assert [error.later for error in errors] == [[], []]
            assert os.listdir(tmp_path) == [image.name]
            assert adapter.ctx.registered() == []
            await aio.restore(image, target="image", output=tmp_path / "2", adapter=adapter)

    with ExitStack() as pipes:
        half = IMAGE[: len(IMAGE) // 2]
        run_async(restore_two([pipes.enter_context(pipe_holding(half))[0] for _ in range(2)]))
    assert [type(error) for error in reported] == [ZeroDivisionError]


class LosingTarget(FakeTarget):
    """Its libxc part raises instead of ending. ``end`` ends it after all."""

    def __init__(self, ctx: Context, raising: Callable[[], None] = fail) -> None:
        super().__init__(ctx)
        self._raising = raising
        self.end: Callable[[], object] = lambda: None

    def restore_libxc(self, stream: LibxcStream, done: LibxcDone) -> None:
        self.end = lambda: done(None, TargetError("late"))
        self._ctx.call_soon(self._raising)


class StoppableTarget(LosingTarget):
    """And an abort ends it."""

    def abort(self, reason: LibxlsrError) -> None:
        self._ctx.call_soon(self.end)


def restored(image: Path, target: FakeTarget, adapter: aio.Adapter) -> Coroutine[Any, Any, object]:
    return aio.awaited(
        lambda ctx, **hooks: restore_ao(ctx, image, target=target, **hooks), adapter=adapter
    )


def test_a_target_whose_callback_raises_is_rolled_back(run_async: Run, image: Path) -> None:
    async def restore() -> None:
        async with aio.Adapter() as adapter:
            target = StoppableTarget(adapter.ctx)
            error = await internal_error(restored(image, target, adapter))
            assert [str(later) for later in error.later] == ["late"]
            assert target.rolled_back
            assert adapter.ctx.registered() == []

    run_async(restore())


def test_one_that_cannot_be_undone_is_left_behind(
    run_async: Run,
    image: Path,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def restore() -> None:
        async with aio.Adapter(Context(clock=clock)) as adapter:
            target = LosingTarget(adapter.ctx)
            waiting = asyncio.ensure_future(internal_error(restored(image, target, adapter)))
            while "abort" not in target.calls:
                await asyncio.sleep(0)
            clock.advance(UNDOING_MAX)
            adapter.ctx.call_soon(int)  # a round, in which the time is looked at
            error = await waiting
            assert [str(later) for later in error.later] == [
                "the operation was not undone to its end"
            ]
            target.end()  # and is undone when that can go on
            while adapter.ctx.registered():
                await asyncio.sleep(0)
            assert target.rolled_back

    run_async(restore())
    assert "an operation was not undone to its end: internal error" in caplog.text


def test_one_that_raises_for_ever_is_left_behind(
    run_async: Run, image: Path, reported: list[BaseException]
) -> None:
    async def restore() -> None:
        def fail_again() -> None:
            if not ended:
                adapter.ctx.call_soon(fail_again)
                fail()

        ended = False
        async with aio.Adapter() as adapter:
            target = LosingTarget(adapter.ctx, fail_again)
            error = await internal_error(restored(image, target, adapter))
            assert len(error.later) == 1
            assert len(reported) >= RAISED_MAX
            ended = True
            target.end()
            while adapter.ctx.registered():
                await asyncio.sleep(0)

    run_async(restore())


def test_one_on_a_closed_adapter_is_undone_whatever_is_raised(
    run_async: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def restore(read_end: int) -> None:
        adapter = aio.Adapter()
        async with adapter.restoration(
            read_end, target="image", output=tmp_path / "guest"
        ) as restoration:
            await until_memory(restoration)
            adapter.close()
            adapter.ctx.call_soon(fail)
        assert adapter.ctx.registered() == []

    with pipe_holding(IMAGE[: len(IMAGE) // 2]) as (read_end, _):
        run_async(restore(read_end))
    assert os.listdir(tmp_path) == []
    assert "while an operation was undone: ZeroDivisionError('on the loop')" in caplog.text


def test_a_loop_that_has_no_room_for_an_fd(
    run_async: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As epoll says where /proc/sys/fs/epoll/max_user_watches are in use."""

    class Full(aio.driver.Driver):
        full = True

        def _register(self, fd: int, interest: int) -> None:
            if Full.full:
                Full.full = False
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            super()._register(fd, interest)

    async def restore(read_end: int) -> None:
        async with aio.Adapter() as adapter:
            with pytest.raises(TargetError, match="No space left on device"):
                await aio.restore(
                    read_end, target="image", output=tmp_path / "guest", adapter=adapter
                )
            assert adapter.ctx.registered() == []

    monkeypatch.setattr(adapter_module, "Driver", Full)
    with pipe_holding(IMAGE[: len(IMAGE) // 2]) as (read_end, _):
        run_async(restore(read_end))
    assert os.listdir(tmp_path) == []
