"""Invariant: any 16 or 8 bytes are a libxl header that encodes to the same bytes, or a StreamError
at an offset within them; a record's length is at most 128 MiB, and its padding less than 8."""

from __future__ import annotations

from collections.abc import Mapping

from libxlsr.formats import libxl
from libxlsr.formats.records import decode_libxl_header

from ..invariants import decoded


def check(data: bytes) -> None:
    header = decoded(libxl.Header.decode, data[: libxl.HEADER_SIZE])
    if header is not None:
        assert header.encode() == data[: libxl.HEADER_SIZE]
    record = decoded(decode_libxl_header, data[: libxl.RECORD_HEADER_SIZE])
    if record is not None:
        assert record.encode() == data[: libxl.RECORD_HEADER_SIZE]
        assert record.length <= libxl.RECORD_LENGTH_MAX
        assert 0 <= record.padded_length - record.length < 8
        assert record.padded_length % 8 == 0
        assert record.name.isprintable()


def seeds() -> Mapping[str, bytes]:
    return {
        "header": libxl.Header().encode(),
        "legacy": libxl.Header(options=libxl.RESTORE_OPT_LEGACY).encode(),
        "end": libxl.RecordHeader(libxl.RecordType.END, 0).encode(),
        "context": libxl.RecordHeader(libxl.RecordType.EMULATOR_CONTEXT, 1234).encode(),
        "optional": libxl.RecordHeader(libxl.REC_TYPE_OPTIONAL | 7, 0xFFF).encode(),
    }
