"""Restores from the library's side, as the tests here start them."""

from __future__ import annotations

import dataclasses
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from libxlsr.errors import Aborted
from libxlsr.events import Ao, Context, CopyResult, Datacopier, run
from libxlsr.events.loop import Waiter
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import Phase, Progress, RestoreResult
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.restoring.xen_target import XenTarget

from .guests import wait_until, xl
from .state import HostState

PIPE_SIZE = 1 << 20


def restore(
    fd: int,
    options: RestoreOptions | None = None,
    *,
    to_eof: bool = True,
    timeouts: Timeouts | None = None,
) -> RestoreResult:
    """Restore what is on ``fd``; whatever comes of it, nothing is left on the event loop."""
    ctx = Context()
    wanted = dataclasses.replace(
        options or RestoreOptions(target="xen"), to_eof=to_eof, timeouts=timeouts or Timeouts()
    )
    ao = restore_ao(ctx, fd, wanted, target=XenTarget(ctx, wanted))
    run(ctx, lambda: ao.done)
    assert ctx.registered() == []
    return ao.result()


def restore_file(
    path: Path, options: RestoreOptions | None = None, *, timeouts: Timeouts | None = None
) -> RestoreResult:
    """Restore a file, and see that it was read to its end, to the byte."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        result = restore(fd, options, timeouts=timeouts)
        assert os.lseek(fd, 0, os.SEEK_CUR) == path.stat().st_size
        return result
    finally:
        os.close(fd)


def interrupted(
    image: bytes, after: int, act: Callable[[Ao[Any], XenTarget], object]
) -> Ao[RestoreResult]:
    """Restore from a pipe that gives ``after`` bytes and no more, then act; the ended operation.

    The pipe, not the clock, decides where the restore is when ``act`` comes, to within what a pipe
    holds.
    """
    ctx = Context()
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(write_fd, False)
    # Sixteen times the usual: there are a hundred such restores, under emulation.
    fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    try:
        target = XenTarget(ctx)
        ao = restore_ao(ctx, read_fd, target=target)
        feeder = Datacopier(ctx)

        def fed(_result: CopyResult) -> None:
            act(ao, target)

        feeder.write(write_fd, memoryview(image)[:after], fed, what="the image")
        run(ctx, lambda: ao.done)
        feeder.kill()
        assert ctx.registered() == []
    finally:
        os.close(read_fd)
        os.close(write_fd)
    return ao


def aborted_while_finishing(path: Path, after: int) -> Ao[RestoreResult]:
    """Restore a file and abort when the stream was read to its end, ``after`` callbacks later.

    The ended operation; an abort that came too late leaves the guest there.
    """
    ctx = Context()
    phases: list[Phase] = []

    def note(progress: Progress) -> None:
        phases.append(progress.phase)

    left = after
    with path.open("rb") as image, Waiter() as waiter:
        ao = restore_ao(
            ctx,
            image.fileno(),
            RestoreOptions(to_eof=True),
            target=XenTarget(ctx),
            on_progress=note,
        )
        while not ao.done:
            if not ctx.step():
                ctx.gather(waiter.wait(ctx.prepare()))
            elif Phase.FINISHING in phases:
                if left == 0:
                    ao.abort()
                left -= 1
        while ctx.step():
            pass
        assert ctx.registered() == []
    return ao


def was_undone(ao: Ao[RestoreResult], before: HostState) -> bool:
    """Whether the abort came in time. If not, the guest is destroyed, and nothing of it is left."""
    try:
        guest = ao.result().guest
    except Aborted:
        return True
    xl("destroy", str(guest.domid))
    wait_until(lambda: HostState.now() == before, "the host to be as it was", seconds=30)
    return False
