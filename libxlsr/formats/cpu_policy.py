"""X86_CPUID_POLICY and X86_MSR_POLICY: the processor that the domain was given.

::

    xen_cpuid_leaf_t   leaf u32, subleaf u32, a u32, b u32, c u32, d u32
    xen_msr_entry_t    idx u32, flags u32 (zero), val u64

Sources: docs/specs/libxc-migration-stream.pandoc; xen/include/public/arch-x86/xen.h.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from libxlsr.errors import StreamError
from libxlsr.formats.framing import Buffer, check_reserved
from libxlsr.formats.libxc import RecordType

XEN_CPUID_NO_SUBLEAF = 0xFFFFFFFF

#: So many leaves or MSRs are taken. Xen writes fewer than 200 (CPUID_MAX_SERIALISED_LEAVES and
#: MSR_MAX_SERIALISED_ENTRIES in xen/include/xen/lib/x86).
POLICY_ENTRIES_MAX = 4096


class CpuidLeaf(NamedTuple):
    """xen_cpuid_leaf_t: what CPUID returns for one leaf and subleaf."""

    leaf: int
    subleaf: int
    a: int
    b: int
    c: int
    d: int


class MsrEntry(NamedTuple):
    """xen_msr_entry_t: one MSR's value. ``flags`` must be zero."""

    idx: int
    flags: int
    val: int


_LEAF = struct.Struct("<6I")
_MSR = struct.Struct("<IIQ")


class X86CpuidPolicy(NamedTuple):
    """What CPUID says in the domain, leaf by leaf."""

    leaves: tuple[CpuidLeaf, ...]

    def encode(self) -> bytes:
        return b"".join(_LEAF.pack(*leaf) for leaf in self.leaves)

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> X86CpuidPolicy:
        """Raises StreamError for no leaves and for a part of one."""
        _check_array(data, _LEAF.size, offset, RecordType.X86_CPUID_POLICY.name)
        return cls(tuple(CpuidLeaf(*fields) for fields in _LEAF.iter_unpack(data)))


class X86MsrPolicy(NamedTuple):
    """The MSRs that describe the domain's processor."""

    msrs: tuple[MsrEntry, ...]

    def encode(self) -> bytes:
        return b"".join(_MSR.pack(*msr) for msr in self.msrs)

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> X86MsrPolicy:
        """Raises StreamError for no entries, a part of one, and for flags other than zero."""
        name = RecordType.X86_MSR_POLICY.name
        _check_array(data, _MSR.size, offset, name)
        msrs = tuple(MsrEntry(*fields) for fields in _MSR.iter_unpack(data))
        for number, msr in enumerate(msrs):
            check_reserved(msr.flags, offset + _MSR.size * number + 4, name, "flags")
        return cls(msrs)


def _check_array(data: Buffer, size: int, offset: int, record: str) -> None:
    if len(data) == 0 or len(data) % size:
        raise StreamError(
            f"it is {len(data)} bytes long",
            offset=offset,
            record=record,
            expected=f"a multiple of {size} bytes",
        )
    if len(data) // size > POLICY_ENTRIES_MAX:
        raise StreamError(
            f"{len(data) // size} entries",
            offset=offset,
            record=record,
            expected=f"at most {POLICY_ENTRIES_MAX}",
        )
