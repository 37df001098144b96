"""The format ``xen-core``: what ``xl dump-core`` writes.

::

    ELF header, section headers
    .note.Xen         what this is, versions, numbers of vCPUs and pages
    .xen_prstatus     a struct vcpu_guest_context for each vCPU, a 32-bit one padded to the length
                      of a 64-bit one (vcpu_guest_context_any_t)
    .xen_shared_info  PV: the shared info page
    .xen_pages        the pages
    .xen_pfn          HVM and PVH: the frame number u64 of each page
    .xen_p2m          PV: the frame number u64 of each page, twice: a saved guest has no machine
                      frames, and its page tables hold guest frames
    .shstrtab         the names

What the contexts, the machine and the version note are is decided by what a PV guest was built as;
an HVM or PVH guest's core is a 64-bit one, whatever mode its vCPUs are in.

Sources: docs/misc/dump-core-format.txt; tools/libs/guest/xg_core.c and xg_core.h;
xen/include/public/elfnote.h and version.h.
"""

from __future__ import annotations

import json
import struct
import sys
from array import array
from collections.abc import Iterator

from libxlsr.formats import elf
from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.formats.libxc_pv import VCPU_GUEST_CONTEXT_SIZE
from libxlsr.restoring.image import layout
from libxlsr.tools.extract.request import Guest

XEN_ELFNOTE_DUMPCORE_NONE = 0x2000000
XEN_ELFNOTE_DUMPCORE_HEADER = 0x2000001
XEN_ELFNOTE_DUMPCORE_XEN_VERSION = 0x2000002
XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION = 0x2000003
XC_CORE_MAGIC = 0xF00FEBED
XC_CORE_MAGIC_HVM = 0xF00FEBEE

FORMAT_VERSION = 0 << 32 | 1
_HEADER = struct.Struct("<4Q")
_XEN_VERSION = {
    width: struct.Struct(f"<QQ16s64s16s32s32s1024s64s{virt_start_and_page_size}")
    for width, virt_start_and_page_size in ((4, "IQ4x"), (8, "QQ"))
}
"""By the guest's width; both of the same length, elfnote_dump_xen_version()."""
_VIRT_START = {4: 0xF5800000, 8: 0xFFFF800000000000}
"""Where the machine-to-physical table begins: XENVER_platform_parameters."""

_PRSTATUS_SIZE = max(VCPU_GUEST_CONTEXT_SIZE.values())
_PFNS = 1 << 16
"""Frame numbers that are written in one go."""


def write(guest: Guest) -> int:
    """Write it; the size of the file in bytes. Raises StreamError and OSError."""
    is_pv = (guest.directory / layout.PV_INFO).exists()
    first, end = guest.frame_range()
    pages = sum(number for _, number in guest.frames.ranges(first, end))
    if not pages:
        raise guest.nothing_there()

    width = guest.width if is_pv else 8
    contexts = [vcpu.context.encode() for vcpu in guest.vcpus]
    parts = {
        ".note.Xen": _notes(guest, is_pv, width, pages),
        ".xen_prstatus": b"".join(context.ljust(_PRSTATUS_SIZE, b"\0") for context in contexts),
    }
    entry_sizes = {".xen_prstatus": _PRSTATUS_SIZE, ".xen_shared_info": PAGE_SIZE}
    if is_pv:
        parts[".xen_shared_info"] = (guest.directory / layout.SHARED_INFO).read_bytes()
    # A reader of volatility's takes the n-th name for the n-th section's.
    frame_section, entry = (".xen_p2m", 16) if is_pv else (".xen_pfn", 8)
    names = [".shstrtab", *parts, ".xen_pages", frame_section]
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    name_at = {name: strings.index(b"\0" + name.encode() + b"\0") + 1 for name in names}

    position = elf.EHDR_SIZE[64]
    shnum = len(names) + 1
    sections = {}

    def place(name: str, section_type: int, size: int, alignment: int, entry_size: int = 0) -> int:
        nonlocal position
        position += -position % alignment
        sections[name] = elf.SectionHeader(
            name_at[name], section_type, position, size, alignment, entry_size
        )
        start = position
        position += size
        return start

    position += shnum * elf.SHDR_SIZE
    for name, data in parts.items():
        section_type = elf.SHT_NOTE if name == ".note.Xen" else elf.SHT_PROGBITS
        start = place(name, section_type, len(data), 8, entry_sizes.get(name, 0))
        guest.output.write(data, start)
    pages_at = place(".xen_pages", elf.SHT_PROGBITS, pages * PAGE_SIZE, PAGE_SIZE, PAGE_SIZE)
    pfns_at = place(frame_section, elf.SHT_PROGBITS, pages * entry, 8, entry)
    guest.output.write(strings, place(".shstrtab", elf.SHT_STRTAB, len(strings), 1))

    for gfn, number in guest.frames.ranges(first, end):
        guest.output.copy_frames(guest.frames, gfn, gfn + number, pages_at)
        pages_at += number * PAGE_SIZE
        for data in _frame_numbers(gfn, number, entry // 8):
            guest.output.write(data, pfns_at)
            pfns_at += len(data)

    machine = elf.EM_386 if width == 4 else elf.EM_X86_64
    header = elf.file_header(64, machine, shoff=elf.EHDR_SIZE[64], shnum=shnum, shstrndx=1)
    headers = b"".join(sections[name].encode() for name in names)
    guest.output.write(header + bytes(elf.SHDR_SIZE) + headers, 0)
    return position


def _frame_numbers(gfn: int, number: int, copies: int) -> Iterator[bytes]:
    for start in range(gfn, gfn + number, _PFNS):
        frames = array("Q", range(start, min(start + _PFNS, gfn + number)))
        if sys.byteorder == "big":  # pragma: no cover - no such machine here
            frames.byteswap()
        if copies == 1:
            yield frames.tobytes()
            continue
        entries = memoryview(bytearray(copies * frames.itemsize * len(frames))).cast("Q")
        for column in range(copies):
            entries[column::copies] = memoryview(frames)
        yield entries.tobytes()


def _notes(guest: Guest, is_pv: bool, width: int, pages: int) -> bytes:
    magic = XC_CORE_MAGIC if is_pv else XC_CORE_MAGIC_HVM
    header = _HEADER.pack(magic, len(guest.vcpus), pages, PAGE_SIZE)
    major, minor = _xen_version(guest)
    empty = (b"",) * 7
    version = _XEN_VERSION[width].pack(major, minor, *empty, _VIRT_START[width], PAGE_SIZE)
    return (
        elf.note("Xen", XEN_ELFNOTE_DUMPCORE_NONE, b"")
        + elf.note("Xen", XEN_ELFNOTE_DUMPCORE_HEADER, header)
        + elf.note("Xen", XEN_ELFNOTE_DUMPCORE_XEN_VERSION, version)
        + elf.note("Xen", XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION, FORMAT_VERSION.to_bytes(8, "little"))
    )


def _xen_version(guest: Guest) -> tuple[int, int]:
    """Of the Xen that saved the guest, from the libxc domain header."""
    manifest = json.loads((guest.directory / layout.MANIFEST).read_bytes())
    major, minor = str(manifest["libxc"]["xen_version"]).split(".")
    return int(major), int(minor)
