"""An image written anew: compact, compressed, or both."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from libxlsr.errors import UsageError
from libxlsr.events import Ao, Context
from libxlsr.events.waiting import wait
from libxlsr.restoring.progress import Progress
from libxlsr.source.path_or_fd import PathOrFd
from libxlsr.tools.convert.packing import CODECS
from libxlsr.tools.indexed import Written, indexed_ao


def convert_ao(
    ctx: Context,
    source: PathOrFd,
    output: Path,
    *,
    compact: bool = False,
    codec: str | None = None,
    on_done: Callable[[Ao[Written]], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    deadline: float | None = None,
    to_eof: bool | None = None,
    legacy: bool = False,
) -> Ao[Written]:
    """Start writing the image at ``source``, a path or an open fd, into the file ``output``, which
    must not exist.

    ``compact``: each frame once, each record of state once. Without it the image, which must then
    be an uncompressed file, is written as it is, once it has proved to be whole. ``codec`` ("gzip",
    "xz", "zstd") compresses what is written. An image of Xen 4.5 or older becomes one of today's,
    compact in any case; ``legacy`` says that it is one where that can't be told.

    The result's ``details`` have ``frames`` and ``records`` of a compact image. Raises UsageError
    and TargetError.
    """
    if codec is not None and codec not in CODECS:
        raise UsageError(
            f"there is no compression {codec!r}", remedy=f"choose one of {', '.join(CODECS)}"
        )
    return indexed_ao(
        ctx,
        source,
        output,
        "libxlsr.tools.convert.worker",
        {"compact": compact, "codec": codec},
        as_it_is=not compact,
        on_done=on_done,
        on_progress=on_progress,
        deadline=deadline,
        to_eof=to_eof,
        legacy=legacy,
    )


def convert(
    source: PathOrFd,
    output: str | os.PathLike[str],
    *,
    compact: bool = False,
    codec: str | None = None,
    legacy: bool = False,
    deadline: float | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Written:
    """Write the image at ``source`` (a path, or an open fd) anew and return when it is there.

    Raises an error of `libxlsr.errors`; then, and when an exception interrupts it, there is no
    output. The other parameters are those of `convert_ao`.
    """
    ctx = Context()
    return wait(
        ctx,
        lambda: convert_ao(
            ctx,
            source,
            Path(output),
            compact=compact,
            codec=codec,
            legacy=legacy,
            deadline=deadline,
            on_progress=on_progress,
        ),
    )
