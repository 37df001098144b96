"""libxl's stream: a 16-byte header, then records.

::

    header   ident u64 "LibxlFmt", version u32, options u32            (big-endian)
    record   type u32, length u32, body, zero padding to 8 bytes       (little-endian)
    emulator records' bodies begin with   emulator_id u32, index u32

Sources: docs/specs/libxl-migration-stream.pandoc; tools/libs/light/libxl_sr_stream_format.h, whose
names are used here. What there is to know of each type of record is in records.py, and the order
of records in libxl_order.py.
"""

from __future__ import annotations

import enum
import re
import struct
from typing import NamedTuple

from libxlsr.errors import StreamError
from libxlsr.formats.framing import (
    REC_TYPE_OPTIONAL,
    RECORD_HEADER_SIZE,
    Buffer,
    RecordFraming,
    check_minimum,
    check_padding,
    check_reserved,
    name_of_unknown,
    too_long,
    unpack_exact,
)
from libxlsr.formats.text import printable

__all__ = [
    "CHECKPOINT_NEW",
    "CHECKPOINT_SVM_READY",
    "CHECKPOINT_SVM_RESUMED",
    "CHECKPOINT_SVM_SUSPENDED",
    "EMULATOR_HEADER_SIZE",
    "EMULATOR_NAMES",
    "EMULATOR_QEMU_TRADITIONAL",
    "EMULATOR_QEMU_UPSTREAM",
    "EMULATOR_UNKNOWN",
    "HEADER_SIZE",
    "QEMU_VM_FILE_MAGIC",
    "RECORD_HEADER_SIZE",
    "RECORD_LENGTH_MAX",
    "REC_TYPE_OPTIONAL",
    "RESTORE_OPT_BIG_ENDIAN",
    "RESTORE_OPT_LEGACY",
    "RESTORE_STREAM_IDENT",
    "RESTORE_STREAM_VERSION",
    "XENSTORE_DATA_MAX",
    "CheckpointState",
    "EmulatorContext",
    "EmulatorXenstoreData",
    "Header",
    "RecordHeader",
    "RecordType",
    "check_padding",
    "record_name",
]

RESTORE_STREAM_IDENT = 0x4C6962786C466D74
RESTORE_STREAM_VERSION = 2
RESTORE_OPT_BIG_ENDIAN = 1 << 0
RESTORE_OPT_LEGACY = 1 << 1
_RESTORE_OPT_ALL = RESTORE_OPT_BIG_ENDIAN | RESTORE_OPT_LEGACY

#: libxl itself has no limit; this is libxc's REC_LENGTH_MAX (xg_sr_stream_format.h).
RECORD_LENGTH_MAX = 128 << 20

#: EMULATOR_XENSTORE_DATA's body, bytes. A device model has some ten keys of 100 bytes.
XENSTORE_DATA_MAX = 1 << 20

_HEADER = struct.Struct(">QII")
HEADER_SIZE = _HEADER.size


class RecordType(enum.IntEnum):
    """REC_TYPE_* of libxl_sr_stream_format.h."""

    END = 0
    LIBXC_CONTEXT = 1
    EMULATOR_XENSTORE_DATA = 2
    EMULATOR_CONTEXT = 3
    CHECKPOINT_END = 4
    CHECKPOINT_STATE = 5


def record_name(record_type: int) -> str:
    """The name of a record type; unknown ones are shown as a number."""
    try:
        return RecordType(record_type).name
    except ValueError:
        return name_of_unknown(record_type)


class Header(NamedTuple):
    """The 16 bytes that a libxl stream begins with."""

    version: int = RESTORE_STREAM_VERSION
    options: int = 0

    @property
    def is_legacy_converted(self) -> bool:
        """Whether convert-legacy-stream made this stream from one of Xen 4.5 or older."""
        return bool(self.options & RESTORE_OPT_LEGACY)

    def encode(self) -> bytes:
        return _HEADER.pack(RESTORE_STREAM_IDENT, self.version, self.options)

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> Header:
        """Raises StreamError for a wrong ident, version, byte order or reserved option bit."""
        name = "libxl header"
        ident, version, options = unpack_exact(_HEADER, data, offset, name)
        if ident != RESTORE_STREAM_IDENT:
            raise StreamError(
                f"ident is {ident:#018x}",
                offset=offset,
                record=name,
                expected=f'{RESTORE_STREAM_IDENT:#x} ("LibxlFmt")',
                remedy="this is not a libxl stream",
            )
        if version != RESTORE_STREAM_VERSION:
            raise StreamError(
                f"version is {version}",
                offset=offset + 8,
                record=name,
                expected=f"version {RESTORE_STREAM_VERSION}",
            )
        if options & RESTORE_OPT_BIG_ENDIAN:
            raise StreamError(
                "the stream is big-endian",
                offset=offset + 12,
                record=name,
                expected="a little-endian stream",
                remedy="no Xen host writes big-endian streams; the header is damaged",
            )
        check_reserved(options & ~_RESTORE_OPT_ALL, offset + 12, name, "reserved option bits")
        return cls(version, options)


class RecordHeader(RecordFraming):
    """The 8 bytes before a record's body; `records.decode_libxl_header` reads them."""

    @property
    def name(self) -> str:
        return record_name(self.type)


EMULATOR_UNKNOWN = 0
EMULATOR_QEMU_TRADITIONAL = 1  # no Xen from 4.21 on runs it, but older images name it
EMULATOR_QEMU_UPSTREAM = 2

QEMU_VM_FILE_MAGIC = b"QEVM"
"""What QEMU's state begins with (QEMU's migration/savevm.h)."""

EMULATOR_NAMES = {
    EMULATOR_UNKNOWN: "unknown (legacy stream)",
    EMULATOR_QEMU_TRADITIONAL: "qemu-traditional",
    EMULATOR_QEMU_UPSTREAM: "qemu-upstream",
}

_EMULATOR_HEADER = struct.Struct("<II")
EMULATOR_HEADER_SIZE = _EMULATOR_HEADER.size


def _decode_emulator_header(data: Buffer, offset: int, record: str) -> tuple[int, int]:
    check_minimum(data, EMULATOR_HEADER_SIZE, offset, record)
    emulator_id, index = _EMULATOR_HEADER.unpack_from(data)
    if emulator_id not in EMULATOR_NAMES:
        raise StreamError(
            f"emulator id is {emulator_id:#x}",
            offset=offset,
            record=record,
            expected="0 (unknown), 1 (qemu-traditional) or 2 (qemu-upstream)",
        )
    return emulator_id, index


#: libxl's sender writes keys below this node only (libxl_dom_save.c). The others in the device
#: model's directory ("state" above all) belong to the toolstack; a stream must not set them.
XENSTORE_KEY_PREFIX = "physmap/"
#: xen/include/public/io/xs_wire.h: XENSTORE_REL_PATH_MAX, XENSTORE_PAYLOAD_MAX.
XENSTORE_REL_PATH_MAX = 2048
XENSTORE_PAYLOAD_MAX = 4096

_KEY = rb"[A-Za-z0-9\-_@]+(?:/[A-Za-z0-9\-_@]+)*\Z"
_VALUE = rb"[\x20-\x7e]*\Z"


class EmulatorXenstoreData(NamedTuple):
    """Keys, relative to the device model's xenstore directory, and their values."""

    emulator_id: int
    emulator_index: int
    pairs: tuple[tuple[str, str], ...] = ()

    def encode(self) -> bytes:
        packed = "".join(f"{key}\0{value}\0" for key, value in self.pairs)
        return _EMULATOR_HEADER.pack(self.emulator_id, self.emulator_index) + packed.encode("ascii")

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> EmulatorXenstoreData:
        """Raises StreamError for anything but whole pairs of a key below physmap/ and a value.

        Keys have xenstore's characters (the spec: alphanumeric and ``-/_@``) and length, and come
        once; values are printable ASCII.
        """
        name = RecordType.EMULATOR_XENSTORE_DATA.name
        if len(data) > XENSTORE_DATA_MAX:
            raise too_long(len(data), XENSTORE_DATA_MAX, offset, name)
        emulator_id, index = _decode_emulator_header(data, offset, name)
        packed = bytes(data[EMULATOR_HEADER_SIZE:])
        offset += EMULATOR_HEADER_SIZE
        if packed and packed[-1]:
            raise StreamError(
                "the last string is not terminated",
                offset=offset + len(packed) - 1,
                record=name,
                expected="a NUL",
            )
        strings = packed.split(b"\0")[:-1]
        if len(strings) % 2:
            raise StreamError(
                "the last key has no value",
                offset=offset + len(packed) - len(strings[-1]) - 1,
                record=name,
                expected="pairs of key and value",
            )
        pairs: dict[str, str] = {}
        for untrusted_key, untrusted_value in zip(strings[::2], strings[1::2]):
            key = _check_key(untrusted_key, offset, name)
            if key in pairs:
                raise StreamError(f"key {key} comes twice", offset=offset, record=name)
            offset += len(untrusted_key) + 1
            pairs[key] = _check_value(untrusted_value, key, offset, name)
            offset += len(untrusted_value) + 1
        return cls(emulator_id, index, tuple(pairs.items()))


def _check_key(untrusted_key: bytes, offset: int, record: str) -> str:
    shown = printable(untrusted_key.decode("latin-1"), 60)
    if len(untrusted_key) > XENSTORE_REL_PATH_MAX or not re.match(_KEY, untrusted_key):
        raise StreamError(
            f"key '{shown}' is no relative xenstore path",
            offset=offset,
            record=record,
            expected=f"at most {XENSTORE_REL_PATH_MAX} letters, digits and -/_@",
        )
    key = untrusted_key.decode("ascii")
    if not key.startswith(XENSTORE_KEY_PREFIX):
        raise StreamError(
            f"key '{shown}' is not the device model's to set",
            offset=offset,
            record=record,
            expected=f"a key below {XENSTORE_KEY_PREFIX}",
        )
    return key


def _check_value(untrusted_value: bytes, key: str, offset: int, record: str) -> str:
    if len(untrusted_value) > XENSTORE_PAYLOAD_MAX or not re.match(_VALUE, untrusted_value):
        raise StreamError(
            f"the value of {printable(key, 60)} is no xenstore string",
            offset=offset,
            record=record,
            expected=f"at most {XENSTORE_PAYLOAD_MAX} characters of printable ASCII",
        )
    return untrusted_value.decode("ascii")


class EmulatorContext(NamedTuple):
    """The device model's state: a blob that only the emulator itself understands."""

    emulator_id: int
    emulator_index: int
    context: bytes

    def encode(self) -> bytes:
        return _EMULATOR_HEADER.pack(self.emulator_id, self.emulator_index) + self.context

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> EmulatorContext:
        """Raises StreamError for a short body and an unknown emulator."""
        name = RecordType.EMULATOR_CONTEXT.name
        emulator_id, index = _decode_emulator_header(data, offset, name)
        return cls(emulator_id, index, bytes(data[EMULATOR_HEADER_SIZE:]))


CHECKPOINT_NEW = 0
CHECKPOINT_SVM_SUSPENDED = 1
CHECKPOINT_SVM_READY = 2
CHECKPOINT_SVM_RESUMED = 3

_CHECKPOINT_STATE = struct.Struct("<I")


class CheckpointState(NamedTuple):
    """COLO's control word (CHECKPOINT_*). Four bytes: the spec's "padding" is the record's own."""

    id: int

    def encode(self) -> bytes:
        return _CHECKPOINT_STATE.pack(self.id)

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> CheckpointState:
        """Raises StreamError for a wrong length and an unknown control id."""
        name = RecordType.CHECKPOINT_STATE.name
        (control_id,) = unpack_exact(_CHECKPOINT_STATE, data, offset, name)
        if control_id > CHECKPOINT_SVM_RESUMED:
            raise StreamError(
                f"control id is {control_id:#x}", offset=offset, record=name, expected="0 to 3"
            )
        return cls(control_id)
