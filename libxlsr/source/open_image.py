"""Finds out what lies on an fd, and gives the reader to walk over it with."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from libxlsr.errors import StreamError
from libxlsr.formats import xl
from libxlsr.formats.recognise import COMPRESSED, SIZE, recognise
from libxlsr.source.byte_reader import LookaheadReader, ReadError, wait_until_readable
from libxlsr.source.file_reader import FileReader, is_seekable
from libxlsr.source.flow_reader import FlowReader, decompressed_chunks, fd_chunks


class OpenedImage(NamedTuple):
    """What was found."""

    reader: LookaheadReader
    kind: str | None
    """As `libxlsr.formats.recognise` says, but "legacy" for an old image behind xl's header too;
    None for what is no image."""
    compression: str | None


def open_image(fd: int, *, full: bool = False) -> OpenedImage:
    """Look at the first bytes on ``fd``, from its position on.

    ``full``: a file is to be read whole, not skipped through. Where the fd's position is afterwards
    is not said. Raises TargetError, BackendUnavailable, and CompressionDamaged.
    """
    seekable = is_seekable(fd)
    head = _head(fd, seekable)
    kind = recognise(head)
    if kind in COMPRESSED:
        prefix = b"" if seekable else head
        reader: LookaheadReader = FlowReader(decompressed_chunks(str(kind), fd, prefix))
        inner = recognise(reader.peek(SIZE))
        return OpenedImage(reader, None if inner in COMPRESSED else _age(inner, reader), kind)
    reader = FileReader(fd, full=full) if seekable else FlowReader(_after(head, fd_chunks(fd)))
    return OpenedImage(reader, _age(kind, reader), None)


def _age(kind: str | None, reader: LookaheadReader) -> str | None:
    """``kind``, or "legacy" where xl's header says that Xen 4.5 or older wrote what follows it."""
    if kind != "xl":
        return kind
    head = reader.peek(xl.FIXED_HEADER_SIZE)
    try:
        header = xl.Header.decode(head, legacy=True)
    except StreamError:  # the walk tells of it
        return kind
    return "legacy" if header.is_legacy else kind


def _head(fd: int, seekable: bool) -> bytes:
    try:
        if seekable:
            return os.pread(fd, SIZE, os.lseek(fd, 0, os.SEEK_CUR))
        wait_until_readable(fd)
        # Exactly so much: what follows may go to a decompressor that reads the fd itself.
        head = b""
        while len(head) < SIZE:
            more = fd_chunks(fd, SIZE - len(head))()
            if not more:
                break
            head += more
        return head
    except OSError as error:
        raise ReadError.of(error) from error


def _after(head: bytes, chunks: Callable[[], bytes]) -> Callable[[], bytes]:
    pending = [head]

    def next_chunk() -> bytes:
        return pending.pop() if pending else chunks()

    return next_chunk
