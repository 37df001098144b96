"""A record as the stream reader hands it over: decoded, and knowing where it stood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from libxlsr.formats import libxl
from libxlsr.formats.framing import Buffer

Body = Union[None, libxl.EmulatorXenstoreData, libxl.EmulatorContext]
"""The decoded body; None for the types that have none."""


@dataclass(frozen=True)
class Record:
    """One libxl record of a known type."""

    type: libxl.RecordType
    length: int
    """The body's length in bytes, without its padding."""
    number: int
    """Counts the stream's records, from 1."""
    offset: int | None
    """Of the record's header in the stream; None where that can't be known."""
    body: Body

    def __str__(self) -> str:
        return label(self.number, self.type)


def label(number: int, record_type: int) -> str:
    """How messages name a record."""
    return f"record {number} ({libxl.record_name(record_type)})"


def decode_body(header: libxl.RecordHeader, data: Buffer, offset: int) -> Body:
    """The body of a record of a known type from its bytes, padding included.

    Raises StreamError when they are not as the spec says; ``offset`` is that of the first byte.
    """
    view = memoryview(data)
    libxl.check_padding(view[header.length :], offset + header.length, header.name)
    body = view[: header.length]
    if header.type == libxl.RecordType.EMULATOR_XENSTORE_DATA:
        return libxl.EmulatorXenstoreData.decode(body, offset)
    if header.type == libxl.RecordType.EMULATOR_CONTEXT:
        return libxl.EmulatorContext.decode(body, offset)
    return None
