"""The codecs that an image may be compressed with: a compressed file in, chunks of bytes out."""

from __future__ import annotations

import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from libxlsr.errors import BackendUnavailable, StreamError
from libxlsr.source.byte_reader import waiting

CHUNK = 256 * 1024

WINDOW_MAX = 128 << 20
"""Bytes that a decompressor may take for its window or dictionary: what ``zstd -d`` allows without
``--long``; ``xz -9`` needs 65 MiB."""

_ENDS_TOO_EARLY = "the compressed data ends too early"

_ZSTD_CHUNK = 1024
"""Compressed bytes at a time: a block of 4 bytes may stand for 128 KiB (RFC 8878, 3.1.1.2), so that
these become 32 MiB at the most."""


def _behind_padding(data: bytes, source: BinaryIO) -> bytes:
    """The next bytes that are no zero padding, of which ``data`` may have some; none at the end."""
    data = data.lstrip(b"\0")
    while not data and (piece := source.read(CHUNK)):
        data = piece.lstrip(b"\0")
    return data


def _gzip_chunks(source: BinaryIO) -> Iterator[bytes]:
    # GzipFile would do, but where something else follows it keeps the last of what it decompressed.
    data = source.read(CHUNK)
    while data:
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # with gzip's header and checksum
        while not member.eof:
            if not data:
                raise EOFError(_ENDS_TOO_EARLY)
            chunk = member.decompress(data, CHUNK)
            if chunk:
                yield chunk
            data = member.unconsumed_tail
            if not data and not member.eof:
                data = source.read(CHUNK)
        # Members may follow each other (RFC 1952, 2.2); gzip(1) takes zero padding too.
        data = _behind_padding(member.unused_data, source)


def _xz_chunks(source: BinaryIO) -> Iterator[bytes]:
    # LZMAFile would do, but it can't be given a memory limit.
    data = source.read(CHUNK)
    while data:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_MAX)
        while not decompressor.eof:
            if decompressor.needs_input and not data:
                raise EOFError(_ENDS_TOO_EARLY)
            chunk = decompressor.decompress(data, CHUNK)
            if chunk:
                yield chunk
            data = source.read(CHUNK) if decompressor.needs_input else b""
        # Streams may follow each other, with zero padding between them (.xz format, 2.2).
        data = _behind_padding(decompressor.unused_data, source)


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
        # stream_reader() would do, but it takes a frame that is cut off for a whole one.
        data = source.read(_ZSTD_CHUNK)
        while data:
            frame = decompressor.decompressobj()
            while not frame.eof:
                if not data:
                    raise EOFError(_ENDS_TOO_EARLY)
                chunk = frame.decompress(data)
                if chunk:  # nothing comes before a block, of up to 128 KiB, is whole
                    yield chunk
                data = b"" if frame.eof else source.read(_ZSTD_CHUNK)
            data = frame.unused_data or source.read(_ZSTD_CHUNK)
    except zstandard.ZstdError as error:
        raise zlib.error(str(error)) from error


_CODECS: dict[str, Callable[[BinaryIO], Iterator[bytes]]] = {
    "gzip": _gzip_chunks,
    "xz": _xz_chunks,
    "zstd": _zstd_chunks,
}


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
            count = waiting(self._fd, lambda: os.readv(self._fd, [view]))
        self.count += count
        return count


class Decompression:
    """The plain bytes of what is compressed on ``fd``; ``prefix`` was read of it before."""

    def __init__(self, codec: str, fd: int, prefix: bytes = b"") -> None:
        """``codec`` is one of `libxlsr.formats.recognise.COMPRESSED`."""
        self._codec = codec
        self._raw = _PrefixedFd(fd, prefix)

    @property
    def compressed_bytes(self) -> int:
        """How many compressed bytes were taken so far."""
        return self._raw.count

    def chunks(self) -> Iterator[bytes]:
        """The plain bytes, to the end; no chunk is empty. Raises StreamError for damaged data,
        OSError, and BackendUnavailable for zstd without its package."""
        try:
            yield from _CODECS[self._codec](io.BufferedReader(self._raw, CHUNK))
        except (zlib.error, lzma.LZMAError, EOFError) as error:
            count = self.compressed_bytes
            raise StreamError(
                f"the {self._codec} data is damaged after {count} compressed bytes ({error})",
                offset=None,
                remedy="get a whole copy of the image",
            ) from error
