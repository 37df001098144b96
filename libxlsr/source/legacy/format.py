"""Images of Xen 4.5 and older: what stands in them, and how they are told apart.

::

    header     p2m_size (unsigned long of the toolstack that saved it)
    PV         ~0 (unsigned long), length u32, blocks: id char[4], length u32, data
                   "vcpu" a vcpu_guest_context, "extv" nothing, "xcnt" u32 size of XSAVE data
               the pfn (unsigned long) of each frame of the p2m
    chunks     i32: > 0  so many frames: unsigned long each, type in bits 31-28; contents
                    < 0  XC_SAVE_ID_*
                      0  the last one
    PV         number u32 of unmapped pfns, unsigned long each
               for each vCPU: context, 128 bytes if "extv", mask u64 size u64 data if "xcnt"
               the shared info page
    HVM        three pfns u64: ioreq, buffered ioreq, store; length u32, HVM context
               signature char[21], length u32 (not after QemuDeviceModelRecord), QEMU's state

Nothing says whether the toolstack was a 32- or a 64-bit one, or the guest PV or HVM; both follow
from what can't be otherwise (``recognise_legacy``).

Sources: tools/libxc/xg_save_restore.h, xc_domain_restore.c and tools/libxl/libxl_dom.c of Xen 4.5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from libxlsr.errors import StreamError
from libxlsr.formats.framing import Buffer
from libxlsr.formats.libxl import EMULATOR_UNKNOWN, XENSTORE_PAYLOAD_MAX, EmulatorXenstoreData
from libxlsr.formats.text import printable

XC_SAVE_ID_ENABLE_VERIFY_MODE = -1
XC_SAVE_ID_VCPU_INFO = -2
XC_SAVE_ID_TMEM = -5
XC_SAVE_ID_TMEM_EXTRA = -6
XC_SAVE_ID_TSC_INFO = -7
XC_SAVE_ID_LAST_CHECKPOINT = -9
XC_SAVE_ID_COMPRESSED_DATA = -12
XC_SAVE_ID_ENABLE_COMPRESSION = -13
XC_SAVE_ID_TOOLSTACK = -18

#: Chunks that are one HVM parameter (4 bytes of padding, then u64), and which.
HVM_PARAM_CHUNKS = {
    -3: 12,  # HVM_PARAM_IDENT_PT
    -4: 15,  # HVM_PARAM_VM86_TSS
    -8: 17,  # HVM_PARAM_CONSOLE_PFN
    -10: 19,  # HVM_PARAM_ACPI_IOPORTS_LOCATION
    -11: 9,  # HVM_PARAM_VIRIDIAN
    -14: 34,  # HVM_PARAM_VM_GENERATION_ID_ADDR
    -15: 27,  # HVM_PARAM_PAGING_RING_PFN
    -16: 28,  # HVM_PARAM_MONITOR_RING_PFN, then called ACCESS
    -17: 29,  # HVM_PARAM_SHARING_RING_PFN
    -19: 32,  # HVM_PARAM_IOREQ_SERVER_PFN
    -20: 33,  # HVM_PARAM_NR_IOREQ_SERVER_PAGES
    -21: 36,  # HVM_PARAM_X87_FIP_WIDTH
}

CHUNK_NAMES = {
    XC_SAVE_ID_ENABLE_VERIFY_MODE: "ENABLE_VERIFY_MODE",
    XC_SAVE_ID_VCPU_INFO: "VCPU_INFO",
    XC_SAVE_ID_TMEM: "TMEM",
    XC_SAVE_ID_TMEM_EXTRA: "TMEM_EXTRA",
    XC_SAVE_ID_TSC_INFO: "TSC_INFO",
    XC_SAVE_ID_LAST_CHECKPOINT: "LAST_CHECKPOINT",
    XC_SAVE_ID_COMPRESSED_DATA: "COMPRESSED_DATA",
    XC_SAVE_ID_ENABLE_COMPRESSION: "ENABLE_COMPRESSION",
    XC_SAVE_ID_TOOLSTACK: "TOOLSTACK",
}

MAX_BATCH_SIZE = 1024
XC_SR_MAX_VCPUS = 4096
PFN_LIMIT = 1 << 28
"""Frames have 28 bits: the upper four of 32 are the type."""

PFN_MASK = PFN_LIMIT - 1
FILLER = 0xF0000000
"""XTAB of frame 0: what a sender wrote for frames that it couldn't map."""

EXTENDED_SIZE = 128
QEMU_SIGNATURE_SIZE = 21
QEMU_WITH_LENGTH = (b"DeviceModelRecord0002", b"RemusDeviceModelState")
QEMU_TO_EOF = b"QemuDeviceModelRecord"

RECOGNISE_SIZE = 16
"""Bytes that ``recognise_legacy`` needs."""

TOOLSTACK_VERSION = 1
_TOOLSTACK_HEADER = struct.Struct("<II")
_PHYSMAP_INFO = struct.Struct("<QQQI")


def chunk_name(chunk: int) -> str:
    """What a chunk is called in messages."""
    if chunk in HVM_PARAM_CHUNKS:
        return f"chunk {chunk} (an HVM parameter)"
    if chunk in CHUNK_NAMES:
        return f"chunk {chunk} ({CHUNK_NAMES[chunk]})"
    return f"chunk {chunk}"


@dataclass(frozen=True)
class LegacyKind:
    """How a legacy image has to be read."""

    width: int
    """Bytes of the toolstack's unsigned long: 4 or 8."""
    is_pv: bool

    @property
    def word(self) -> str:
        """The struct code of an unsigned long."""
        return {4: "I", 8: "Q"}[self.width]


def recognise_legacy(data: Buffer) -> LegacyKind | None:
    """How the image that begins with ``data`` (16 bytes) has to be read; None if it is none.

    The p2m size is below 2**28, so that the second word of 32 bits is 0 in a 64-bit toolstack's
    image; in a 32-bit one's it is all ones for PV, and the first chunk's type for HVM.
    """
    p2m_size, second, third, fourth = struct.unpack_from("<IIII", data)
    ones = 0xFFFFFFFF
    if not 0 < p2m_size < PFN_LIMIT:
        return None
    if second == ones and third != ones:
        return LegacyKind(4, True)
    if second == 0 and third == fourth == ones:
        return LegacyKind(8, True)
    width, first_chunk = (8, third) if second == 0 else (4, second)
    chunk = first_chunk - (1 << 32) if first_chunk >> 31 else first_chunk
    if 0 < chunk <= MAX_BATCH_SIZE or chunk in CHUNK_NAMES or chunk in HVM_PARAM_CHUNKS:
        return LegacyKind(width, False)
    return None


def decode_toolstack(data: Buffer, width: int, offset: int) -> EmulatorXenstoreData:
    """The physmap entries of libxl's toolstack chunk, as the xenstore keys that they become.

    ``width`` is the toolstack's: a 64-bit one pads struct libxl__physmap_info to 32 bytes, so that
    4 bytes follow each name. Raises StreamError.
    """
    pairs: list[tuple[str, str]] = []
    for phys_offset, start_addr, size, name in _physmap_entries(bytes(data), width, offset):
        root = f"physmap/{phys_offset:x}"
        pairs.append((f"{root}/start_addr", f"{start_addr:x}"))
        pairs.append((f"{root}/size", f"{size:x}"))
        if name:
            pairs.append((f"{root}/name", name))
    return EmulatorXenstoreData(EMULATOR_UNKNOWN, 0, tuple(pairs))


def _physmap_entries(data: bytes, width: int, offset: int) -> Iterator[tuple[int, int, int, str]]:
    def wrong(message: str, position: int, expected: str) -> StreamError:
        return StreamError(
            message, offset=offset + position, record="chunk -18 (TOOLSTACK)", expected=expected
        )

    if len(data) < _TOOLSTACK_HEADER.size:
        raise wrong(f"it is {len(data)} bytes long", 0, "at least 8 bytes")
    version, count = _TOOLSTACK_HEADER.unpack_from(data)
    if version != TOOLSTACK_VERSION:
        raise wrong(f"version is {version}", 0, f"{TOOLSTACK_VERSION}")
    position = _TOOLSTACK_HEADER.size
    seen: set[int] = set()
    for _ in range(count):
        if len(data) - position < _PHYSMAP_INFO.size:
            raise wrong(f"{len(data) - position} bytes are left", position, "a physmap entry")
        *numbers, length = _PHYSMAP_INFO.unpack_from(data, position)
        if numbers[0] in seen:
            raise wrong(f"physmap entry {numbers[0]:#x} comes twice", position, "each entry once")
        seen.add(numbers[0])
        position += _PHYSMAP_INFO.size
        padding = 4 if width == 8 else 0
        if length + padding > len(data) - position:
            raise wrong(f"the name's length is {length}", position - 4, "less than what is left")
        untrusted_name = data[position : position + length]
        text = untrusted_name.rstrip(b"\0")
        if len(text) > XENSTORE_PAYLOAD_MAX:
            raise wrong(
                f"the name's length is {length}", position - 4, f"at most {XENSTORE_PAYLOAD_MAX}"
            )
        if b"\0" in text or not text.isascii() or not text.decode("ascii").isprintable():
            raise wrong(f"the name is {printable(repr(text), 80)}", position, "printable ASCII")
        yield numbers[0], numbers[1], numbers[2], text.decode("ascii")
        position += length + padding
