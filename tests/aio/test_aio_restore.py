"""Restores on asyncio's loop and on uvloop: results, progress, and cancelling at every stage.

That no fd, child and file is left is checked after each test by the fixture ``nothing_leaks``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path

import pytest

from libxlsr import (
    Aborted,
    Phase,
    RestoreOptions,
    RestoreResult,
    StreamError,
    TimedOut,
    UsageError,
    aio,
)
from libxlsr.formats import libxl, xl
from libxlsr.restoring.helper_limit import HelperLimit
from libxlsr.stream.reader_machine import State
from libxlsr.testing.leaks import children

from .loops import IMAGE, PATIENCE, Run, image, loop, pipe_holding, run_async

__all__ = ["image", "loop", "run_async"]

LIBXL_START = IMAGE.index(b"LibxlFmt")
LIBXC_START = LIBXL_START + libxl.HEADER_SIZE + libxl.RECORD_HEADER_SIZE

STAGES = {
    "before the first byte": 0,
    "in the xl header": 20,
    "in the configuration": xl.FIXED_HEADER_SIZE + 9,
    "in the libxl header": LIBXL_START + 5,
    "in the libxc image header": LIBXC_START + 3,
    "in memory": len(IMAGE) * 2 // 3,
    "in the emulator's record": len(IMAGE) - 40,
}


def test_a_file_is_restored(run_async: Run, image: Path, tmp_path: Path) -> None:
    result = run_async(aio.restore(image, target="image", output=tmp_path / "guest"))
    assert isinstance(result, RestoreResult)
    assert (tmp_path / "guest" / "image.json").is_file()
    assert result.stream_bytes == len(IMAGE)


def test_what_follows_the_stream_on_an_fd_stays_there(run_async: Run, tmp_path: Path) -> None:
    with pipe_holding(IMAGE[:30000]) as (read_end, write_end):

        async def feed() -> None:
            restoring = asyncio.ensure_future(
                aio.restore(read_end, target="image", output=tmp_path / "guest")
            )
            rest = memoryview(IMAGE + b"handshake")[30000:]
            os.set_blocking(write_end, False)
            while rest:
                try:
                    rest = rest[os.write(write_end, rest) :]
                except BlockingIOError:
                    await asyncio.sleep(0)
            await restoring

        run_async(feed())
        assert os.read(read_end, 100) == b"handshake"


def test_a_damaged_image_is_a_stream_error(run_async: Run, tmp_path: Path) -> None:
    path = tmp_path / "guest.save"
    path.write_bytes(IMAGE[:-5])
    with pytest.raises(StreamError, match=r"truncated|ends"):
        run_async(aio.restore(path, target="image", output=tmp_path / "guest"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["guest.save"]


def test_a_named_pipe_that_nobody_writes_into_holds_nothing_up(
    run_async: Run, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    output = tmp_path / "guest"
    with pytest.raises(TimedOut, match=r"not done within 0\.1 s"):
        run_async(aio.restore(tmp_path / "pipe", RestoreOptions("image", output, deadline=0.1)))
    assert os.listdir(tmp_path) == ["pipe"]


def test_wrong_options_are_refused_at_once(run_async: Run, image: Path) -> None:
    with pytest.raises(UsageError, match="output directory"):
        run_async(aio.restore(image, target="image"))


@pytest.mark.parametrize("stage", STAGES)
def test_cancelling_undoes_everything(run_async: Run, tmp_path: Path, stage: str) -> None:
    async def cancel_there(read_end: int) -> None:
        async with aio.Adapter() as adapter:
            task = asyncio.ensure_future(
                aio.restore(read_end, target="image", output=tmp_path / "guest", adapter=adapter)
            )
            await _until_drained(read_end)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert adapter.ctx.registered() == []

    with pipe_holding(IMAGE[: STAGES[stage]]) as (read_end, _write_end):
        run_async(cancel_there(read_end))
    assert list(tmp_path.iterdir()) == []


async def _until_drained(read_end: int) -> None:
    """Until the restore has read all that the pipe holds, and has asked for more."""
    import fcntl
    import struct
    import termios

    while struct.unpack("i", fcntl.ioctl(read_end, termios.FIONREAD, b"\0" * 4))[0]:
        await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)


async def _stop_helpers() -> None:
    """Stop this process's helpers: none can end before it goes on, whatever it is sent."""
    for helper in children():
        os.kill(helper, signal.SIGSTOP)
    while not all(state.endswith(" T") for state in children().values()):
        await asyncio.sleep(0)


def _let_helpers_go_on() -> None:
    for helper in children():
        os.kill(helper, signal.SIGCONT)


def test_a_second_cancel_waits_too(
    run_async: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def cancel_twice(read_end: int) -> None:
        phases: list[Phase] = []
        async with aio.Adapter() as adapter:

            async def watched() -> None:
                async with adapter.restoration(
                    read_end, target="image", output=tmp_path / "guest"
                ) as restoration:
                    async for progress in restoration:
                        phases.append(progress.phase)

            task = asyncio.ensure_future(watched())
            while Phase.MEMORY not in phases:
                await asyncio.sleep(0)
            await _stop_helpers()
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not task.done()
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done()
            _let_helpers_go_on()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert adapter.ctx.registered() == []

    with pipe_holding(IMAGE[: len(IMAGE) // 2]) as (read_end, _write_end):
        run_async(cancel_twice(read_end))
    assert list(tmp_path.iterdir()) == []
    assert caplog.text == ""  # nothing went wrong, so nothing is said


def test_wait_for_ends_it(run_async: Run, tmp_path: Path) -> None:
    with pipe_holding(IMAGE[:1000]) as (read_end, _), pytest.raises(asyncio.TimeoutError):
        run_async(
            asyncio.wait_for(aio.restore(read_end, target="image", output=tmp_path / "guest"), 0.01)
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is of Python 3.11")
def test_timeout_ends_it(run_async: Run, tmp_path: Path) -> None:
    async def within(read_end: int) -> None:
        if sys.version_info >= (3, 11):
            async with asyncio.timeout(0.01):
                await aio.restore(read_end, target="image", output=tmp_path / "guest")

    with pipe_holding(IMAGE[:1000]) as (read_end, _write_end), pytest.raises(TimeoutError):
        run_async(within(read_end))
    assert list(tmp_path.iterdir()) == []


def test_a_deadline_is_an_error_of_libxlsr(run_async: Run, tmp_path: Path) -> None:
    with pipe_holding(IMAGE[:1000]) as (read_end, _write_end), pytest.raises(TimedOut):
        run_async(aio.restore(read_end, RestoreOptions("image", tmp_path / "guest", deadline=0.01)))
    assert list(tmp_path.iterdir()) == []


def test_progress_tells_each_phase_in_order(run_async: Run, image: Path, tmp_path: Path) -> None:
    async def phases() -> list[Phase]:
        seen: list[Phase] = []
        async with (
            aio.Adapter() as adapter,
            adapter.restoration(image, target="image", output=tmp_path / "guest") as restoration,
        ):
            async for progress in restoration:
                if progress.phase not in seen:
                    seen.append(progress.phase)
            await restoration.result()
        return seen

    assert run_async(phases()) == [
        Phase.PREPARING,
        Phase.MEMORY,
        Phase.RECORDS,
        Phase.FINISHING,
    ]


def test_nobody_has_to_read_the_progress(run_async: Run, image: Path, tmp_path: Path) -> None:
    async def unread() -> int:
        async with (
            aio.Adapter() as adapter,
            adapter.restoration(image, target="image", output=tmp_path / "guest") as restoration,
        ):
            await restoration.result()
            return len([progress async for progress in restoration])

    assert run_async(unread()) <= len(Phase)


def test_leaving_the_block_aborts(run_async: Run, tmp_path: Path) -> None:
    async def leave(read_end: int) -> None:
        async with (
            aio.Adapter() as adapter,
            adapter.restoration(read_end, target="image", output=tmp_path / "guest") as restoration,
        ):
            async for progress in restoration:
                if progress.phase is Phase.MEMORY:
                    raise ZeroDivisionError

    with pipe_holding(IMAGE[:-9]) as (read_end, _write_end), pytest.raises(ZeroDivisionError):
        run_async(leave(read_end))
    assert list(tmp_path.iterdir()) == []


def test_abort_gives_its_reason(run_async: Run, tmp_path: Path) -> None:
    async def abort(read_end: int) -> None:
        async with (
            aio.Adapter() as adapter,
            adapter.restoration(read_end, target="image", output=tmp_path / "guest") as restoration,
        ):
            restoration.abort(Aborted("the operator said so"))
            restoration.abort()
            await restoration.result()

    with pipe_holding(b"") as (read_end, _), pytest.raises(Aborted, match="the operator said so"):
        run_async(abort(read_end))


def test_a_cancel_that_comes_too_late_is_logged(
    run_async: Run, image: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def too_late(fd: int) -> None:
        def cancel_when_complete(trigger: str, source: State, dest: State) -> None:
            if trigger == "complete":
                task.cancel()

        options = RestoreOptions("image", tmp_path / "guest", trace=cancel_when_complete)
        task = asyncio.ensure_future(aio.restore(fd, options))
        with pytest.raises(asyncio.CancelledError):
            await task

    fd = os.open(image, os.O_RDONLY)
    try:
        with caplog.at_level(logging.WARNING, "libxlsr.aio"):
            run_async(too_late(fd))
    finally:
        os.close(fd)
    assert (tmp_path / "guest" / "image.json").is_file()
    assert "cancelled too late" in caplog.text


def test_a_loop_that_is_closed_early_leaves_nothing(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    async def until_memory(read_end: int) -> asyncio.Task[RestoreResult]:
        task = asyncio.ensure_future(
            aio.restore(read_end, target="image", output=tmp_path / "guest")
        )
        while not list(tmp_path.iterdir()):
            await asyncio.sleep(0)
        return task

    with pipe_holding(IMAGE[: len(IMAGE) // 2]) as (read_end, _write_end):
        loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed"
        coroutine = loop.run_until_complete(until_memory(read_end)).get_coro()
        loop.close()
        assert isinstance(coroutine, Coroutine)
        coroutine.close()  # as the garbage collector does
    assert list(tmp_path.iterdir()) == []


def test_many_share_an_adapter(run_async: Run, tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(IMAGE)
    (tmp_path / "bad").write_bytes(IMAGE[:3000])

    async def many() -> list[object]:
        async with aio.Adapter() as adapter:
            return await asyncio.gather(
                *(
                    aio.restore(
                        tmp_path / ("bad" if number % 3 == 2 else "good"),
                        target="image",
                        output=tmp_path / f"guest-{number}",
                        adapter=adapter,
                    )
                    for number in range(6)
                ),
                return_exceptions=True,
            )

    kinds = [type(outcome) for outcome in run_async(many())]
    assert kinds == [RestoreResult, RestoreResult, StreamError] * 2


def test_an_adapter_that_is_left_aborts_what_runs(run_async: Run, tmp_path: Path) -> None:
    async def leave(read_end: int) -> None:
        async with aio.Adapter() as adapter:
            task = asyncio.ensure_future(
                aio.restore(read_end, target="image", output=tmp_path / "guest", adapter=adapter)
            )
            while not list(tmp_path.iterdir()):
                await asyncio.sleep(0)
        with pytest.raises(Aborted, match="abandoned"):
            await task

    with pipe_holding(IMAGE[: len(IMAGE) // 2]) as (read_end, _write_end):
        run_async(leave(read_end))
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_undoes_all_at_once_and_to_the_end(
    run_async: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Three helpers that can't end before they go on, and a cancel while they are waited for."""
    count = 3
    phases: list[list[Phase]] = [[] for _ in range(count)]

    async def watched(adapter: aio.Adapter, number: int, read_end: int) -> None:
        output = tmp_path / f"guest-{number}"
        async with adapter.restoration(read_end, target="image", output=output) as restoration:
            async for progress in restoration:
                phases[number].append(progress.phase)
            await restoration.result()

    async def until_all_are_in(phase: Phase) -> None:
        while not all(phase in seen for seen in phases):
            await asyncio.sleep(0)

    async def leave(read_ends: list[int]) -> None:
        adapter = aio.Adapter(limit=HelperLimit(count))
        tasks: list[asyncio.Task[None]] = []

        async def body() -> None:
            async with adapter:
                tasks.extend(
                    asyncio.ensure_future(watched(adapter, number, read_end))
                    for number, read_end in enumerate(read_ends)
                )
                await until_all_are_in(Phase.MEMORY)
                await _stop_helpers()

        leaving = asyncio.ensure_future(body())
        await until_all_are_in(Phase.UNDOING)
        assert not any(task.done() for task in tasks)
        leaving.cancel()
        _let_helpers_go_on()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert adapter.ctx.registered() == []
        for task in tasks:
            with pytest.raises(Aborted, match="abandoned"):
                await task

    with ExitStack() as pipes:
        half = IMAGE[: len(IMAGE) // 2]
        run_async(leave([pipes.enter_context(pipe_holding(half))[0] for _ in range(count)]))
    assert list(tmp_path.iterdir()) == []
    assert caplog.text == ""


def test_a_closed_adapter_starts_nothing(run_async: Run, image: Path, tmp_path: Path) -> None:
    async def closed() -> None:
        adapter = aio.Adapter()
        before = adapter.restoration(image, target="image", output=tmp_path / "guest")
        adapter.close()
        with pytest.raises(RuntimeError, match="adapter is closed"):
            async with before:
                pass
        with pytest.raises(RuntimeError, match="adapter is closed"):
            await aio.restore(image, target="image", output=tmp_path / "guest", adapter=adapter)
        with pytest.raises(RuntimeError, match="adapter is closed"):
            async with adapter:
                pass

    run_async(closed())
    assert [entry.name for entry in tmp_path.iterdir()] == [image.name]


def test_closing_an_adapter_ends_what_runs(run_async: Run, tmp_path: Path) -> None:
    async def close(first: int, second: int) -> None:
        adapter = aio.Adapter(limit=HelperLimit(2))

        async def iterate() -> None:
            async with adapter.restoration(
                second, target="image", output=tmp_path / "second"
            ) as restoration:
                async for _progress in restoration:
                    pass

        tasks = [
            asyncio.ensure_future(
                aio.restore(first, target="image", output=tmp_path / "first", adapter=adapter)
            ),
            asyncio.ensure_future(iterate()),
        ]
        while len(list(tmp_path.iterdir())) < 2:
            await asyncio.sleep(0)
        adapter.close()
        for task in tasks:
            with pytest.raises(RuntimeError, match="adapter is closed"):
                await task

    half = IMAGE[: len(IMAGE) // 2]
    with pipe_holding(half) as (first, _), pipe_holding(half) as (second, _):
        run_async(close(first, second))
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_a_spare_helper_is_noticed(run_async: Run) -> None:
    async def end_it() -> None:
        async with aio.Adapter(spare_helper=True):
            (pid,) = children()
            os.kill(pid, signal.SIGKILL)
            while children():
                await asyncio.sleep(0.01)

    run_async(end_it())


def test_the_daemon_keeps_its_signals_threads_and_children(
    run_async: Run, image: Path, tmp_path: Path
) -> None:
    async def beside_children() -> list[int]:
        statuses: list[int] = []

        async def own_child(number: int) -> None:
            process = await asyncio.create_subprocess_exec("sh", "-c", f"exit {number}")
            statuses.append(await process.wait())

        async with aio.Adapter() as adapter:
            restoration = adapter.restoration(image, target="image", output=tmp_path / "guest")
            async with restoration:
                async for progress in restoration:
                    if progress.phase is Phase.MEMORY:
                        break
                assert children()
                forked = os.fork()
                if forked == 0:
                    os._exit(7)
                await asyncio.gather(
                    restoration.result(), *(own_child(number) for number in range(5))
                )
        assert os.WEXITSTATUS(os.waitpid(forked, 0)[1]) == 7
        return sorted(status for status in statuses if status is not None)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT)}
    assert run_async(beside_children()) == [0, 1, 2, 3, 4]
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_there_is_no_thread(image: Path, tmp_path: Path) -> None:
    async def counted() -> set[int]:
        counts = set()
        async with (
            aio.Adapter() as adapter,
            adapter.restoration(image, target="image", output=tmp_path / "guest") as restoration,
        ):
            async for _progress in restoration:
                counts.add(threading.active_count())
        return counts

    before = threading.active_count()
    assert asyncio.run(asyncio.wait_for(counted(), PATIENCE)) == {before}


def test_importing_libxlsr_does_not_import_asyncio() -> None:
    code = (
        "import sys, libxlsr; libxlsr.restore; libxlsr.restore_ao; libxlsr.run; "
        "sys.exit('asyncio' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
