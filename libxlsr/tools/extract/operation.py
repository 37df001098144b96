"""Guest memory out of an image, in a format that debuggers and forensic tools read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from libxlsr.events import Ao, Context
from libxlsr.events.waiting import wait
from libxlsr.restoring.progress import Progress
from libxlsr.source.path_or_fd import PathOrFd
from libxlsr.tools.extract.request import Request
from libxlsr.tools.indexed import Written, indexed_ao


def extract_ao(
    ctx: Context,
    source: PathOrFd,
    output: Path,
    request: Request,
    *,
    on_done: Callable[[Ao[Written]], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    deadline: float | None = None,
    to_eof: bool | None = None,
    legacy: bool = False,
) -> Ao[Written]:
    """Start extracting what ``request`` says into the file ``output``, which must not exist.

    ``source`` is an image's path, an open fd, or the directory of an offline restore.

    ``legacy``: an image that is not recognised is one of Xen 4.5 or older. The result's
    ``details`` have ``copied``, the bytes of guest memory. Raises UsageError for a
    request that contradicts itself, and TargetError.
    """
    request.check()
    args = {
        "format": request.format,
        "frames": request.frames,
        "vaddr": request.vaddr,
        "cr3": request.cr3,
    }
    return indexed_ao(
        ctx,
        source,
        output,
        "libxlsr.tools.extract.worker",
        args,
        on_done=on_done,
        on_progress=on_progress,
        deadline=deadline,
        to_eof=to_eof,
        legacy=legacy,
    )


def extract(
    source: PathOrFd,
    output: str | os.PathLike[str],
    request: Request,
    *,
    deadline: float | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    legacy: bool = False,
) -> Written:
    """Extract memory and return when the file is there.

    ``source`` is an image's path, an open fd, or the directory of an offline restore; ``legacy`` is
    as in `extract_ao`. Raises an error of `libxlsr.errors`; then, and when an exception interrupts
    it, there is no output.
    """
    ctx = Context()
    return wait(
        ctx,
        lambda: extract_ao(
            ctx,
            source,
            Path(output),
            request,
            deadline=deadline,
            on_progress=on_progress,
            legacy=legacy,
        ),
    )
