"""The images that xl saved, and changed copies of them.

A copy's parts go from the image to the copy without being in this process's memory: each page that
a process touches first is dear under emulation, and the images have tens of thousands.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from libxlsr.formats import libxc, libxl

Parts: TypeAlias = "list[bytes | memoryview]"

# xl_saverestore.c: magic, byte order, mandatory and optional flags, length of the optional data.
XL_HEADER = struct.Struct("<32s4I")


@dataclass(frozen=True)
class Image:
    """An image that xl saved."""

    data: memoryview
    libxl: int
    """Where the libxl stream starts: behind xl's header and its optional data."""

    @property
    def libxc(self) -> int:
        """Where the libxc stream starts: behind the header of the record LIBXC_CONTEXT."""
        return self.libxl + libxl.HEADER_SIZE + libxl.RECORD_HEADER_SIZE

    @property
    def first_libxc_record(self) -> int:
        return self.libxc + libxc.IMAGE_HEADER_SIZE + libxc.DOMAIN_HEADER_SIZE

    def libxc_record(self, wanted: int) -> int:
        """Where the first record of a type in the libxc stream starts."""
        record = self.first_libxc_record
        while True:
            kind, length = struct.unpack_from("<II", self.data, record)
            if kind == wanted:
                return record
            record += 8 + -(-length // 8) * 8

    def upto(self, end: int, *rest: bytes) -> Parts:
        """Its start, and something else behind that; a negative end counts from its own end."""
        return [self.data[:end], *rest]

    def patched(self, offset: int, data: bytes) -> Parts:
        return [self.data[:offset], data, self.data[offset + len(data) :]]


@contextmanager
def image_of(path: Path) -> Iterator[Image]:
    with path.open("rb") as file:
        head = XL_HEADER.unpack(file.read(XL_HEADER.size))
        with (
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
            memoryview(mapped) as data,
        ):
            yield Image(data, XL_HEADER.size + head[4])


def write(path: Path, parts: Parts) -> None:
    with path.open("wb") as file:
        file.writelines(parts)
