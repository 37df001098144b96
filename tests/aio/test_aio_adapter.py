"""The adapter: what a Context asks for, asyncio's loop and uvloop do."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from libxlsr.aio import Adapter
from libxlsr.events import READ, WRITE, Context, CopyResult, Datacopier, FdEvent, Outcome

from .loops import Run, loop, pipe_holding, run_async

__all__ = ["loop", "run_async"]


def test_a_context_has_one_loop(run_async: Run) -> None:
    async def twice() -> None:
        ctx = Context()
        first = Adapter(ctx)
        with pytest.raises(ValueError, match="another loop"):
            Adapter(ctx)
        first.close()
        Adapter(ctx).close()

    run_async(twice())


def test_what_was_registered_before_is_taken_over(run_async: Run) -> None:
    async def before() -> None:
        ctx = Context()
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        with pipe_holding(b"x") as (read_end, _):
            event = ctx.watch_fd(read_end, READ, lambda ready: told.set_result("fd"))
            timer = ctx.call_later(1000.0, print)
            async with Adapter(ctx):
                assert await told == "fd"
                event.deregister()
                timer.deregister()
        assert ctx.registered() == []

    run_async(before())


def test_timers_come_in_their_order(run_async: Run) -> None:
    async def timers() -> list[str]:
        order: list[str] = []
        over = asyncio.Event()

        def last(name: str) -> None:
            order.append(name)
            over.set()

        async with Adapter() as adapter:
            ctx = adapter.ctx
            ctx.call_later(0.01, last, "later")
            ctx.call_later(0.0, order.append, "sooner")
            ctx.call_soon(order.append, "first")
            ctx.call_later(0.005, order.append, "never").deregister()
            await over.wait()
        return order

    assert run_async(timers()) == ["first", "sooner", "later"]


def test_both_directions_of_an_fd(run_async: Run) -> None:
    async def both() -> set[int]:
        import socket

        ours, theirs = socket.socketpair()
        seen: set[int] = set()
        over = asyncio.Event()

        def ready(bits: int) -> None:
            seen.add(bits)
            if {READ, WRITE} <= seen:
                over.set()

        async with Adapter() as adapter:
            with ours, theirs:
                theirs.send(b"x")
                event = adapter.ctx.watch_fd(ours.fileno(), READ | WRITE, ready)
                await over.wait()
                event.deregister()
        return seen

    assert run_async(both()) >= {READ, WRITE}


def test_a_regular_file_takes_turns_with_the_rest(run_async: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))

    async def turns() -> tuple[int, CopyResult]:
        done: asyncio.Future[CopyResult] = asyncio.get_running_loop().create_future()
        fd = os.open(path, os.O_RDONLY)
        sink = os.open("/dev/null", os.O_WRONLY)
        others = 0
        async with Adapter() as adapter:
            Datacopier(adapter.ctx).copy(fd, sink, done.set_result, what="file", prefix=b"x" * 9)
            while not done.done():
                others += 1
                await asyncio.sleep(0)
            assert adapter.ctx.registered() == []
        os.close(fd)
        os.close(sink)
        return others, done.result()

    others, result = run_async(turns())
    assert result.outcome is Outcome.DONE
    assert result.nbytes == 1 << 20
    assert others > 3


def test_a_number_that_is_given_out_again_in_one_round(run_async: Run) -> None:
    """Closed and made anew inside a callback, while somebody else holds the first file open."""

    async def reuse() -> list[str]:
        heard: list[str] = []
        over = asyncio.Event()
        first_read, first_write = os.pipe()
        held = os.dup(first_read)
        later: list[int] = []
        events: list[FdEvent] = []

        async with Adapter() as adapter:

            def first(ready: int) -> None:
                heard.append("first")  # and its byte stays unread
                events[0].deregister()
                os.close(first_read)
                later.extend(os.pipe())
                assert later[0] == first_read
                events.append(adapter.ctx.watch_fd(later[0], READ, second))
                adapter.ctx.call_later(0.02, os.write, later[1], b"y")

            def second(ready: int) -> None:
                assert os.read(later[0], 9) == b"y"  # blocks if it was called for the first file
                heard.append("second")
                events[1].deregister()
                over.set()

            events.append(adapter.ctx.watch_fd(first_read, READ, first))
            os.write(first_write, b"x")
            await over.wait()
        for fd in (first_write, held, *later):
            os.close(fd)
        return heard

    assert run_async(reuse()) == ["first", "second"]


def test_interest_that_comes_and_goes_in_one_round(run_async: Run) -> None:
    async def flicker() -> None:
        over = asyncio.Event()
        with pipe_holding(b"abc") as (read_end, _):
            async with Adapter() as adapter:

                def ready(bits: int) -> None:
                    event.modify(0)
                    event.modify(READ)
                    if os.read(read_end, 1) == b"c":
                        event.deregister()
                        over.set()

                event = adapter.ctx.watch_fd(read_end, READ, ready)
                await over.wait()

    run_async(flicker())


def test_a_file_that_somebody_closed_reaches_its_owner(run_async: Run) -> None:
    async def closed() -> CopyResult:
        done: asyncio.Future[CopyResult] = asyncio.get_running_loop().create_future()
        read_end, write_end = os.pipe()
        async with Adapter() as adapter:
            os.close(read_end)
            Datacopier(adapter.ctx).read_exactly(read_end, 1, done.set_result, what="byte")
            result = await done
        os.close(write_end)
        return result

    result = run_async(closed())
    assert result.outcome is Outcome.FAILED
    assert result.error is not None


def test_an_exception_in_a_callback_reaches_the_loop_and_the_rest_goes_on(
    run_async: Run, loop: asyncio.AbstractEventLoop
) -> None:
    seen: list[BaseException] = []
    loop.set_exception_handler(lambda loop, context: seen.append(context["exception"]))

    async def failing() -> None:
        over = asyncio.Event()

        def fail() -> None:
            raise ZeroDivisionError

        async with Adapter() as adapter:
            adapter.ctx.call_soon(fail)
            adapter.ctx.call_soon(over.set)
            await over.wait()

    run_async(failing())
    assert [type(error) for error in seen] == [ZeroDivisionError]


def test_a_closed_adapter_has_let_go(run_async: Run, loop: asyncio.AbstractEventLoop) -> None:
    async def closed() -> None:
        adapter = Adapter()
        with pipe_holding(b"x") as (read_end, _):
            called: list[int] = []
            event = adapter.ctx.watch_fd(read_end, READ, called.append)
            timer = adapter.ctx.call_later(0.0, called.append, 0)
            await asyncio.sleep(0)
            adapter.close()
            called.clear()
            await asyncio.sleep(0.01)
            assert called == []
            assert not loop.remove_reader(read_end)
            event.deregister()
            timer.deregister()

    run_async(closed())
