"""What libxl's and libxc's records have in common: 8 bytes of header, a body, zero padding to 8.

``encode_record`` makes one; what may be in one is in records.py.

Sources: docs/specs/libxl-migration-stream.pandoc and libxc-migration-stream.pandoc, "Records".
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, Union

from libxlsr.errors import StreamError

Buffer = Union[bytes, bytearray, memoryview]

REC_ALIGN = 8
REC_TYPE_OPTIONAL = 0x80000000

RECORD_HEADER_SIZE = 8
RECORD_HEADER = struct.Struct("<II")


def padded_length(length: int) -> int:
    """``length`` rounded up to a multiple of 8 (REC_ALIGN): the body and its padding, in bytes.

    Never wraps round: in C, Xen 4.22 computes this in 32 bits and gets 0 for 0xfffffff9.
    """
    return (length + REC_ALIGN - 1) & ~(REC_ALIGN - 1)


class RecordFraming(NamedTuple):
    """The 8 bytes before a record's body, in either layer. ``length`` is without the padding."""

    type: int
    length: int

    @property
    def padded_length(self) -> int:
        """Bytes that follow this header: the body and its padding."""
        return padded_length(self.length)

    @property
    def is_optional(self) -> bool:
        """Whether a reader that doesn't know the type may skip the record (bit 31)."""
        return bool(self.type & REC_TYPE_OPTIONAL)

    def encode(self) -> bytes:
        return RECORD_HEADER.pack(self.type, self.length)


def encode_record(record_type: int, body: Buffer = b"") -> bytes:
    """A whole record: the 8 bytes that say its type and length, the body, and its padding."""
    length = len(body)
    padding = bytes(padded_length(length) - length)
    return b"".join((RECORD_HEADER.pack(record_type, length), body, padding))


def name_of_unknown(record_type: int) -> str:
    """How messages call a record of an unknown type."""
    return f"record type {record_type:#010x}"


def check_padding(padding: Buffer, offset: int, record: str) -> None:
    """The bytes after a record's body, at most seven, must be zero. Raises StreamError."""
    for index, byte in enumerate(bytes(padding)):
        if byte:
            raise StreamError(
                f"padding byte is {byte:#04x}",
                offset=offset + index,
                record=record,
                expected="zero",
            )


def check_length(data: Buffer, length: int, offset: int, record: str) -> None:
    """``data`` must be exactly ``length`` bytes. Raises StreamError."""
    if len(data) != length:
        raise StreamError(
            f"it is {len(data)} bytes long",
            offset=offset,
            record=record,
            expected=f"{length} bytes",
        )


def check_minimum(data: Buffer, length: int, offset: int, record: str) -> None:
    """``data`` must be at least ``length`` bytes. Raises StreamError."""
    if len(data) < length:
        raise StreamError(
            f"it is {len(data)} bytes long",
            offset=offset,
            record=record,
            expected=f"at least {length} bytes",
        )


def unpack_exact(layout: struct.Struct, data: Buffer, offset: int, record: str) -> tuple[Any, ...]:
    """The fields of ``data``, which must be exactly as long as ``layout``. Raises StreamError."""
    check_length(data, layout.size, offset, record)
    return layout.unpack(data)


def check_reserved(value: int, offset: int, record: str, field: str = "reserved field") -> None:
    """A reserved field must be zero. Raises StreamError."""
    if value:
        raise StreamError(f"{field} is {value:#x}", offset=offset, record=record, expected="zero")


def too_long(length: int, maximum: int, offset: int, record: str) -> StreamError:
    """What is wrong with a record whose length, at ``offset``, exceeds ``maximum`` bytes."""
    size = f"{maximum >> 20} MiB" if maximum >> 20 else f"{maximum} bytes"
    return StreamError(
        f"body length is {length:#x} ({length} bytes)",
        offset=offset,
        record=record,
        expected=f"at most {maximum:#x} ({size})",
    )
