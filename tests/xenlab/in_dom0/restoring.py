"""Restores from the library's side, as the tests here start them: one after the other on one event
loop, with a spare helper.

A helper is a Python that starts: half a second under emulation. That of the next restore starts
while a test looks at what came of this one.
"""

from __future__ import annotations

import fcntl
import functools
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from libxlsr.domain.save_helper.spare import SpareHelper
from libxlsr.errors import Aborted
from libxlsr.events import Ao, Context, CopyResult, Datacopier, run
from libxlsr.events.loop import Waiter
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import Phase, Progress, RestoreResult
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.restoring.xen_target import XenTarget

from . import dom0
from .state import HostState
from .waiting import wait_until

PIPE_SIZE = 1 << 16


class Loop:
    """The event loop, and the spare helper on it."""

    def __init__(self) -> None:
        self.ctx = Context()
        self.spare = SpareHelper(self.ctx)
        self._idle = self._registered()

    def start(
        self,
        fd: int,
        options: RestoreOptions | None = None,
        on_progress: Callable[[Progress], object] | None = None,
    ) -> tuple[Ao[RestoreResult], XenTarget]:
        """Start a restore that takes the spare helper; a second one has a helper of its own."""
        wanted = replace(options or RestoreOptions(), spare_helper=self.spare)
        target = XenTarget(self.ctx, wanted)
        return restore_ao(self.ctx, fd, wanted, target=target, on_progress=on_progress), target

    def run(self, *aos: Ao[Any]) -> None:
        """Run until they have ended and the next spare has been started; nothing else of them is
        left on the loop then."""
        run(self.ctx, lambda: all(ao.done for ao in aos))
        self.settle()

    def settle(self) -> None:
        """Have the next spare started, and see that nothing else is on the loop."""
        run(self.ctx, lambda: self.spare.pid is not None)
        assert self.spare.pid is not None
        dom0.free_of_xenstored(self.spare.pid)
        assert self._registered() == self._idle

    def _registered(self) -> list[str]:
        return sorted(re.sub(r"\d+", "N", line) for line in self.ctx.registered())


@functools.cache
def loop() -> Loop:
    """The one of this process."""
    return Loop()


def restore(
    fd: int,
    options: RestoreOptions | None = None,
    *,
    to_eof: bool = True,
    timeouts: Timeouts | None = None,
) -> RestoreResult:
    """Restore what is on ``fd``; whatever comes of it, nothing is left on the event loop."""
    wanted = replace(options or RestoreOptions(), to_eof=to_eof, timeouts=timeouts or Timeouts())
    ao, _target = loop().start(fd, wanted)
    loop().run(ao)
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
    image: bytes | memoryview, after: int, act: Callable[[Ao[Any], XenTarget], object]
) -> Ao[RestoreResult]:
    """Restore from a pipe that gives ``after`` bytes and no more, then act; the ended operation.

    The pipe, not the clock, decides where the restore is when ``act`` comes, to within what a pipe
    holds.
    """
    ctx = loop().ctx
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(write_fd, False)
    fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    try:
        ao, target = loop().start(read_fd)
        feeder = Datacopier(ctx)

        def fed(_result: CopyResult) -> None:
            act(ao, target)

        feeder.write(write_fd, memoryview(image)[:after], fed, what="the image")
        run(ctx, lambda: ao.done)
        feeder.kill()
        loop().settle()
    finally:
        os.close(read_fd)
        os.close(write_fd)
    return ao


def aborted_while_finishing(path: Path, after: int) -> Ao[RestoreResult]:
    """Restore a file and abort when the stream was read to its end, ``after`` callbacks later.

    The ended operation; an abort that came too late leaves the guest there.
    """
    ctx = loop().ctx
    phases: list[Phase] = []

    def note(progress: Progress) -> None:
        phases.append(progress.phase)

    left = after
    with path.open("rb") as image, Waiter() as waiter:
        ao, _target = loop().start(image.fileno(), RestoreOptions(to_eof=True), note)
        while not ao.done:
            if not ctx.step():
                ctx.gather(waiter.wait(ctx.prepare()))
            elif Phase.FINISHING in phases:
                if left == 0:
                    ao.abort()
                left -= 1
        while ctx.step():
            pass
        loop().settle()
    return ao


def was_undone(ao: Ao[RestoreResult], before: HostState) -> bool:
    """Whether the abort came in time. If not, the guest is destroyed, and nothing of it is left."""
    try:
        guest = ao.result().guest
    except Aborted:
        return True
    assert guest.domid is not None
    dom0.destroy(guest.domid)
    wait_until(lambda: HostState.now() == before, "the host to be as it was", seconds=30)
    return False
