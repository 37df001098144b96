"""A stream of many tiny records, a reader for it, and the bare loop that reads the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from libxlsr.errors import LibxlsrError
from libxlsr.events import Context
from libxlsr.formats import libxl
from libxlsr.formats.framing import encode_record
from libxlsr.stream.fd_source import FdSource
from libxlsr.stream.reader import StreamReader
from libxlsr.stream.record import Record

BODY_SIZE = 8
HEADER_SIZE = libxl.RECORD_HEADER_SIZE


def write_tiny_records(path: Path, count: int) -> None:
    """A libxl stream with ``count`` optional records of 8 bytes between LIBXC_CONTEXT and END."""
    optional = encode_record(libxl.REC_TYPE_OPTIONAL | 1, bytes(BODY_SIZE))
    path.write_bytes(
        libxl.Header().encode()
        + encode_record(libxl.RecordType.LIBXC_CONTEXT)
        + optional * count
        + encode_record(libxl.RecordType.END)
    )


def read_bare(fd: int) -> None:
    """Read header after header and body after body; nothing is looked at but the length."""
    os.read(fd, libxl.HEADER_SIZE)
    while True:
        header = os.read(fd, HEADER_SIZE)
        length = int.from_bytes(header[4:], "little")
        if length:
            os.read(fd, length)
        elif header == bytes(HEADER_SIZE):
            return


class Handler:
    """Finishes each record at once."""

    def stream_header(self, header: libxl.Header) -> None:
        """Nothing to do."""

    def process_record(self, record: Record, done: Callable[[LibxlsrError | None], None]) -> bool:
        """Nothing to do."""
        return True


def start_reader(ctx: Context, fd: int, done: Callable[[], None]) -> None:
    """Start reading the stream at ``fd``; ``done`` is called when it was whole."""

    def finished(error: LibxlsrError | None) -> None:
        if error is not None:
            raise error
        done()

    StreamReader(ctx, FdSource(ctx, fd), Handler(), finished).start()
