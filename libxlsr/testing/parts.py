"""A stream in parts: headers and records, each of which can be made to lie.

``split()`` takes a whole image apart; builder.py makes one from nothing. Either way a stream is a
list of ``Part``, which a test edits before it is turned into bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Union

from libxlsr.formats import libxc, libxl, xl
from libxlsr.formats.framing import RECORD_HEADER, padded_length
from libxlsr.formats.records import decode_libxc_header, decode_libxl_header
from libxlsr.testing.pages import PageBatch

Body = Union[bytes, PageBatch]

XL_HEADER = "xl header"
XL_OPTIONAL_DATA = "xl optional data"
LIBXL_HEADER = "libxl header"
IMAGE_HEADER = "libxc image header"
DOMAIN_HEADER = "libxc domain header"


@dataclass(eq=False)
class Part:
    """One header (``type`` None) or one record of a stream.

    ``length`` is what the record's header says, None for the truth; ``padding`` what follows the
    body, None for the zeros that belong there.
    """

    name: str
    layer: str
    body: Body
    type: int | None = None
    length: int | None = None
    padding: bytes | None = None

    def chunks(self) -> Iterator[bytes]:
        """The part's bytes, page contents in pieces of 1 MiB at most."""
        true_length = len(self.body)
        if self.type is not None:
            yield RECORD_HEADER.pack(self.type, true_length if self.length is None else self.length)
        if isinstance(self.body, PageBatch):
            yield from self.body.chunks()
        else:
            yield self.body
        if self.type is None:
            yield self.padding or b""
        elif self.padding is None:
            yield bytes(padded_length(true_length) - true_length)
        else:
            yield self.padding

    @property
    def size(self) -> int:
        """How many bytes chunks() yields."""
        size = len(self.body)
        if self.type is not None:
            size += RECORD_HEADER.size
            if self.padding is None:
                return size + padded_length(len(self.body)) - len(self.body)
        return size + len(self.padding or b"")

    @property
    def is_page_data(self) -> bool:
        return self.layer == "libxc" and self.type == libxc.RecordType.PAGE_DATA

    def body_bytes(self) -> bytes:
        """The whole body."""
        return b"".join(self.body.chunks()) if isinstance(self.body, PageBatch) else self.body


def layer_of(record_type: int) -> str:
    """``libxl`` or ``libxc``, told from the enumeration that ``record_type`` is of."""
    if isinstance(record_type, libxl.RecordType):
        return "libxl"
    if isinstance(record_type, libxc.RecordType):
        return "libxc"
    raise TypeError("a libxl.RecordType or a libxc.RecordType is needed to know the layer")


def record_part(record_type: int, body: Body = b"", *, layer: str | None = None) -> Part:
    """A record. ``layer`` is needed where ``record_type`` is a bare number."""
    layer = layer or layer_of(record_type)
    name = libxl.record_name if layer == "libxl" else libxc.record_name
    return Part(name(record_type), layer, body, int(record_type))


def join(parts: Iterable[Part]) -> bytes:
    """The bytes of ``parts``, one after another."""
    return b"".join(chunk for part in parts for chunk in part.chunks())


def split(data: bytes) -> list[Part]:
    """The parts of a whole, valid image that begins with the xl or the libxl header.

    ``join(split(data)) == data``, with what follows END as a part of its own. Raises StreamError
    for a header that is none.
    """
    parts: list[Part] = []
    position = 0

    def take(name: str, layer: str, size: int) -> bytes:
        nonlocal position
        body = data[position : position + size]
        parts.append(Part(name, layer, body))
        position += size
        return body

    def take_records(layer: str) -> int:
        """Up to and with a record after which another layer has its turn; its type."""
        nonlocal position
        last = _LAST[layer]
        decode: Callable[[bytes, int], libxl.RecordHeader | libxc.RecordHeader] = (
            decode_libxl_header if layer == "libxl" else decode_libxc_header
        )
        while True:
            header = decode(data[position : position + RECORD_HEADER.size], position)
            start = position + RECORD_HEADER.size
            part = record_part(header.type, data[start : start + header.length], layer=layer)
            parts.append(part)
            end = start + header.padded_length
            part.padding = data[start + header.length : end]
            position = end
            if header.type in last:
                return header.type

    if data.startswith(b"Xen save"):
        header = xl.Header.decode(take(XL_HEADER, "xl", xl.FIXED_HEADER_SIZE))
        take(XL_OPTIONAL_DATA, "xl", header.optional_data_len)
    take(LIBXL_HEADER, "libxl", libxl.HEADER_SIZE)
    in_libxc = False
    while True:
        ended_with = take_records("libxl")
        if ended_with == libxl.RecordType.END:
            break
        if not in_libxc:
            take(IMAGE_HEADER, "libxc", libxc.IMAGE_HEADER_SIZE)
            take(DOMAIN_HEADER, "libxc", libxc.DOMAIN_HEADER_SIZE)
            in_libxc = True
        take_records("libxc")
    if position < len(data):
        take("trailing bytes", "xl", len(data) - position)
    return parts


_LAST: dict[str, tuple[int, ...]] = {
    "libxl": (
        libxl.RecordType.END,
        libxl.RecordType.LIBXC_CONTEXT,
        libxl.RecordType.CHECKPOINT_END,
    ),
    "libxc": (libxc.RecordType.END, libxc.RecordType.CHECKPOINT),
}
