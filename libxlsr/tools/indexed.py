"""An operation that finds out where everything in an image lies, then writes a file from it.

The chain of events::

    index → restore_ao into an IndexTarget → _write: helper with the operation's worker
          → _publish → ao.complete

An offline restore's directory is an index as it is. The first error stops what runs; then the
staging directory, which holds the index too, goes away, and the ao completes: once.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libxlsr.errors import LibxlsrError, TargetError, UsageError
from libxlsr.events import Ao, Context
from libxlsr.events.seconds import check_deadline
from libxlsr.events.tasks import Tasks
from libxlsr.helper.parent import Helper
from libxlsr.restoring.image import layout
from libxlsr.restoring.image.index_target import IndexTarget
from libxlsr.restoring.operation import restore_ao
from libxlsr.restoring.options import RestoreOptions
from libxlsr.restoring.progress import Phase, Progress, RestoreResult
from libxlsr.restoring.stream_fd import duplicate
from libxlsr.source.path_or_fd import PathOrFd, opened
from libxlsr.tools.staged_file import StagedFile

logger = logging.getLogger(__name__)


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

    def __str__(self) -> str:
        return f"{self.path} was written"


def indexed_ao(
    ctx: Context,
    source: PathOrFd,
    output: Path,
    worker: str,
    args: Mapping[str, Any],
    *,
    on_done: Callable[[Ao[Written]], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    deadline: float | None = None,
    to_eof: bool | None = None,
    legacy: bool = False,
    as_it_is: bool = False,
) -> Ao[Written]:
    """Start making ``output`` from the image at ``source``: a path, an open fd, or the directory of
    an offline restore.

    The helper's ``worker`` gets ``args`` and ``directory``, ``image_fd`` (None for a directory),
    ``image_start`` and ``image_end`` (the image's place in its file), ``image_kind`` (of
    `RestoreResult`) and ``output``; what it returns has ``size``. ``as_it_is``: it wants the
    image's own bytes, unless they are legacy, and only an uncompressed file has them. The other
    parameters are as in `RestoreOptions`.
    Raises TargetError for an output that can't be made and a bad source, UsageError for a deadline
    that is not a number of seconds.
    """
    options = RestoreOptions(
        legacy=legacy, to_eof=not isinstance(source, int) if to_eof is None else to_eof
    )
    check_deadline(deadline)  # before there is a directory to remove again
    with ExitStack() as resources:
        fd = directory = None
        if not isinstance(source, int) and os.path.isdir(source):
            directory = Path(source)
            if not (directory / layout.MANIFEST).is_file():
                raise UsageError(
                    f"{directory} is not the directory of an offline restore: it has no "
                    f"{layout.MANIFEST}"
                )
        else:
            with opened(source) as image_fd:
                fd = duplicate(image_fd)
            resources.callback(os.close, fd)
        staged = StagedFile(output)
        resources.callback(staged.discard)
        ao: Ao[Written] = Ao(ctx, on_done=on_done, on_progress=on_progress, deadline=deadline)
        indexed = _Indexed(ctx, ao, staged, worker, args, resources.pop_all())
    if directory is not None:
        indexed.write_from(directory)
    elif fd is not None:
        indexed.index(fd, options, as_it_is=as_it_is)
    return ao


class _Indexed:
    """One such operation."""

    def __init__(
        self,
        ctx: Context,
        ao: Ao[Written],
        staged: StagedFile,
        worker: str,
        args: Mapping[str, Any],
        resources: ExitStack,
    ) -> None:
        self._ctx = ctx
        self._ao = ao
        self._tasks = Tasks(ctx, ao, stopped=self._undo)
        self._staged = staged
        self._worker = worker
        self._args = args
        self._resources = resources
        self._started = ctx.now()

    def index(self, fd: int, options: RestoreOptions, *, as_it_is: bool) -> None:
        """Find out where everything lies in the image on ``fd``."""
        start = _position(fd)
        directory = self._staged.directory / "index"

        def indexed(restore: Ao[RestoreResult]) -> None:
            try:
                image = restore.result()
            except LibxlsrError as error:
                task.ended(error)
                return
            end = _position(fd)
            if self._tasks.error is not None:
                task.ended()
            elif as_it_is and not (
                image.image_kind == "legacy" or (end > 0 and image.compression is None)
            ):
                task.ended(
                    UsageError(
                        "only an image in an uncompressed file can be written as it is",
                        remedy="have it made compact (--compact)",
                    )
                )
            else:
                self._write(directory, _Image(image, fd, start, end))
                task.ended()

        try:
            restore = restore_ao(
                self._ctx,
                fd,
                options,
                target=IndexTarget(self._ctx, directory),
                on_done=indexed,
                on_progress=self._ao.progress,
            )
        except LibxlsrError as error:  # it needs an fd of its own
            self._ctx.call_soon(self._tasks.fail, error)
        else:
            task = self._tasks.start(restore.abort)

    def write_from(self, directory: Path) -> None:
        """Write the output from an offline restore's directory."""
        self._write(directory, None)

    def _write(self, directory: Path, image: _Image | None) -> None:
        def written(result: dict[str, Any] | None, error: LibxlsrError | None) -> None:
            if result is not None:
                self._tasks.when_ended(lambda: self._publish(result, image))
            task.ended(error)

        helper = Helper(self._ctx, self._worker, on_done=written, on_progress=self._progress)
        args = {
            **self._args,
            "directory": str(directory),
            "image_fd": None,
            "image_start": 0 if image is None else image.start,
            "image_end": 0 if image is None else image.end,
            "image_kind": None if image is None else image.result.image_kind,
            "output": str(self._staged.path),
        }
        try:
            helper.start(args, {} if image is None else {"image_fd": image.fd})
        except TargetError as error:
            self._ctx.call_soon(self._tasks.fail, error)
        else:
            task = self._tasks.start(helper.abort)

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

    def _publish(self, result: dict[str, Any], image: _Image | None) -> None:
        try:
            self._staged.publish()
        except TargetError as error:
            self._tasks.fail(error)
            return
        try:
            self._resources.close()
        except OSError as error:
            logger.warning("can't remove %s: %s", self._staged.directory, error)
        self._ao.complete(
            Written(
                path=str(self._staged.final),
                size=result["size"],
                image=None if image is None else image.result,
                details=result,
                seconds=self._ctx.now() - self._started,
            )
        )

    def _undo(self, error: LibxlsrError) -> None:
        try:
            self._resources.close()
        except OSError as undo_error:
            doing = "can't remove the staging directory"
            self._ao.abort(TargetError.from_oserror(undo_error, doing))
        self._ao.fail(error)


@dataclass(frozen=True)
class _Image:
    """An image that was read, and its place in the file on ``fd``."""

    result: RestoreResult
    fd: int
    start: int
    end: int


def _position(fd: int) -> int:
    """Where an image's file stands; 0 where it is not a file."""
    return os.lseek(fd, 0, os.SEEK_CUR) if stat.S_ISREG(os.fstat(fd).st_mode) else 0
