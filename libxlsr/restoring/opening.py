"""Finds out what a stream is, and reads what stands before its libxl or libxc part.

The chain of events: ``start`` → ``_recognise`` (8 bytes) → for a compressed image a decompressor
is started and ``_recognise`` runs again on its output → for an xl image ``_xl_header_done`` →
``_xl_config_done`` → for an image of Xen 4.5 or older a converter is started → ``on_opened``.
Nothing is read ahead: on return the fd stands right behind the configuration, or behind the 8 bytes
by which a bare stream was recognised.

Decompressor and converter are *filters*: helpers that read what comes and write it, changed, into a
pipe, of which the next one or the restore reads. They run as long as the restore does.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from libxlsr.errors import Aborted, LibxlsrError, StreamError, TargetError
from libxlsr.events import Context, CopyResult, Outcome
from libxlsr.formats import xl
from libxlsr.formats.recognise import COMPRESSED, XEND_MAGIC, recognise
from libxlsr.formats.recognise import SIZE as RECOGNISE_SIZE
from libxlsr.helper.parent import Helper
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
    """The domain's configuration; None in a bare stream, and where it is not in JSON (before Xen
    4.5)."""


class Opening:
    """Opens the stream on ``fd``, which stays the caller's.

    ``on_opened`` is called once unless ``close`` or an error comes first. ``on_failed`` is told of
    each thing that goes wrong, the filters' errors after the opening included.
    """

    def __init__(
        self,
        ctx: Context,
        fd: int,
        *,
        on_opened: Callable[[Opened], None],
        on_failed: Callable[[LibxlsrError], None],
        on_progress: Callable[[Mapping[str, int]], None],
        on_closed: Callable[[], None],
        before_helper: Callable[[Callable[[], None]], None],
        legacy: bool = False,
        to_eof: bool = False,
    ) -> None:
        """``before_helper(go)`` has a filter started when it calls ``go``. ``legacy``: what is not
        recognised is an image of Xen 4.5 or older. ``to_eof``: nothing may follow such an image.
        """
        self._ctx = ctx
        self._source = FdSource(ctx, fd)
        self._on_opened = on_opened
        self._on_failed = on_failed
        self._on_progress = on_progress
        self._on_closed = on_closed
        self._before_helper = before_helper
        self._legacy = legacy
        self._to_eof = to_eof
        self._filters: list[Helper] = []
        self._filter_error: tuple[int, LibxlsrError] | None = None
        self._pipe = -1
        self._compression: str | None = None
        self._converting = False
        self._header = xl.Header()
        self._on_ended: Callable[[], None] | None = None
        self._close_reason: LibxlsrError | None = None

    @property
    def compression(self) -> str | None:
        """How the stream is compressed, as far as is known by now."""
        return self._compression

    @property
    def filtered(self) -> bool:
        """Whether what is read comes out of a decompressor or a converter."""
        return self._compression is not None or self._converting

    @property
    def received(self) -> int:
        """Bytes that this process has read of the stream so far."""
        return self._source.received

    def start(self) -> None:
        """Start reading."""
        self._source.read_exactly(RECOGNISE_SIZE, self._recognise, what="Xen image")

    def close(self) -> None:
        """Stop what still runs and close what was opened; ``on_closed`` comes when that is done.

        Called again it does nothing.
        """
        if self._close_reason is not None:
            return
        self._close_reason = Aborted("the image is not needed any more")
        self._source.kill()
        ended = False
        if self._pipe >= 0:
            ended = _is_at_end(self._pipe)
            os.close(self._pipe)
            self._pipe = -1
        if not self._filters:
            self._ctx.call_soon(self._on_closed)
        elif not ended:
            # Those that have ended are heard out: they may have the cause of what their reader met.
            for helper in list(self._filters):
                helper.abort(self._close_reason)

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call back when the source, which was read to its end, has proved to be whole.

        A decompressor may still find that the checksum at the end is wrong: that is ``on_failed``.
        """
        if not self._filters:
            self._ctx.call_soon(callback)
        else:
            self._on_ended = callback

    def _checked(self, result: CopyResult, offset: int) -> bytearray:
        if result.outcome is Outcome.FAILED:
            assert result.error is not None
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
                self._before_helper(lambda: self._decompress(data))
                return
            if data == XEND_MAGIC:
                raise StreamError(
                    "this is an image of Xen 4.5 or older, written by xend",
                    offset=0,
                    expected="one that xl or libxl wrote",
                    remedy="restore it with the Xen that saved it, and save it with xl",
                )
            if kind == "legacy" or (kind is None and self._legacy):
                self._before_helper(lambda: self._convert(data, 0, None))
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
            self._on_failed(error)
            return
        source = FdSource(self._ctx, self._source.fd, data)
        self._source = source
        if kind == "xl":
            source.read_exactly(xl.FIXED_HEADER_SIZE, self._xl_header_done, what="xl header")
        else:
            self._on_opened(Opened(kind, self._compression, source, 0, None))

    # -- filters

    def _decompress(self, prefix: bytes) -> None:
        args = {"codec": self._compression, "prefix": prefix.hex()}
        if self._start_filter("libxlsr.source.decompress_worker", args):
            self.start()

    def _convert(self, prefix: bytes, offset: int, config: xl.Config | None) -> None:
        """``prefix`` was read of the old image, which begins at ``offset``."""
        self._converting = True
        args = {
            "prefix": prefix.hex(),
            "offset": offset,
            "to_eof": self._to_eof or self._compression is not None,
        }
        if self._start_filter("libxlsr.source.legacy.worker", args):
            self._on_opened(Opened("legacy", self._compression, self._source, 0, config))

    def _start_filter(self, worker: str, args: dict[str, Any]) -> bool:
        """Have ``worker`` read what comes, and read what it writes; False where that failed."""
        try:
            pipe_read, pipe_write = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            doing = "can't make a pipe for the image"
            self._on_failed(TargetError.from_oserror(error, doing, call="pipe2"))
            return False
        number = len(self._filters)
        helper = Helper(
            self._ctx,
            worker,
            on_done=lambda _result, error: self._filter_done(helper, number, error),
            # The first one reads what there is; what the next one reads is not the image's bytes.
            on_progress=None if self._filters else self._on_progress,
        )
        try:
            helper.start(args, {"fd_in": self._source.fd, "fd_out": pipe_write})
        except LibxlsrError as error:
            os.close(pipe_read)
            self._on_failed(error)
            return False
        finally:
            os.close(pipe_write)
            if self._pipe >= 0:  # the new one reads it, and nobody else
                os.close(self._pipe)
                self._pipe = -1
        self._pipe = pipe_read
        self._filters.append(helper)
        self._source = FdSource(self._ctx, pipe_read)
        return True

    def _filter_done(self, helper: Helper, number: int, error: LibxlsrError | None) -> None:
        """The filter ``number``, counted from the image on, has ended."""
        self._filters.remove(helper)
        closing = self._close_reason is not None  # before on_failed, which may lead to close()
        if error is not None and error is not self._close_reason:
            if self._filter_error is not None and self._filter_error[0] < number:
                if not error.at_end:
                    self._filter_error[1].later.append(error)  # the cause lies further up
            else:
                self._filter_error = number, error
                self._on_failed(error)
        elif self._on_ended is not None and not closing and not self._filters:
            self._on_ended()
        if closing and not self._filters:
            self._on_closed()

    def _xl_header_done(self, result: CopyResult) -> None:
        try:
            self._header = xl.Header.decode(self._checked(result, 0), legacy=True)
        except LibxlsrError as error:
            self._on_failed(error)
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
            self._on_failed(error)
            return
        offset = xl.FIXED_HEADER_SIZE + self._header.optional_data_len
        if self._header.is_legacy:
            self._before_helper(lambda: self._convert(b"", offset, config))
            return
        self._on_opened(Opened("xl", self._compression, self._source, offset, config))


def _is_at_end(pipe: int) -> bool:
    """Whether a pipe is empty, and nobody writes to it any more."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return poll.poll(0) == [(pipe, select.POLLHUP)]
