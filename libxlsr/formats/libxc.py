"""libxc's image, nested in libxl's stream: two headers, then records.

::

    image header    marker u64 all ones, id u32 "XENF", version u32, options u16, zero  (big-endian)
    domain header   type u32, page_shift u16, zero u16, xen_major u32, xen_minor u32
    record          type u32, length u32, body, zero padding to 8 bytes

Everything after the image header is little-endian. What there is to know of each type of record is
in records.py, the order of records in libxc_order.py, PAGE_DATA's body in page_data.py.

Sources: docs/specs/libxc-migration-stream.pandoc; tools/libs/guest/xg_sr_stream_format.h, whose
names are used here.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from libxlsr.errors import StreamError
from libxlsr.formats.framing import (
    REC_TYPE_OPTIONAL,
    RECORD_HEADER_SIZE,
    Buffer,
    RecordFraming,
    check_padding,
    check_reserved,
    name_of_unknown,
    unpack_exact,
)

__all__ = [
    "DHDR_TYPE_X86_HVM",
    "DHDR_TYPE_X86_PV",
    "DOMAIN_HEADER_SIZE",
    "IHDR_ID",
    "IHDR_MARKER",
    "IHDR_OPT_BIG_ENDIAN",
    "IMAGE_HEADER_SIZE",
    "LARGEST_BODY",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "RECORD_HEADER_SIZE",
    "REC_LENGTH_MAX",
    "REC_TYPE_OPTIONAL",
    "DomainHeader",
    "ImageHeader",
    "RecordHeader",
    "RecordType",
    "check_padding",
    "record_name",
]

IHDR_MARKER = 0xFFFFFFFFFFFFFFFF
IHDR_ID = 0x58454E46
IHDR_OPT_BIG_ENDIAN = 1 << 0
IHDR_VERSIONS = (2, 3)

_IMAGE_HEADER = struct.Struct(">QIIHHI")
IMAGE_HEADER_SIZE = _IMAGE_HEADER.size

DHDR_TYPE_X86_PV = 1
DHDR_TYPE_X86_HVM = 2

_DOMAIN_HEADER = struct.Struct("<IHHII")
DOMAIN_HEADER_SIZE = _DOMAIN_HEADER.size

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

REC_LENGTH_MAX = 128 << 20

LARGEST_BODY = 16 << 20
"""Bytes of a record but PAGE_DATA. The largest that Xen writes is HVM_CONTEXT, with some 16 KiB a
vCPU, and X86_PV_P2M_FRAMES, which has 16 MiB for a guest of 4 TiB. libxenguest takes
REC_LENGTH_MAX; a record that is held in memory is not to take that much of it."""


class ImageHeader(NamedTuple):
    """The first 24 bytes. ``version`` is 2 (Xen 4.6 to 4.13) or 3."""

    version: int = 3
    options: int = 0

    def encode(self) -> bytes:
        return _IMAGE_HEADER.pack(IHDR_MARKER, IHDR_ID, self.version, self.options, 0, 0)

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> ImageHeader:
        """Raises StreamError for a wrong marker, id, version, byte order or reserved field."""
        name = "libxc image header"
        marker, ident, version, options, res1, res2 = unpack_exact(
            _IMAGE_HEADER, data, offset, name
        )
        if marker != IHDR_MARKER:
            raise StreamError(
                f"marker is {marker:#018x}",
                offset=offset,
                record=name,
                expected=f"{IHDR_MARKER:#x}",
                remedy="this is no libxc image, or one of Xen 4.5 or older",
            )
        if ident != IHDR_ID:
            raise StreamError(
                f"id is {ident:#010x}",
                offset=offset + 8,
                record=name,
                expected=f'{IHDR_ID:#x} ("XENF")',
            )
        if version not in IHDR_VERSIONS:
            raise StreamError(
                f"version is {version}", offset=offset + 12, record=name, expected="2 or 3"
            )
        if options & IHDR_OPT_BIG_ENDIAN:
            raise StreamError(
                "the image is big-endian",
                offset=offset + 16,
                record=name,
                expected="a little-endian image",
                remedy="no Xen host writes big-endian images; the header is damaged",
            )
        check_reserved(options, offset + 16, name, "reserved option bits")
        check_reserved(res1, offset + 18, name)
        check_reserved(res2, offset + 20, name)
        return cls(version, options)


class DomainHeader(NamedTuple):
    """What kind of domain was saved, and by which Xen. PVH domains have type x86 HVM."""

    type: int
    xen_major: int
    xen_minor: int
    page_shift: int = PAGE_SHIFT

    @property
    def is_pv(self) -> bool:
        return self.type == DHDR_TYPE_X86_PV

    @property
    def is_legacy_converted(self) -> bool:
        """Whether convert-legacy-stream wrote this image; ``xen_minor`` is then its version."""
        return self.xen_major == 0

    def encode(self) -> bytes:
        return _DOMAIN_HEADER.pack(self.type, self.page_shift, 0, self.xen_major, self.xen_minor)

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> DomainHeader:
        """Raises StreamError for a reserved type or field and for any page size but 4096."""
        name = "libxc domain header"
        guest_type, page_shift, res1, xen_major, xen_minor = unpack_exact(
            _DOMAIN_HEADER, data, offset, name
        )
        if guest_type not in (DHDR_TYPE_X86_PV, DHDR_TYPE_X86_HVM):
            raise StreamError(
                f"guest type is {guest_type:#x}",
                offset=offset,
                record=name,
                expected="1 (x86 PV) or 2 (x86 HVM)",
            )
        if page_shift != PAGE_SHIFT:
            raise StreamError(
                f"page shift is {page_shift}",
                offset=offset + 4,
                record=name,
                expected=f"{PAGE_SHIFT} (pages of {PAGE_SIZE} bytes)",
            )
        check_reserved(res1, offset + 6, name)
        return cls(guest_type, xen_major, xen_minor, page_shift)


class RecordType(enum.IntEnum):
    """REC_TYPE_* of xg_sr_stream_format.h."""

    END = 0x00
    PAGE_DATA = 0x01
    X86_PV_INFO = 0x02
    X86_PV_P2M_FRAMES = 0x03
    X86_PV_VCPU_BASIC = 0x04
    X86_PV_VCPU_EXTENDED = 0x05
    X86_PV_VCPU_XSAVE = 0x06
    SHARED_INFO = 0x07
    X86_TSC_INFO = 0x08
    HVM_CONTEXT = 0x09
    HVM_PARAMS = 0x0A
    TOOLSTACK = 0x0B
    X86_PV_VCPU_MSRS = 0x0C
    VERIFY = 0x0D
    CHECKPOINT = 0x0E
    CHECKPOINT_DIRTY_PFN_LIST = 0x0F
    STATIC_DATA_END = 0x10
    X86_CPUID_POLICY = 0x11
    X86_MSR_POLICY = 0x12


def record_name(record_type: int) -> str:
    """The name of a record type; unknown ones are shown as a number."""
    try:
        return RecordType(record_type).name
    except ValueError:
        return name_of_unknown(record_type)


class RecordHeader(RecordFraming):
    """The 8 bytes before a record's body; `records.decode_libxc_header` reads them."""

    @property
    def name(self) -> str:
        return record_name(self.type)
