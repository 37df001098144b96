"""Invariant: any body of any libxc record but PAGE_DATA is decoded to what encodes to the same
bytes, or is a StreamError at an offset within it. Byte 0 chooses the type and the guest's width."""

from __future__ import annotations

from collections.abc import Mapping

from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_records import RecordBody
from libxlsr.formats.records import decode_libxc_body
from libxlsr.testing.builder import StreamBuilder

from ..invariants import decoded

TYPES: list[RecordType] = [known for known in RecordType if known != RecordType.PAGE_DATA]
WIDTHS = (8, 4)


def check(data: bytes) -> None:
    if not data:
        return
    width, kind = divmod(data[0], len(TYPES))
    guest_width = WIDTHS[width % 2]

    def decode(body: bytes, offset: int) -> RecordBody:
        return decode_libxc_body(TYPES[kind], body, offset, guest_width=guest_width)

    body = decoded(decode, data[1:])
    assert body is None or body.encode() == data[1:]


def seeds() -> Mapping[str, bytes]:
    found = {}
    for guest, width in (("pv", 8), ("pv", 4), ("hvm", 8)):
        for part in StreamBuilder(guest, pages=1, guest_width=width).parts:
            if part.layer != "libxc" or part.type is None or part.is_page_data:
                continue
            body = part.body_bytes()
            if len(body) <= 300:
                kind = TYPES.index(RecordType(part.type)) + WIDTHS.index(width) * len(TYPES)
                found[f"{part.name.lower()}-{width}"] = bytes([kind]) + body
    return found
