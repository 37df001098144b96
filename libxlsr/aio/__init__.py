"""asyncio: operations to be awaited, cancelled and watched from a daemon's own loop.

::

    result = await libxlsr.aio.restore("guest.save", target="image", output="guest")

    async with libxlsr.aio.Adapter() as adapter:           # many restores, one limit on helpers
        async with adapter.restoration(fd, target="image", output="guest") as restoration:
            async for progress in restoration:
                print(progress.phase, progress.position)
            result = await restoration.result()

Whatever else is an ao is awaited in the same way, by `awaited` or `Adapter.operation`.

Cancelling aborts the operation and waits until everything is undone; a second cancel is noted and
waits as well. So ``asyncio.timeout`` and ``asyncio.wait_for`` end an operation like any deadline, a
little later than they say. All events run on the loop, in its thread; there is no other thread, no
signal handler, no child watcher. The one thing that holds the loop up is the start of a helper
process (fork and exec, some milliseconds).

A loop that is closed under an operation can undo nothing any more. Then the coroutine does it,
blocking, when it is closed or collected. (`asyncio.run` never comes to that: it cancels first.)

An fd that is handed over must not have been read by a transport or a StreamReader of asyncio: what
these have read ahead is lost to the restore. `driver.Driver` says how the loop is used.
"""

from __future__ import annotations

import os
from typing import TypeVar

from libxlsr.aio.adapter import Adapter
from libxlsr.aio.operation import OnProgress, Operation, StartAo
from libxlsr.restoring.options import RestoreOptions, TargetName
from libxlsr.restoring.progress import RestoreResult
from libxlsr.source.path_or_fd import PathOrFd

__all__ = ["Adapter", "Operation", "awaited", "restore"]

T = TypeVar("T")


async def awaited(
    start: StartAo[T], *, on_progress: OnProgress = None, adapter: Adapter | None = None
) -> T:
    """The result of the operation that ``start`` starts.

    ``start(ctx, on_done=..., on_progress=...)`` returns its ao, as every ``*_ao`` function does::

        await aio.awaited(lambda ctx, **hooks: extract_ao(ctx, source, output, request, **hooks))

    When the task is cancelled, the operation is aborted, and CancelledError comes out when
    everything is undone. One that was already done when the cancel came can't be undone: that is
    logged as a warning. ``adapter`` is to be shared by those who run many at a time; without one
    the operation has its own.

    Raises the operation's error, and then everything has been undone.
    """
    used = Adapter() if adapter is None else adapter
    try:
        async with used.operation(start, on_progress=on_progress) as operation:
            return await operation.result()
    finally:
        if adapter is None:
            used.close()


async def restore(
    source: PathOrFd,
    options: RestoreOptions | None = None,
    *,
    target: TargetName | None = None,
    output: str | os.PathLike[str] | None = None,
    on_progress: OnProgress = None,
    adapter: Adapter | None = None,
) -> RestoreResult:
    """Restore the image at ``source``; return when the guest is there.

    As `libxlsr.restore`, without blocking, and to be cancelled as `awaited` says. Without an
    ``adapter`` no limit on helpers counts it but the options' own.
    """
    used = Adapter() if adapter is None else adapter
    try:
        async with used.restoration(
            source, options, target=target, output=output, on_progress=on_progress
        ) as restoration:
            return await restoration.result()
    finally:
        if adapter is None:
            used.close()
