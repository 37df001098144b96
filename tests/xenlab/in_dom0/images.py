"""The images that xl saved, and changed copies of them.

What a copy has of the image, the kernel takes from it: each page of this process's own memory would
be dear under emulation, and the images have tens of thousands.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from libxlsr.formats import libxc, libxl
from libxlsr.formats.framing import RECORD_HEADER, padded_length

Parts: TypeAlias = "list[bytes | memoryview]"

# xl_saverestore.c: magic, byte order, mandatory and optional flags, length of the optional data.
XL_HEADER = struct.Struct("<32s4I")


@dataclass(frozen=True)
class Image:
    """An image that xl saved."""

    data: memoryview

    @property
    def xl_header(self) -> tuple[bytes, int, int, int, int]:
        """As XL_HEADER has it."""
        magic, byte_order, mandatory, optional, length = XL_HEADER.unpack_from(self.data)
        return magic, byte_order, mandatory, optional, length

    @property
    def libxl_start(self) -> int:
        """Where the libxl stream starts: behind xl's header and its optional data."""
        return XL_HEADER.size + self.xl_header[4]

    @property
    def libxc_start(self) -> int:
        """Where the libxc stream starts: behind the header of the record LIBXC_CONTEXT."""
        return self.libxl_start + libxl.HEADER_SIZE + libxl.RECORD_HEADER_SIZE

    @property
    def first_libxc_record(self) -> int:
        return self.libxc_start + libxc.IMAGE_HEADER_SIZE + libxc.DOMAIN_HEADER_SIZE

    def libxc_records(self) -> Iterator[tuple[int, int, int]]:
        """The type of each record of the libxc stream, where it starts, and where the next does."""
        start, kind = self.first_libxc_record, -1
        while kind != libxc.RecordType.END:
            kind, length = RECORD_HEADER.unpack_from(self.data, start)
            end = start + libxc.RECORD_HEADER_SIZE + padded_length(length)
            yield kind, start, end
            start = end

    def upto(self, end: int, *rest: bytes) -> Parts:
        """Its start, and something else behind that; a negative end counts from its own end."""
        return [self.data[:end], *rest]

    def patched(self, offset: int, data: bytes) -> Parts:
        return [self.data[:offset], data, self.data[offset + len(data) :]]


def write_changed(image: Path, copy: Path, change: Callable[[Image], Parts]) -> None:
    """Write what ``change`` makes of the image to ``copy``."""
    with copy.open("wb") as file:
        file.writelines(change(Image(mapped(image))))


def mapped(image: Path) -> memoryview:
    """The file's content. It is unmapped, and its fd closed, when the last part of it has gone."""
    with image.open("rb") as source:
        return memoryview(mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ))
