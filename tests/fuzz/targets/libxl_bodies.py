"""Invariant: any body of any libxl record, padding included, is decoded to what encodes to the same
bytes, or is a StreamError at an offset within it. Byte 0 chooses the record's type."""

from __future__ import annotations

from collections.abc import Mapping

from libxlsr.formats import libxl
from libxlsr.formats.framing import padded_length
from libxlsr.formats.records import LibxlBody, decode_libxl_body

from ..invariants import decoded

TYPES = list(libxl.RecordType)


def check(data: bytes) -> None:
    if not data:
        return
    record_type, body = TYPES[data[0] % len(TYPES)], data[1:]
    if record_type is libxl.RecordType.CHECKPOINT_STATE:
        state = decoded(libxl.CheckpointState.decode, body)
        assert state is None or state.encode() == body
        return
    for spare in range(min(8, len(body) + 1)):
        length = len(body) - spare
        if padded_length(length) == len(body):
            _check_padded(libxl.RecordHeader(record_type, length), body)


def _check_padded(header: libxl.RecordHeader, data: bytes) -> None:
    def decode(padded: bytes, offset: int) -> tuple[LibxlBody | None]:
        return (decode_libxl_body(header, padded, offset),)

    result = decoded(decode, data)
    if result is not None:
        assert not any(data[header.length :])
        (body,) = result
        assert body is None or body.encode() == data[: header.length]


def seeds() -> Mapping[str, bytes]:
    keys = libxl.EmulatorXenstoreData(2, 0, (("physmap/f0/start_addr", "f0000000"),))
    context = libxl.EmulatorContext(2, 0, b"QEVM\0\0\0\3")
    place = {known: bytes([TYPES.index(known)]) for known in TYPES}
    return {
        "end": place[libxl.RecordType.END],
        "xenstore": place[libxl.RecordType.EMULATOR_XENSTORE_DATA] + keys.encode() + bytes(1),
        "context": place[libxl.RecordType.EMULATOR_CONTEXT] + context.encode(),
        "state": place[libxl.RecordType.CHECKPOINT_STATE] + libxl.CheckpointState(3).encode(),
    }
