"""A daemon that forks in the middle of a restore: the child undoes nothing of its parent's.

The parent's restore is held until the child has ended, and must end well: what the child took out
of the epoll that both have would be missed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from libxlsr import Phase, RestoreResult, aio

from ..forks import fork_and_unwind, in_a_fork, unwound_here
from .loops import IMAGE, Run, loop, pipe_holding, run_async

__all__ = ["loop", "run_async"]

HALF = len(IMAGE) // 2


@asynccontextmanager
async def in_memory(
    read_end: int, output: Path
) -> AsyncIterator[tuple[aio.Adapter, aio.Operation[RestoreResult]]]:
    """A restore whose helper has started and waits for the image's second half."""
    async with (
        aio.Adapter() as adapter,
        adapter.restoration(read_end, target="image", output=output) as restoration,
    ):
        async for progress in restoration:
            if progress.phase is Phase.MEMORY:
                break
        yield adapter, restoration


async def feed_and_finish(restoration: aio.Operation[RestoreResult], write_end: int) -> None:
    os.write(write_end, IMAGE[HALF:])
    await restoration.result()


def test_a_child_that_leaves_the_blocks(run_async: Run, tmp_path: Path) -> None:
    async def fork(read_end: int, write_end: int) -> None:
        async with in_memory(read_end, tmp_path / "guest") as (_, restoration):
            fork_and_unwind()
            await feed_and_finish(restoration, write_end)

    with pipe_holding(IMAGE[:HALF]) as ends, unwound_here():
        run_async(fork(*ends))
    assert (tmp_path / "guest" / "image.json").exists()


def test_a_child_that_cancels_all_tasks_as_asyncio_run_does(
    run_async: Run, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    """It was forked in a callback, and its tasks are still in their blocks."""

    async def fork(read_end: int, write_end: int) -> None:
        async with in_memory(read_end, tmp_path / "guest") as (adapter, restoration):
            adapter.ctx.call_soon(fork_and_unwind)
            adapter.ctx.call_soon(os.write, write_end, IMAGE[HALF:])
            await restoration.result()

    def cancel_all() -> None:
        tasks = asyncio.all_tasks(loop)
        assert tasks
        for task in tasks:
            task.cancel()
        ends = loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        # uvloop goes on with the round in which the child left, and one may be told before.
        allowed = (asyncio.CancelledError, RuntimeError)
        assert [end for end in ends if not isinstance(end, allowed)] == []

    with pipe_holding(IMAGE[:HALF]) as ends, unwound_here(cancel_all):
        run_async(fork(*ends))
    assert (tmp_path / "guest" / "image.json").exists()


def test_a_child_that_throws_a_coroutine_away(run_async: Run, tmp_path: Path) -> None:
    async def fork(read_end: int, write_end: int) -> None:
        started = asyncio.Event()

        async def restore() -> None:
            async with in_memory(read_end, tmp_path / "guest") as (_, restoration):
                started.set()
                await restoration.result()

        task = asyncio.ensure_future(restore())
        await started.wait()
        await asyncio.sleep(0)
        coroutine = task.get_coro()
        assert isinstance(coroutine, Coroutine)
        in_a_fork(coroutine.close)
        os.write(write_end, IMAGE[HALF:])
        await task

    with pipe_holding(IMAGE[:HALF]) as ends:
        run_async(fork(*ends))
    assert (tmp_path / "guest" / "image.json").exists()


def test_a_child_that_closes_the_adapter(run_async: Run, tmp_path: Path) -> None:
    async def fork(read_end: int, write_end: int) -> None:
        async with in_memory(read_end, tmp_path / "guest") as (adapter, restoration):
            in_a_fork(adapter.close)
            await feed_and_finish(restoration, write_end)

    with pipe_holding(IMAGE[:HALF]) as ends:
        run_async(fork(*ends))
    assert (tmp_path / "guest" / "image.json").exists()


def test_a_child_that_goes_on_waiting_is_told(run_async: Run, tmp_path: Path) -> None:
    async def enter(read_end: int) -> aio.Operation[RestoreResult]:
        entered = adapter.restoration(read_end, target="image", output=tmp_path / "guest")
        return await entered.__aenter__()

    async def make() -> aio.Adapter:
        return aio.Adapter()

    async def iterate(restoration: aio.Operation[RestoreResult]) -> None:
        async for _progress in restoration:
            pass

    def wait_in_the_child() -> None:
        adapter.ctx.call_soon(print)  # the loop has a round to run, as it would sooner or later
        for waiting in (restoration.result(), iterate(restoration), enter(read_end)):
            with pytest.raises(RuntimeError, match="the process that forked this one"):
                run_async(waiting)

    async def finish(write_end: int) -> None:
        async with adapter:
            await feed_and_finish(restoration, write_end)

    with pipe_holding(IMAGE[:HALF]) as (read_end, write_end):
        adapter: aio.Adapter = run_async(make())
        restoration: aio.Operation[RestoreResult] = run_async(enter(read_end))
        in_a_fork(wait_in_the_child)
        run_async(finish(write_end))
    assert (tmp_path / "guest" / "image.json").exists()
