"""One offline restore of bytes, with everything looked at that a restore must not leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from libxlsr.errors import LibxlsrError
from libxlsr.events import Context
from libxlsr.restoring.image.target import ImageTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import RestoreResult
from libxlsr.restoring.target import Target
from libxlsr.testing.feeding import feed
from libxlsr.testing.leaks import Holdings
from libxlsr.testing.stepping import run_until

MakeTarget = Callable[[Context, Path], Target]


def restore_bytes(
    data: bytes, output: Path, *, make: MakeTarget = ImageTarget, way: str = "file", **options: Any
) -> RestoreResult:
    """Restore ``data``, fed the ``way`` of `libxlsr.testing.feeding`, into ``output``.

    ``options`` are members of `libxlsr.RestoreOptions`. Raises the restore's error. AssertionError
    for anything left: a registration, an fd, a child, after an error anything beside the output.
    """
    before = Holdings.now(str(output.parent))
    ctx = Context()
    with feed(way, data) as fd:
        ao = restore_ao(ctx, fd, RestoreOptions(**options), target=make(ctx, output))
        run_until(ctx, lambda: ao.done)
    assert ctx.registered() == []
    left = before.leaked()
    try:
        result = ao.result()
    except LibxlsrError:
        assert left == []
        raise
    assert left in ([], [f"file {output}"])
    return result
