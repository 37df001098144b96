"""The bodies of the records that only x86 PV domains have.

====================  =================================================================
X86_PV_INFO           guest_width u8, pt_levels u8, zero[6]
X86_PV_P2M_FRAMES     start_pfn u32, end_pfn u32, the pfn u64 of each frame of the p2m
X86_PV_VCPU_*         vcpu_id u32, zero u32, what the hypercall of that name returned
SHARED_INFO           the shared info page
====================  =================================================================

Sources: docs/specs/libxc-migration-stream.pandoc; tools/libs/guest/xg_sr_stream_format.h; the
checks of tools/libs/guest/xg_sr_restore_x86_pv.c.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from libxlsr.errors import StreamError
from libxlsr.formats.framing import (
    Buffer,
    check_length,
    check_minimum,
    check_reserved,
    unpack_exact,
)
from libxlsr.formats.libxc import PAGE_SIZE, RecordType

#: guest_width in bytes -> levels of page tables: 32-bit PAE and 64-bit guests, no others.
PT_LEVELS = {4: 3, 8: 4}

_PV_INFO = struct.Struct("<BB6s")


class X86PvInfo(NamedTuple):
    """Whether the guest is a 32-bit (width 4, 3 levels) or a 64-bit one (8, 4)."""

    guest_width: int
    pt_levels: int

    def encode(self) -> bytes:
        return _PV_INFO.pack(self.guest_width, self.pt_levels, bytes(6))

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> X86PvInfo:
        """Raises StreamError for a wrong length, another combination, or a reserved byte."""
        name = RecordType.X86_PV_INFO.name
        width, levels, reserved = unpack_exact(_PV_INFO, data, offset, name)
        if PT_LEVELS.get(width) != levels:
            raise StreamError(
                f"guest width {width} with {levels} levels of page tables",
                offset=offset,
                record=name,
                expected="4 with 3, or 8 with 4",
            )
        check_reserved(int.from_bytes(reserved, "little"), offset + 2, name)
        return cls(width, levels)


_P2M_FRAMES = struct.Struct("<II")


class X86PvP2mFrames(NamedTuple):
    """Which guest frames hold the p2m, for the frames of it that cover start_pfn to end_pfn."""

    start_pfn: int
    end_pfn: int
    p2m_pfns: tuple[int, ...]

    def encode(self) -> bytes:
        return _P2M_FRAMES.pack(self.start_pfn, self.end_pfn) + struct.pack(
            f"<{len(self.p2m_pfns)}Q", *self.p2m_pfns
        )

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0, guest_width: int = 8) -> X86PvP2mFrames:
        """``guest_width`` (4 or 8) is X86_PV_INFO's: it says how many pfns a frame covers.

        Raises StreamError for a range that ends before it starts, another number of frames than
        it takes, and a frame that no 32-bit end_pfn can cover.
        """
        name = RecordType.X86_PV_P2M_FRAMES.name
        check_minimum(data, _P2M_FRAMES.size, offset, name)
        start, end = _P2M_FRAMES.unpack_from(data)
        if start > end:
            raise StreamError(
                f"the range starts at pfn {start:#x} and ends at {end:#x}",
                offset=offset,
                record=name,
                expected="an end that is not before the start",
            )
        per_frame = PAGE_SIZE // guest_width
        frames = end // per_frame - start // per_frame + 1
        length = _P2M_FRAMES.size + 8 * frames
        if len(data) != length:
            raise StreamError(
                f"it is {len(data)} bytes long",
                offset=offset,
                record=name,
                expected=f"{length} bytes for pfns {start:#x} to {end:#x}",
            )
        pfns = struct.unpack_from(f"<{frames}Q", data, _P2M_FRAMES.size)
        if max(pfns) > 0xFFFFFFFF:
            index = next(index for index, pfn in enumerate(pfns) if pfn > 0xFFFFFFFF)
            raise StreamError(
                f"frame {index} of the p2m is at pfn {pfns[index]:#x}",
                offset=offset + _P2M_FRAMES.size + 8 * index,
                record=name,
                expected="a pfn of 32 bits",
            )
        return cls(start, end, pfns)

    def extend(self, covered: int, offset: int = 0) -> int:
        """The number of pfns that are covered after this record, where ``covered`` were before.

        Raises StreamError where a gap is left. So the p2m never has more than 1024 entries
        for each 8 bytes received, and an end_pfn alone can't make a reader allocate. Every sender
        writes one record that starts at 0.
        """
        if self.start_pfn > covered:
            raise StreamError(
                f"the range starts at pfn {self.start_pfn:#x}",
                offset=offset,
                record=RecordType.X86_PV_P2M_FRAMES.name,
                expected=f"at most {covered:#x}, the end of what came before",
            )
        return max(covered, self.end_pfn + 1)


_VCPU = struct.Struct("<II")
#: guest_width -> sizeof(vcpu_guest_context_t) (tools/include/xen-foreign/reference.size).
VCPU_GUEST_CONTEXT_SIZE = {4: 2800, 8: 5168}
#: XEN_DOMCTL_get_ext_vcpucontext's reply, at the most (xen_domctl_ext_vcpucontext).
EXTENDED_MAX = 128
#: The two words that come first in an XSAVE area: xcr0 and xcr0_accum.
XSAVE_MIN = 16
#: sizeof(xen_domctl_vcpu_msr_t)
VCPU_MSR_SIZE = 16
#: xen/arch/x86/include/asm/config.h
MAX_VIRT_CPUS = 8192

VCPU_RECORDS = frozenset(
    {
        RecordType.X86_PV_VCPU_BASIC,
        RecordType.X86_PV_VCPU_EXTENDED,
        RecordType.X86_PV_VCPU_XSAVE,
        RecordType.X86_PV_VCPU_MSRS,
    }
)


class X86PvVcpu(NamedTuple):
    """One vCPU's state of one kind (X86_PV_VCPU_BASIC, _EXTENDED, _XSAVE or _MSRS)."""

    type: RecordType
    vcpu_id: int
    context: bytes

    def encode(self) -> bytes:
        return _VCPU.pack(self.vcpu_id, 0) + self.context

    @classmethod
    def decode(
        cls, data: Buffer, offset: int = 0, *, record_type: RecordType, guest_width: int = 8
    ) -> X86PvVcpu:
        """Raises StreamError for a wrong length or an impossible vCPU.

        An empty context is taken except for BASIC: Xen 4.6 to 4.8 wrote such records (the spec's
        erratum 1).
        """
        name = record_type.name
        check_minimum(data, _VCPU.size, offset, name)
        vcpu_id, reserved = _VCPU.unpack_from(data)
        if vcpu_id >= MAX_VIRT_CPUS:
            raise StreamError(
                f"vCPU {vcpu_id}", offset=offset, record=name, expected=f"less than {MAX_VIRT_CPUS}"
            )
        check_reserved(reserved, offset + 4, name)
        context = bytes(data[_VCPU.size :])
        expected = _context_problem(record_type, len(context), guest_width)
        if expected is not None:
            raise StreamError(
                f"vCPU {vcpu_id}'s context is {len(context)} bytes long",
                offset=offset + _VCPU.size,
                record=name,
                expected=expected,
            )
        return cls(record_type, vcpu_id, context)


def _context_problem(record_type: RecordType, size: int, guest_width: int) -> str | None:
    """What the size of a vCPU's context should be, None where it is right."""
    if record_type is RecordType.X86_PV_VCPU_BASIC:
        wanted = VCPU_GUEST_CONTEXT_SIZE[guest_width]
        return None if size == wanted else f"{wanted} bytes"
    if size == 0:
        return None
    if record_type is RecordType.X86_PV_VCPU_EXTENDED:
        return None if size <= EXTENDED_MAX else f"at most {EXTENDED_MAX} bytes"
    if record_type is RecordType.X86_PV_VCPU_XSAVE:
        return None if size >= XSAVE_MIN else f"at least {XSAVE_MIN} bytes"
    return None if size % VCPU_MSR_SIZE == 0 else f"a multiple of {VCPU_MSR_SIZE} bytes"


class SharedInfo(NamedTuple):
    """The page that the domain shares with Xen."""

    shared_info: bytes

    def encode(self) -> bytes:
        return self.shared_info

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> SharedInfo:
        """Raises StreamError for anything but one page."""
        check_length(data, PAGE_SIZE, offset, RecordType.SHARED_INFO.name)
        return cls(bytes(data))
