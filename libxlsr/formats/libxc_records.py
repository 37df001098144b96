"""The bodies of those of libxc's records that belong to no kind of domain.

====================  =========================================================================
PV records            libxc_pv.py
HVM_PARAMS            hvm_params.py
HVM_CONTEXT           hvm_context.py
X86_*_POLICY          cpu_policy.py
PAGE_DATA             page_data.py
the others            here
====================  =========================================================================

``records.decode_libxc_body`` decodes any of them.

Source: docs/specs/libxc-migration-stream.pandoc.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Union

from libxlsr.errors import StreamError
from libxlsr.formats.cpu_policy import X86CpuidPolicy, X86MsrPolicy
from libxlsr.formats.framing import Buffer, check_reserved, unpack_exact
from libxlsr.formats.hvm_context import HvmContext
from libxlsr.formats.hvm_params import HvmParams
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import SharedInfo, X86PvInfo, X86PvP2mFrames, X86PvVcpu
from libxlsr.formats.page_data import GFN_LIMIT

#: XEN_CPUID_TSC_MODE_* (xen/include/public/arch-x86/cpuid.h). Xen 4.13 and older have PVRDTSCP.
TSC_MODE_NAMES = {0: "default", 1: "always_emulate", 2: "native", 3: "native_paravirt"}

_TSC_INFO = struct.Struct("<IIQII")


class X86TscInfo(NamedTuple):
    """The domain's TSC: mode, frequency in kHz, nanoseconds that passed, incarnation."""

    mode: int
    khz: int
    nsec: int
    incarnation: int

    def encode(self) -> bytes:
        return _TSC_INFO.pack(self.mode, self.khz, self.nsec, self.incarnation, 0)

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> X86TscInfo:
        """Raises StreamError for a wrong length, an unknown mode or a reserved field."""
        name = RecordType.X86_TSC_INFO.name
        mode, khz, nsec, incarnation, reserved = unpack_exact(_TSC_INFO, data, offset, name)
        if mode not in TSC_MODE_NAMES:
            raise StreamError(
                f"TSC mode is {mode:#x}", offset=offset, record=name, expected="0 to 3"
            )
        check_reserved(reserved, offset + 20, name)
        return cls(mode, khz, nsec, incarnation)


class Toolstack(NamedTuple):
    """A blob of the toolstack's; only Xen's development between 4.5 and 4.6 wrote it."""

    data: bytes

    def encode(self) -> bytes:
        return self.data

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> Toolstack:
        return cls(bytes(data))


class CheckpointDirtyPfnList(NamedTuple):
    """Frames that the secondary domain dirtied. COLO's back channel carries it."""

    pfns: tuple[int, ...]

    def encode(self) -> bytes:
        return struct.pack(f"<{len(self.pfns)}Q", *self.pfns)

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> CheckpointDirtyPfnList:
        """Raises StreamError for a part of a pfn, and for one that x86 can't have."""
        name = RecordType.CHECKPOINT_DIRTY_PFN_LIST.name
        if len(data) % 8:
            raise StreamError(
                f"it is {len(data)} bytes long",
                offset=offset,
                record=name,
                expected="a multiple of 8 bytes",
            )
        pfns = struct.unpack(f"<{len(data) // 8}Q", data)
        for number, pfn in enumerate(pfns):
            if pfn >= GFN_LIMIT:
                raise StreamError(
                    f"pfn is {pfn:#x}",
                    offset=offset + 8 * number,
                    record=name,
                    expected=f"less than {GFN_LIMIT:#x}",
                )
        return cls(pfns)


class Empty(NamedTuple):
    """The body of END, VERIFY, CHECKPOINT and STATIC_DATA_END: nothing."""

    type: RecordType

    def encode(self) -> bytes:
        return b""


RecordBody = Union[
    CheckpointDirtyPfnList,
    Empty,
    HvmContext,
    HvmParams,
    SharedInfo,
    Toolstack,
    X86CpuidPolicy,
    X86MsrPolicy,
    X86PvInfo,
    X86PvP2mFrames,
    X86PvVcpu,
    X86TscInfo,
]
"""Any body but PAGE_DATA's, which is not meant to be held in memory."""
