"""Guests with page tables made by hand, as images."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from libxlsr.formats.hvm_context import HVM_SAVE_CODE_CPU, HvmContext, HvmSaveEntry
from libxlsr.formats.libxc import PAGE_SIZE, RecordType
from libxlsr.formats.libxc_pv import X86PvVcpu
from libxlsr.guest_state.hvm_cpu import HvmCpu
from libxlsr.guest_state.vcpu_guest_context import VcpuGuestContext
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.pages import stamped_page

PRESENT = 1
LARGE = 1 << 7 | PRESENT
CR0_PG_PE = 0x80000001
CR4_PSE = 1 << 4
CR4_PAE = 1 << 5
CR4_LA57 = 1 << 12
EFER_LMA = 1 << 10

Tables = Mapping[int, Mapping[int, int]]
"""Frame number of a table -> index -> entry."""


def table_page(entries: Mapping[int, int], width: int = 8) -> bytes:
    """The contents of a page table."""
    code = {4: "I", 8: "Q"}[width]
    count = PAGE_SIZE // width
    return struct.pack(f"<{count}{code}", *(entries.get(index, 0) for index in range(count)))


def content_with(tables: Tables, width: int = 8) -> Any:
    """A builder's ``content``: page tables in some frames, stamped pages in the others."""
    pages = {gfn: table_page(entries, width) for gfn, entries in tables.items()}

    def content(gfn: int, generation: int) -> bytes:
        return pages.get(gfn) or stamped_page(gfn, generation)

    return content


def hvm(
    registers: Mapping[str, int] | None = None,
    tables: Tables | None = None,
    *,
    entry_width: int = 8,
    guest: str = "pvh",
    **options: Any,
) -> StreamBuilder:
    """An HVM or PVH guest whose vCPU has these registers."""
    stream = StreamBuilder(guest, content=content_with(tables or {}, entry_width), **options)
    for part in [p for p in stream.parts if p.name == RecordType.HVM_CONTEXT.name]:
        assert isinstance(part.body, bytes)
        context = HvmContext.decode(part.body)
        cpu = HvmSaveEntry(HVM_SAVE_CODE_CPU, 0, HvmCpu(registers or {}, bytes(512), 1).encode())
        others = [entry for entry in context.entries if entry.typecode != HVM_SAVE_CODE_CPU]
        part.body = HvmContext((others[0], cpu, *others[1:])).encode()
    return stream


def pv(
    registers: Mapping[str, int] | None = None,
    tables: Tables | None = None,
    *,
    width: int = 8,
    **options: Any,
) -> StreamBuilder:
    """A PV guest whose vCPU has these registers."""
    stream = StreamBuilder("pv", guest_width=width, content=content_with(tables or {}), **options)
    context = VcpuGuestContext(width, registers or {})
    body = X86PvVcpu(RecordType.X86_PV_VCPU_BASIC, 0, context.encode()).encode()
    stream.find(RecordType.X86_PV_VCPU_BASIC).body = body
    return stream


def save(stream: StreamBuilder, path: Path) -> Path:
    """Write the image to a file."""
    path.write_bytes(stream.build())
    return path
