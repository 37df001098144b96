"""libxl streams without a libxc part, put together record by record: for a stepped reader."""

from __future__ import annotations

from libxlsr.formats import libxl
from libxlsr.formats.framing import encode_record

T = libxl.RecordType
HEADER = libxl.Header().encode()
EMULATOR = libxl.EmulatorContext(libxl.EMULATOR_QEMU_UPSTREAM, 0, b"QEVM state").encode()
KEYS = libxl.EmulatorXenstoreData(
    libxl.EMULATOR_QEMU_UPSTREAM, 0, (("physmap/a0000/size", "20000"),)
).encode()
OPTIONAL = 0x8000_0001

BODIES = {T.EMULATOR_CONTEXT: EMULATOR, T.EMULATOR_XENSTORE_DATA: KEYS}


def record(record_type: int, body: bytes | None = None) -> bytes:
    """One record; without ``body`` the one that such a record usually has."""
    if body is None:
        body = BODIES.get(T(record_type), b"") if record_type < OPTIONAL else b""
    return encode_record(record_type, body)


def stream(*records: int | bytes) -> bytes:
    """The stream header and records, each a type or bytes."""
    return HEADER + b"".join(part if isinstance(part, bytes) else record(part) for part in records)


WHOLE = stream(T.LIBXC_CONTEXT, T.EMULATOR_XENSTORE_DATA, T.EMULATOR_CONTEXT, T.END)
