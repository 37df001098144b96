"""Finds out what a stream is, and reads what stands before its libxl or libxc part.

The chain of events: ``start`` → ``_recognise`` (8 bytes) → for a compressed image a decompressor
is started and ``_recognise`` runs again on its output → for an xl image ``_xl_header_done`` →
``_xl_config_done`` → for an image of Xen 4.5 or older a converter is started → ``on_opened``.
Nothing is read ahead: on return the fd stands right behind the configuration, or behind the 8 bytes
by which a bare stream was recognised.

Decompressor and converter are *filters*: helpers that read what comes and write it, changed, into a
pipe, from which the next one or the restore reads. They are tasks of the restore.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from libxlsr.errors import Aborted, LibxlsrError, StreamError, TargetError
from libxlsr.events import CopyResult, Outcome
from libxlsr.formats import xl
from libxlsr.formats.recognise import COMPRESSED, XEND_MAGIC, recognise
from libxlsr.formats.recognise import SIZE as RECOGNISE_SIZE
from libxlsr.helper.parent import Helper
from libxlsr.restoring.progress import Phase
from libxlsr.restoring.run import Run
from libxlsr.stream.fd_source import FdSource


@dataclass(frozen=True)
class Opened:
    """What a stream turned out to be."""

    kind: str
    """What it begins with: "xl", "libxl" or "libxc"; "legacy" for an image of Xen 4.5 or older,
    which is converted: its ``source`` begins with a libxl stream."""

    compression: str | None
    """"gzip", "xz", "zstd", or None."""

    source: FdSource
    """Where the libxl or libxc stream is to be read from."""

    offset: int
    """Of the source's next byte, counted in plain bytes."""

    config: xl.Config | None
    """The domain's configuration, or the one that the caller gave for an image without (a bare
    stream, or one from before Xen 4.5, whose configuration is not in JSON)."""

    @property
    def filtered(self) -> bool:
        """Whether the source is what a decompressor or a converter writes."""
        return self.compression is not None or self.kind == "legacy"


class Opening:
    """Opens the stream on ``fd``, which stays the caller's.

    ``on_opened`` is called once, unless an error comes first.
    """

    def __init__(self, run: Run, fd: int, on_opened: Callable[[Opened], None]) -> None:
        self._run = run
        self._ctx = run.ctx
        self._task = run.tasks.start(self._stop)
        self._source = FdSource(run.ctx, fd)
        self._on_opened = on_opened
        self._filters = 0
        self._filter_errors: dict[int, LibxlsrError] = {}
        self._pipe = -1
        self._compression: str | None = None
        self._header = xl.Header()

    @property
    def received(self) -> int:
        """Bytes that this process has read of the stream so far."""
        return self._source.received

    def start(self) -> None:
        """Start reading."""
        self._source.read_exactly(RECOGNISE_SIZE, self._recognise, what="Xen image")

    def close(self) -> None:
        """Close what was opened, once all tasks have ended."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def cause_of(self, error: LibxlsrError) -> LibxlsrError:
        """What lies behind the restore's first error, with the later ones that say something.

        What a filter could not read is the cause of whatever its reader complained of, and the
        filter that is nearest to the image has the cause of what the next one met. Behind them,
        bytes that only ended too early say nothing more. An abort has no cause.
        """
        if not self._filters:
            return error
        cause = error
        if self._filter_errors and not isinstance(error, Aborted):
            cause = self._filter_errors[min(self._filter_errors)]
        kept = [error, *error.later, *cause.later]
        cause.later = []
        for later in kept:
            if later is not cause and later not in cause.later and not later.at_end:
                cause.later.append(later)
        return cause

    def _stop(self, _reason: LibxlsrError) -> None:
        self._source.kill()
        self._task.ended()

    def _opened(self, kind: str, offset: int, config: xl.Config | None) -> None:
        if config is None:
            config = self._run.options.config
        self._on_opened(Opened(kind, self._compression, self._source, offset, config))
        self._task.ended()

    def _checked(self, result: CopyResult, offset: int) -> bytearray:
        if result.error is not None:
            raise TargetError.from_oserror(result.error, "can't read the stream", call="read")
        if result.outcome is Outcome.EOF:
            raise StreamError(
                f"the stream ends {result.nbytes} bytes into the {result.what}",
                offset=offset + result.nbytes,
                remedy="the image is truncated or empty: get a whole copy of it",
                at_end=True,
            )
        return result.data

    def _recognise(self, result: CopyResult) -> None:
        try:
            data = bytes(self._checked(result, 0))
            kind = recognise(data)
            if kind in COMPRESSED and self._compression is None:
                self._compression = kind
                self._before_filter(lambda: self._decompress(data))
                return
            if data == XEND_MAGIC:
                raise StreamError(
                    "this is an image of Xen 4.5 or older, written by xend",
                    offset=0,
                    expected="one that xl or libxl wrote",
                    remedy="restore it with the Xen that saved it, and save it with xl",
                )
            if kind == "legacy" or (kind is None and self._run.options.legacy):
                self._before_filter(lambda: self._convert(data, 0, None))
                return
            if kind is None or kind in COMPRESSED:
                raise StreamError(
                    "this is no Xen image",
                    offset=0,
                    expected="an xl, libxl or libxc header, or gzip, xz or zstd data",
                    remedy="a 32-bit toolstack's image of an HVM guest, saved by libxl of Xen 4.5 "
                    "or older, can't be told by its head: --legacy says that it is one",
                )
        except LibxlsrError as error:
            self._task.ended(error)
            return
        self._source = FdSource(self._ctx, self._source.fd, data)
        if kind == "xl":
            self._source.read_exactly(xl.FIXED_HEADER_SIZE, self._xl_header_done, what="xl header")
        else:
            self._opened(kind, 0, None)

    # -- filters

    def _before_filter(self, start: Callable[[], None]) -> None:
        def go() -> None:
            if self._run.journal.phase is Phase.QUEUED:
                self._run.journal.enter(Phase.OPENING)
            start()

        self._run.await_place(go)

    def _decompress(self, prefix: bytes) -> None:
        args = {"codec": self._compression, "prefix": prefix.hex()}
        if self._start_filter("libxlsr.source.decompress_worker", args):
            self.start()

    def _convert(self, prefix: bytes, offset: int, config: xl.Config | None) -> None:
        """``prefix`` was read of the old image, which begins at ``offset``."""
        args = {
            "prefix": prefix.hex(),
            "offset": offset,
            "to_eof": bool(self._run.options.to_eof) or self._compression is not None,
        }
        if self._start_filter("libxlsr.source.legacy.worker", args):
            self._opened("legacy", 0, config)

    def _start_filter(self, worker: str, args: dict[str, Any]) -> bool:
        """Have ``worker`` read what comes, and read what it writes; False where that failed."""
        try:
            pipe_read, pipe_write = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            doing = "can't make a pipe for the image"
            self._task.ended(TargetError.from_oserror(error, doing, call="pipe2"))
            return False
        number = self._filters
        self._filters += 1

        def stop(reason: LibxlsrError) -> None:
            # One that is about to end is heard out: it may have the cause of what its reader met.
            if not _is_at_end(self._pipe):
                helper.abort(reason)

        def ended(_result: object, error: LibxlsrError | None) -> None:
            if error is not None and error is not self._run.tasks.error:
                self._filter_errors[number] = error
            task.ended(error)

        helper = Helper(
            self._ctx,
            worker,
            on_done=ended,
            # The first one reads what there is; what the next one reads is not the image's bytes.
            on_progress=None if number else self._run.journal.count,
        )
        try:
            helper.start(args, {"fd_in": self._source.fd, "fd_out": pipe_write})
        except LibxlsrError as error:
            os.close(pipe_read)
            self._task.ended(error)
            return False
        finally:
            os.close(pipe_write)
            self.close()  # the new one reads what the one before writes, and nobody else does
        task = self._run.tasks.start(stop)
        self._pipe = pipe_read
        self._source = FdSource(self._ctx, pipe_read)
        return True

    def _xl_header_done(self, result: CopyResult) -> None:
        try:
            self._header = xl.Header.decode(self._checked(result, 0), legacy=True)
        except LibxlsrError as error:
            self._task.ended(error)
            return
        self._source.read_exactly(
            self._header.optional_data_len, self._xl_config_done, what="domain configuration"
        )

    def _xl_config_done(self, result: CopyResult) -> None:
        try:
            data = self._checked(result, xl.FIXED_HEADER_SIZE)
            config = None
            if self._header.has_json:
                config = xl.decode_optional_data(self._header, data)
                config.check()
        except LibxlsrError as error:
            self._task.ended(error)
            return
        offset = xl.FIXED_HEADER_SIZE + self._header.optional_data_len
        if self._header.is_legacy:
            self._before_filter(lambda: self._convert(b"", offset, config))
            return
        self._opened("xl", offset, config)


def _is_at_end(pipe: int) -> bool:
    """Whether a pipe is empty, and nobody writes to it any more."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return poll.poll(0) == [(pipe, select.POLLHUP)]
