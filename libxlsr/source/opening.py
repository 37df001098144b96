"""Finds out what a stream is, and reads what stands before its libxl or libxc part.

The chain of events: ``start`` → ``_recognise`` (8 bytes) → for a compressed image a decompressor
is started and ``_recognise`` runs again on its output → for an xl image ``_xl_header_done`` →
``_xl_config_done`` → ``on_done``. Nothing is read ahead: on return the fd stands right behind the
configuration, or behind the 8 bytes by which a bare stream was recognised.
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
from libxlsr.formats.recognise import SIZE as RECOGNISE_SIZE
from libxlsr.formats.recognise import recognise
from libxlsr.helper.parent import Helper
from libxlsr.source.codecs import COMPRESSED
from libxlsr.source.fd_source import FdSource


@dataclass(frozen=True)
class Opened:
    """What a stream turned out to be."""

    kind: str
    """What it begins with: "xl", "libxl" or "libxc"."""

    compression: str | None
    """"gzip", "xz", "zstd", or None."""

    source: FdSource
    """Where the libxl or libxc stream is to be read from."""

    offset: int
    """Of the source's next byte, counted in plain bytes."""

    config: xl.Config | None
    """The domain's configuration; None in a bare stream."""


class Opening:
    """Opens the stream on ``fd``, which stays the caller's.

    ``on_opened`` is called once unless ``close`` or an error comes first. ``on_failed`` is told of
    each thing that goes wrong, the decompressor's errors after the opening included.
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
    ) -> None:
        """``before_helper(go)`` has the decompressor started when it calls ``go``."""
        self._ctx = ctx
        self._source = FdSource(ctx, fd)
        self._on_opened = on_opened
        self._on_failed = on_failed
        self._on_progress = on_progress
        self._on_closed = on_closed
        self._before_helper = before_helper
        self._decompressor: Helper | None = None
        self._pipe = -1
        self._compression: str | None = None
        self._header = xl.Header()
        self._on_ended: Callable[[], None] | None = None
        self._close_reason: LibxlsrError | None = None

    @property
    def compression(self) -> str | None:
        """How the stream is compressed, as far as is known by now."""
        return self._compression

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
        if self._decompressor is not None:
            # One that has ended is heard out: it may have the cause of what its reader met.
            if not ended:
                self._decompressor.abort(self._close_reason)
        else:
            self._ctx.call_soon(self._on_closed)

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call back when the source, which was read to its end, has proved to be whole.

        A decompressor may still find that the checksum at the end is wrong: that is ``on_failed``.
        """
        if self._decompressor is None:
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
            )
        return result.data

    def _recognise(self, result: CopyResult) -> None:
        try:
            data = bytes(self._checked(result, 0))
            kind = recognise(data)
            if kind in COMPRESSED and self._compression is None:
                self._compression = kind
                self._before_helper(lambda: self._start_decompressor(data))
                return
            if kind is None or kind in COMPRESSED:
                raise StreamError(
                    "this is no Xen image",
                    offset=0,
                    expected="an xl, libxl or libxc header, or gzip, xz or zstd data",
                )
            if kind == "legacy":
                raise StreamError(
                    "this is an image of Xen 4.5 or older",
                    offset=0,
                    expected="a migration-v2 stream",
                    remedy="convert it with Xen's convert-legacy-stream",
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

    def _start_decompressor(self, prefix: bytes) -> None:
        try:
            self._decompress(prefix)
        except LibxlsrError as error:
            self._on_failed(error)

    def _decompress(self, prefix: bytes) -> None:
        try:
            pipe_read, pipe_write = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise TargetError.from_oserror(error, "can't decompress", call="pipe2") from error
        self._pipe = pipe_read
        helper = Helper(
            self._ctx,
            "libxlsr.source.decompress_worker",
            {
                "codec": self._compression,
                "fd_in": self._source.fd,
                "fd_out": pipe_write,
                "prefix": prefix.hex(),
            },
            fds=(self._source.fd, pipe_write),
            on_done=self._decompressor_done,
            on_progress=self._on_progress,
        )
        try:
            helper.start()
        finally:
            os.close(pipe_write)
        self._decompressor = helper
        self._source = FdSource(self._ctx, pipe_read)
        self.start()

    def _decompressor_done(self, result: dict[str, Any] | None, error: LibxlsrError | None) -> None:
        self._decompressor = None
        closing = self._close_reason is not None  # before on_failed, which may lead to close()
        if error is not None and error is not self._close_reason:
            self._on_failed(error)
        elif self._on_ended is not None and not closing:
            self._on_ended()
        if closing:
            self._on_closed()

    def _xl_header_done(self, result: CopyResult) -> None:
        try:
            self._header = xl.Header.decode(self._checked(result, 0))
        except LibxlsrError as error:
            self._on_failed(error)
            return
        self._source.read_exactly(
            self._header.optional_data_len, self._xl_config_done, what="domain configuration"
        )

    def _xl_config_done(self, result: CopyResult) -> None:
        try:
            data = self._checked(result, xl.FIXED_HEADER_SIZE)
            config = xl.decode_optional_data(self._header, data)
        except LibxlsrError as error:
            self._on_failed(error)
            return
        offset = xl.FIXED_HEADER_SIZE + self._header.optional_data_len
        self._on_opened(Opened("xl", self._compression, self._source, offset, config))


def _is_at_end(pipe: int) -> bool:
    """Whether a pipe is empty, and nobody writes to it any more."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return poll.poll(0) == [(pipe, select.POLLHUP)]
