"""An operation that finds out where everything in an image lies, then writes a file from it.

The chain of events::

    start → restore_ao into an IndexTarget → _indexed → helper with the operation's worker
          → _written → publish → ao.complete

An offline restore's directory is an index as it is. The first error stops what runs; then the
staging directory, which holds the index too, goes away, and the ao completes: once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libxlsr.errors import LibxlsrError, TargetError, UsageError
from libxlsr.events import Ao, Context
from libxlsr.events.seconds import check_deadline
from libxlsr.helper.parent import Helper
from libxlsr.restoring.image import layout
from libxlsr.restoring.image.index_target import IndexTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.progress import Phase, Progress, RestoreResult
from libxlsr.tools.staged_file import StagedFile


@dataclass(frozen=True)
class Written:
    """A file that was made from an image."""

    path: str
    size: int
    """Bytes, holes included."""
    image: RestoreResult | None
    """What came of reading the image; None where the source was an offline restore."""
    details: Mapping[str, Any]
    """What the worker said."""
    seconds: float


def indexed_ao(
    ctx: Context,
    source: int | Path,
    output: Path,
    worker: str,
    args: Mapping[str, Any],
    *,
    on_done: Callable[[Ao[Written]], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    deadline: float | None = None,
    to_eof: bool = False,
    legacy: bool = False,
    as_it_is: bool = False,
) -> Ao[Written]:
    """Start making ``output`` from the image on the fd ``source``, or from the directory of an
    offline restore.

    The helper's ``worker`` gets ``args`` and ``directory``, ``image_fd`` (None for a directory),
    ``image_start`` and ``image_end`` (the image's place in its file), ``image_kind`` (of
    `RestoreResult`) and ``output``; what it returns has ``size``. ``as_it_is``: it wants the
    image's own bytes, unless they are legacy, and only an uncompressed file has them. The other
    parameters are as those of `restore_ao`.
    Raises TargetError for an output that can't be made and a bad source, UsageError for a deadline
    that is none.
    """
    if isinstance(source, Path) and not (source / layout.MANIFEST).is_file():
        raise UsageError(f"{source} is no offline restore's directory: it has no {layout.MANIFEST}")
    check_deadline(deadline)  # before there is a directory to remove again
    staged = StagedFile(output)
    ao: Ao[Written] = Ao(ctx, on_done=on_done, on_progress=on_progress, deadline=deadline)
    _Indexed(ctx, source, staged, worker, dict(args), ao, to_eof, legacy, as_it_is).start()
    return ao


class _Indexed:
    """One such operation."""

    def __init__(
        self,
        ctx: Context,
        source: int | Path,
        staged: StagedFile,
        worker: str,
        args: dict[str, Any],
        ao: Ao[Written],
        to_eof: bool,
        legacy: bool,
        as_it_is: bool,
    ) -> None:
        self._ctx = ctx
        self._source = source
        self._staged = staged
        self._worker = worker
        self._args = args
        self._ao = ao
        self._to_eof = to_eof
        self._legacy = legacy
        self._as_it_is = as_it_is
        self._image_start = self._image_end = 0
        self._restore: Ao[RestoreResult] | None = None
        self._helper: Helper | None = None
        self._fd = -1
        self._image: RestoreResult | None = None
        self._started = ctx.now()

    def start(self) -> None:
        self._ao.set_abort_handler(self._abort)
        if isinstance(self._source, Path):
            self._write(self._source, None)
            return
        try:
            self._fd = fcntl.fcntl(self._source, fcntl.F_DUPFD_CLOEXEC, 3)
            self._image_start = self._position()
            self._restore = restore_ao(
                self._ctx,
                self._fd,
                IndexTarget(self._ctx, self._staged.directory / "index"),
                on_done=self._indexed,
                on_progress=self._ao.progress,
                to_eof=self._to_eof,
                legacy=self._legacy,
            )
        except (OSError, ValueError) as error:  # ValueError: a negative number
            number = error.errno if isinstance(error, OSError) else errno.EBADF
            bad_fd = TargetError("can't use the image's fd", errno=number, call="dup")
            self._ctx.call_soon(self._fail, bad_fd)
        except LibxlsrError as error:  # restore_ao's, which needs an fd of its own
            self._ctx.call_soon(self._fail, error)

    def _abort(self, reason: LibxlsrError) -> None:
        if self._helper is not None:
            self._helper.abort(reason)
        elif self._restore is not None:
            self._restore.abort(reason)

    def _indexed(self, restore: Ao[RestoreResult]) -> None:
        self._restore = None
        try:
            self._image = restore.result()
        except LibxlsrError as error:
            self._fail(error)
            return
        self._image_end = self._position()
        if self._ao.aborting is not None:
            self._fail(self._ao.aborting)
        elif self._as_it_is and not self._has_own_bytes(self._image):
            self._fail(
                UsageError(
                    "only an image in an uncompressed file can be written as it is",
                    remedy="have it made compact (--compact)",
                )
            )
        else:
            self._write(self._staged.directory / "index", self._fd)

    def _has_own_bytes(self, image: RestoreResult) -> bool:
        if image.image_kind == "legacy":
            return True
        return self._image_end > 0 and image.compression is None

    def _position(self) -> int:
        """Where the image's file stands; 0 where it is no file."""
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            return 0
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    def _write(self, directory: Path, image_fd: int | None) -> None:
        self._helper = Helper(
            self._ctx,
            self._worker,
            on_done=self._written,
            on_progress=self._progress,
        )
        args = {
            **self._args,
            "directory": str(directory),
            "image_fd": None,
            "image_start": self._image_start,
            "image_end": self._image_end,
            "image_kind": None if self._image is None else self._image.image_kind,
            "output": str(self._staged.path),
        }
        try:
            self._helper.start(args, {} if image_fd is None else {"image_fd": image_fd})
        except TargetError as error:
            self._helper = None
            self._ctx.call_soon(self._fail, error)

    def _progress(self, counters: Mapping[str, int]) -> None:
        self._ao.progress(
            Progress(
                phase=Phase.WRITING,
                position=counters.get("bytes", 0),
                total=None,
                frames=0,
                records=0,
                elapsed=self._ctx.now() - self._started,
            )
        )

    def _written(self, result: dict[str, Any] | None, error: LibxlsrError | None) -> None:
        self._helper = None
        if result is None:
            assert error is not None
            self._fail(error)
            return
        try:
            if self._ao.aborting is None:
                self._staged.publish()
        except TargetError as publish_error:
            self._fail(publish_error)
            return
        if self._ao.aborting is not None:
            self._fail(self._ao.aborting)
            return
        self._clean_up()
        self._ao.complete(
            Written(
                path=str(self._staged.final),
                size=result["size"],
                image=self._image,
                details=result,
                seconds=self._ctx.now() - self._started,
            )
        )

    def _fail(self, error: LibxlsrError) -> None:
        try:
            self._clean_up()
        except OSError as undo_error:
            shown = self._ao.aborting or error
            shown.later.append(
                TargetError.from_oserror(undo_error, "can't remove the staging directory")
            )
        self._ao.fail(error)

    def _clean_up(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._staged.discard()
