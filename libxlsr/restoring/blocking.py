"""A restore as one blocking call."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from libxlsr.errors import UsageError
from libxlsr.events import Context
from libxlsr.events.waiting import wait
from libxlsr.restoring.choose import choose
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.progress import Progress, RestoreResult
from libxlsr.restoring.target import Target
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.source.path_or_fd import Source, opened

if TYPE_CHECKING:
    from libxlsr.restoring.xen_target import XenOptions

__all__ = ["Source", "make_target", "opened", "restore"]


def restore(
    source: Source,
    *,
    target: str = "auto",
    output: str | os.PathLike[str] | None = None,
    xen: XenOptions | None = None,
    deadline: float | None = None,
    timeouts: Timeouts | None = None,
    legacy: bool = False,
    on_progress: Callable[[Progress], object] | None = None,
) -> RestoreResult:
    """Restore the image at ``source`` and return when the guest is there.

    ``target`` is "image" (offline, into the directory ``output``, which must not exist), "xen"
    (a domain, as ``xen`` wants it) or "auto" (a domain where this is a Xen host). From a path, the
    image must be all that the file holds; from an fd, what follows the image is left unread.
    ``deadline`` (seconds), ``timeouts`` and ``legacy`` are as for `libxlsr.restore_ao`. Raises an
    error of `libxlsr.errors`; then, and when an exception such as KeyboardInterrupt interrupts it,
    everything has been undone.
    """
    ctx = Context()
    chosen = choose(target).target
    place = make_target(ctx, chosen, None if output is None else Path(output), xen)
    with opened(source) as fd:
        return wait(
            ctx,
            lambda: restore_ao(
                ctx,
                fd,
                place,
                on_progress=on_progress,
                deadline=deadline,
                timeouts=timeouts,
                legacy=legacy,
                to_eof=not isinstance(source, int),
            ),
        )


def make_target(ctx: Context, name: str, output: Path | None, xen: XenOptions | None) -> Target:
    """The target called ``name``. Raises UsageError for options that don't fit it.

    Only that target is imported: each takes longer to import than a small guest to restore.
    """
    if name == "image":
        if output is None:
            raise UsageError(
                "an offline restore needs an output directory", remedy="name one with --output"
            )
        from libxlsr.restoring.image.target import ImageTarget

        return ImageTarget(ctx, output)
    if name == "xen":
        if output is not None:
            raise UsageError("an output directory is for offline restores (--target image) only")
        from libxlsr.restoring.xen_target import XenTarget

        return XenTarget(ctx, xen)
    raise UsageError(f"there is no target {name!r}", remedy="choose auto, xen or image")
