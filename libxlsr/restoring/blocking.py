"""A restore as one blocking call."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

from libxlsr.events import Context
from libxlsr.events.waiting import wait
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions, TargetName
from libxlsr.restoring.progress import Progress, RestoreResult
from libxlsr.source.path_or_fd import PathOrFd, opened


def restore(
    source: PathOrFd,
    options: RestoreOptions | None = None,
    *,
    target: TargetName | None = None,
    output: str | os.PathLike[str] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> RestoreResult:
    """Restore the image at ``source``, a path or an open fd, and return when the guest is there.

    ``target`` and ``output`` take the place of those in ``options``. Raises an error of
    `libxlsr.errors`; then, and when an exception such as KeyboardInterrupt interrupts it,
    everything has been undone.
    """
    wanted = with_place(options, target, output)
    if wanted.to_eof is None:
        wanted = dataclasses.replace(wanted, to_eof=not isinstance(source, int))
    ctx = Context()
    with opened(source) as fd:
        return wait(ctx, lambda: restore_ao(ctx, fd, wanted, on_progress=on_progress))


def with_place(
    options: RestoreOptions | None,
    target: TargetName | None,
    output: str | os.PathLike[str] | None,
) -> RestoreOptions:
    """The options with another target and output, where these are given."""
    options = options or RestoreOptions()
    if target is not None:
        options = dataclasses.replace(options, target=target)
    if output is not None:
        options = dataclasses.replace(options, output=output)
    return options
