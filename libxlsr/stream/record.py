"""A record as the stream reader hands it over: decoded, and knowing where it stood."""

from __future__ import annotations

from dataclasses import dataclass

from libxlsr.formats import libxl
from libxlsr.formats.records import LibxlBody


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
    body: LibxlBody | None
    """Decoded; None for the types that have none."""

    def __str__(self) -> str:
        return label(self.number, self.type)


def label(number: int, record_type: int) -> str:
    """How messages name a record."""
    return f"record {number} ({libxl.record_name(record_type)})"
