"""The body of each of libxc's records, and the few that belong to no kind of domain.

====================  =========================================================================
all but PAGE_DATA     ``decode_body()``
PV records            libxc_pv.py
HVM_PARAMS            hvm_params.py
HVM_CONTEXT           hvm_context.py
X86_*_POLICY          cpu_policy.py
PAGE_DATA             page_data.py: its contents are not meant to be held in memory
the others            here
====================  =========================================================================

Source: docs/specs/libxc-migration-stream.pandoc.
"""

from __future__ import annotations

import struct
from typing import Callable, NamedTuple, Union

from libxlsr.errors import StreamError
from libxlsr.formats.cpu_policy import X86CpuidPolicy, X86MsrPolicy
from libxlsr.formats.framing import Buffer, check_length, check_reserved, unpack_exact
from libxlsr.formats.hvm_context import HvmContext
from libxlsr.formats.hvm_params import HvmParams
from libxlsr.formats.libxc import EMPTY_RECORDS, RecordType
from libxlsr.formats.libxc_pv import (
    VCPU_RECORDS,
    SharedInfo,
    X86PvInfo,
    X86PvP2mFrames,
    X86PvVcpu,
)
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

_DECODERS: dict[int, Callable[[Buffer, int], RecordBody]] = {
    RecordType.X86_PV_INFO: X86PvInfo.decode,
    RecordType.SHARED_INFO: SharedInfo.decode,
    RecordType.X86_TSC_INFO: X86TscInfo.decode,
    RecordType.HVM_CONTEXT: HvmContext.decode,
    RecordType.HVM_PARAMS: HvmParams.decode,
    RecordType.TOOLSTACK: Toolstack.decode,
    RecordType.CHECKPOINT_DIRTY_PFN_LIST: CheckpointDirtyPfnList.decode,
    RecordType.X86_CPUID_POLICY: X86CpuidPolicy.decode,
    RecordType.X86_MSR_POLICY: X86MsrPolicy.decode,
}


def decode_body(
    record_type: RecordType, data: Buffer, offset: int = 0, *, guest_width: int = 8
) -> RecordBody:
    """The body of any record but PAGE_DATA, at the absolute ``offset``, without its padding.

    ``guest_width`` is X86_PV_INFO's; PV records that come after it depend on it. Raises
    StreamError, and ValueError for PAGE_DATA.
    """
    if record_type in EMPTY_RECORDS:
        check_length(data, 0, offset, record_type.name)
        return Empty(record_type)
    if record_type is RecordType.X86_PV_P2M_FRAMES:
        return X86PvP2mFrames.decode(data, offset, guest_width)
    if record_type in VCPU_RECORDS:
        return X86PvVcpu.decode(data, offset, record_type=record_type, guest_width=guest_width)
    if record_type not in _DECODERS:
        raise ValueError(f"{record_type.name} is decoded by page_data.py")
    return _DECODERS[record_type](data, offset)
