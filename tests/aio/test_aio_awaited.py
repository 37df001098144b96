"""Whatever is an ao can be awaited, watched and cancelled."""

from __future__ import annotations

import asyncio
import lzma
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import libxlsr
from libxlsr import Ao, Context, Progress, TargetError, TimedOut, aio
from libxlsr.testing.fake_target import FakeTarget
from libxlsr.tools.convert.operation import convert_ao

from .loops import IMAGE, Run, image, loop, pipe_holding, run_async

__all__ = ["image", "loop", "run_async"]


def test_another_operation_is_awaited(run_async: Run, image: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    written = run_async(
        aio.awaited(
            lambda ctx, **hooks: convert_ao(ctx, image, tmp_path / "small", codec="xz", **hooks),
            on_progress=seen.append,
        )
    )
    assert Path(written.path) == tmp_path / "small"
    assert lzma.decompress((tmp_path / "small").read_bytes()) == IMAGE
    assert seen


@pytest.mark.parametrize("deadline", [None, 0.01])
def test_another_operation_that_is_cancelled_or_late_leaves_nothing(
    run_async: Run, tmp_path: Path, deadline: float | None
) -> None:
    async def convert(read_end: int) -> None:
        await aio.awaited(
            lambda ctx, **hooks: convert_ao(
                ctx, read_end, tmp_path / "small", compact=True, deadline=deadline, **hooks
            )
        )

    async def cancelled(read_end: int) -> None:
        task = asyncio.ensure_future(convert(read_end))
        while not os.listdir(tmp_path):
            await asyncio.sleep(0)
        if deadline is None:
            task.cancel()
        with pytest.raises(asyncio.CancelledError if deadline is None else TimedOut):
            await task

    with pipe_holding(IMAGE[: len(IMAGE) // 2]) as (read_end, _write_end):
        run_async(cancelled(read_end))
    assert os.listdir(tmp_path) == []


def test_an_operation_of_the_caller_s_own(run_async: Run) -> None:
    def start(ctx: Context, **hooks: Any) -> Ao[int]:
        ao: Ao[int] = Ao(ctx, **hooks)
        ctx.call_soon(ao.complete, 7)
        return ao

    assert run_async(aio.awaited(start)) == 7


def test_an_error_at_the_start_is_the_operation_s(run_async: Run, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="can't open"):
        run_async(
            aio.awaited(
                lambda ctx, **hooks: convert_ao(
                    ctx, tmp_path / "none", tmp_path / "small", compact=True, **hooks
                )
            )
        )
    assert os.listdir(tmp_path) == []


def test_what_the_progress_callback_raises_ends_its_operation_alone(
    run_async: Run, image: Path, tmp_path: Path
) -> None:
    def on_progress(progress: Progress) -> None:
        raise ZeroDivisionError

    async def restore() -> None:
        async with aio.Adapter() as adapter:
            target = FakeTarget(adapter.ctx, held={"finish"})
            async with adapter.operation(
                lambda ctx, **hooks: libxlsr.restore_ao(ctx, image, target=target, **hooks)
            ) as other:
                with pytest.raises(ZeroDivisionError):
                    await aio.restore(
                        image,
                        target="image",
                        output=tmp_path / "guest",
                        on_progress=on_progress,
                        adapter=adapter,
                    )
                assert os.listdir(tmp_path) == [image.name]
                other.abort(TargetError("enough"))
                with pytest.raises(TargetError, match="enough"):
                    await other.result()

    run_async(restore())


def test_aio_is_there_without_an_import_of_its_own() -> None:
    code = "import libxlsr; print(libxlsr.aio.restore.__name__, 'aio' in dir(libxlsr))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "restore True\n"
