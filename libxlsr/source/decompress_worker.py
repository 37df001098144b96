"""The program in the decompressor's helper: compressed bytes in, plain bytes out.

Arguments: ``codec`` ("gzip", "xz", "zstd"), ``fd_in``, ``fd_out``, ``prefix`` (hex: bytes that
were read from ``fd_in`` before). The output's fd is left open until the process ends: when the
reader sees the end of the pipe, what went wrong here has been reported already.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import select
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from libxlsr.errors import BackendUnavailable, StreamError
from libxlsr.helper.child import Channel

CHUNK = 256 * 1024

WINDOW_MAX = 128 << 20
"""Bytes that a decompressor may take for its window or dictionary: what ``zstd -d`` allows without
``--long``; ``xz -9`` needs 65 MiB."""


class _PrefixedFd(io.RawIOBase):
    """The input with its prefix in front; counts what was taken."""

    def __init__(self, fd: int, prefix: bytes) -> None:
        self._fd = fd
        self._prefix = prefix
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if self._prefix:
            count = min(len(view), len(self._prefix))
            view[:count] = self._prefix[:count]
            self._prefix = self._prefix[count:]
        else:
            count = self._readv(view)
        self.count += count
        return count

    def _readv(self, view: memoryview) -> int:
        # The fd may be in non-blocking mode, which belongs to whoever opened it.
        while True:
            try:
                return os.readv(self._fd, [view])
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._fd, select.POLLIN)
                poll.poll()


def _gzip_chunks(source: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=source, mode="rb") as plain:
        while chunk := plain.read(CHUNK):
            yield chunk


def _xz_chunks(source: BinaryIO) -> Iterator[bytes]:
    # LZMAFile would do, but it can't be given a memory limit.
    data = source.read(CHUNK)
    while data:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_MAX)
        while not decompressor.eof:
            if decompressor.needs_input and not data:
                raise EOFError("the compressed data ends too early")
            chunk = decompressor.decompress(data, CHUNK)
            if chunk:
                yield chunk
            data = source.read(CHUNK) if decompressor.needs_input else b""
        # Streams may follow each other, with zero padding between them (.xz format, 2.2).
        data = (decompressor.unused_data or data).lstrip(b"\0") or source.read(CHUNK).lstrip(b"\0")


def _zstd_chunks(source: BinaryIO) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise BackendUnavailable(
            "the image is compressed with zstd, which needs the package zstandard",
            remedy="pip install 'libxlsr[zstd]', or pipe it through zstd -dc",
        ) from error
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX)
    try:
        with decompressor.stream_reader(source, read_across_frames=True) as plain:
            while chunk := plain.read(CHUNK):
                yield chunk
    except zstandard.ZstdError as error:
        raise zlib.error(str(error)) from error


_CODECS: dict[str, Callable[[BinaryIO], Iterator[bytes]]] = {
    "gzip": _gzip_chunks,
    "xz": _xz_chunks,
    "zstd": _zstd_chunks,
}


def run(channel: Channel, args: dict[str, Any]) -> dict[str, Any]:
    """Decompress to the end of the input, or until nobody reads the output any more."""
    raw = _PrefixedFd(args["fd_in"], bytes.fromhex(args["prefix"]))
    codec = args["codec"]
    try:
        for chunk in _CODECS[codec](io.BufferedReader(raw, CHUNK)):
            view = memoryview(chunk)
            while view:
                view = view[os.write(args["fd_out"], view) :]
            channel.progress({"source_bytes": raw.count})
    except BrokenPipeError:
        pass  # the restore has all that it wants, or has failed for reasons of its own
    except (zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise StreamError(
            f"the {codec} data is damaged after {raw.count} compressed bytes ({error})",
            offset=None,
            remedy="get a whole copy of the image",
        ) from error
    return {"source_bytes": raw.count}
