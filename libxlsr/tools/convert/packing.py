"""The output of a conversion: plain, or compressed as `libxlsr.source.codecs` reads it."""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from libxlsr.errors import BackendUnavailable
from libxlsr.files import write_all
from libxlsr.formats.framing import Buffer

CODECS = ("gzip", "xz", "zstd")

_CHUNK = 1 << 20


class Writer(Protocol):
    """Takes bytes in their order."""

    def write(self, data: Buffer, /) -> object:
        """Take all of ``data``."""


@contextmanager
def packed_file(path: Path, codec: str | None) -> Iterator[Writer]:
    """A new file, readable by its owner only, that is flushed to the disk at the end.

    The same bytes give the same file: nothing of the clock or of the name goes into it. Raises
    OSError, and BackendUnavailable for zstd without its package.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb", buffering=0) as raw:
        if codec is None:
            yield _Plain(fd)
        else:
            with _compressor(codec, raw) as writer:
                yield writer
        os.fsync(fd)


class _Plain:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: Buffer, /) -> None:
        write_all(self._fd, data)


@contextmanager
def _compressor(codec: str, raw: BinaryIO) -> Iterator[Writer]:
    if codec == "gzip":
        with gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
            yield file
    elif codec == "xz":
        with lzma.LZMAFile(raw, "wb", preset=6) as xz_file:
            yield xz_file
    else:
        try:
            import zstandard
        except ImportError as error:
            raise BackendUnavailable(
                "compressing with zstd needs the package zstandard",
                remedy="pip install 'libxlsr[zstd]', or choose gzip or xz",
            ) from error
        compressor = zstandard.ZstdCompressor(level=3, write_checksum=True, threads=-1)
        try:
            with compressor.stream_writer(raw, closefd=False) as zstd_file:
                yield zstd_file
        except zstandard.ZstdError as error:  # nothing else goes wrong with compressing
            raise MemoryError(str(error)) from error


def copy(fd: int, position: int, nbytes: int, writer: Writer) -> None:
    """Copy bytes of a file. Raises OSError, EOFError where the file ends too early."""
    while nbytes:
        data = os.pread(fd, min(nbytes, _CHUNK), position)
        if not data:
            raise EOFError("the file was cut off while it was read")
        writer.write(data)
        position += len(data)
        nbytes -= len(data)
