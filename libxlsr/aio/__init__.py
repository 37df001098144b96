"""asyncio: a restore to be awaited, cancelled and watched from a daemon's own loop.

::

    result = await libxlsr.aio.restore("guest.save", target="image", output="guest")

    async with libxlsr.aio.Adapter() as adapter:           # many restores, one limit on helpers
        async with adapter.restoration(fd, target="image", output="guest") as restoration:
            async for progress in restoration:
                print(progress.phase, progress.position)
            result = await restoration.result()

Cancelling aborts the restore and waits until everything is undone; a second cancel is noted and
waits as well. So ``asyncio.timeout`` and ``asyncio.wait_for`` end a restore like any deadline, a
little later than they say. All events run on the loop, in its thread; there is no other thread, no
signal handler, no child watcher. The one thing that holds the loop up is the start of a helper
process (fork and exec, some milliseconds).

A loop that is closed under a restore can undo nothing any more. Then the coroutine does it,
blocking, when it is closed or collected. (`asyncio.run` never comes to that: it cancels first.)

An fd that is handed over must not have been read by a transport or a StreamReader of asyncio: what
these have read ahead is lost to the restore. `driver.Driver` says how the loop is used.
"""

from __future__ import annotations

import os

from libxlsr.aio.adapter import Adapter
from libxlsr.aio.restoration import Restoration
from libxlsr.restoring.progress import RestoreResult
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.restoring.xen_target import XenOptions
from libxlsr.source.path_or_fd import Source
from libxlsr.stream.reader_machine import Trace

__all__ = ["Adapter", "Restoration", "restore"]


async def restore(
    source: Source,
    *,
    target: str = "auto",
    output: str | os.PathLike[str] | None = None,
    xen: XenOptions | None = None,
    deadline: float | None = None,
    timeouts: Timeouts | None = None,
    legacy: bool = False,
    trace: Trace | None = None,
    name: str | None = None,
    adapter: Adapter | None = None,
) -> RestoreResult:
    """Restore the image at ``source``; return when the guest is there.

    As `libxlsr.restore`, without blocking. When the task is cancelled, the restore is aborted, and
    CancelledError comes out when everything is undone. A restore that was already done when the
    cancel came can't be undone: that is logged as a warning.

    ``timeouts``, ``trace`` and ``name`` are as in `libxlsr.restore_ao`. ``adapter`` is to be shared
    by those who restore many at a time; without one the restore makes its own, and no limit on
    helpers counts it.

    Raises an error of `libxlsr.errors`, and then everything has been undone.
    """
    used = Adapter() if adapter is None else adapter
    try:
        async with used.restoration(
            source,
            target=target,
            output=output,
            xen=xen,
            deadline=deadline,
            timeouts=timeouts,
            legacy=legacy,
            trace=trace,
            name=name,
        ) as restoration:
            return await restoration.result()
    finally:
        if adapter is None:
            used.close()
