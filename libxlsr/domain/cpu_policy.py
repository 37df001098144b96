"""Gives a new domain the CPU that its guest was saved with, before its memory is read.

The policy is at the start of the libxc stream. Where the image is a file it is looked at in
advance, without moving the file offset; on a pipe libxenguest finds out by itself whether the host
can give it, and its log line says the same.
"""

from __future__ import annotations

import struct
from contextlib import suppress

from libxlsr.errors import TargetError
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_records import RecordBody
from libxlsr.libxc.record_walk import CannotGoOn
from libxlsr.libxc.visitor import Problem, Record, Visitor
from libxlsr.libxc.walker import Walker
from libxlsr.source.file_reader import FileReader
from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenguest import set_domain_cpu_policy

_POLICY_MAX = 1 << 20
"""Bytes of a policy that are read; a real one has a few KiB (CPUID_MAX_SERIALISED_LEAVES)."""

_LEAF = struct.Struct("<6I")
"""xen_cpuid_leaf_t."""

_RECORDS_MAX = 8
"""Records that are looked at: both policies are among the first three."""


CPU_VENDORS = {
    "GenuineIntel": "Intel",
    "AuthenticAMD": "AMD",
    "HygonGenuine": "Hygon",
    "CentaurHauls": "Centaur",
    "  Shanghai  ": "Zhaoxin",
}
"""What CPUID leaf 0 says, and whose it is: every vendor that Xen knows."""


def set_cpu_policy(
    xenctrl: Xenctrl, domid: int, fd: int, offset: int, *, host_vendor: str | None
) -> None:
    """Set the policies in the libxc stream at ``offset`` of the file on the new domain.

    ``host_vendor`` is this host's, as CPUID leaf 0 has it; None where it is not known.

    Raises TargetError that names the CPUID leaf or MSR which the host can't give, or the vendors of
    the two CPUs where they differ: Xen runs no guest of another since 4.22 (fc30191a6a). What is
    wrong with the stream itself is left to libxenguest.
    """
    leaves, msrs = _policies(fd, offset)
    if not leaves and not msrs:
        return
    refused = set_domain_cpu_policy(xenctrl, domid, leaves, msrs)
    if refused is None:
        return
    vendor = _vendor(leaves)
    if vendor is not None and host_vendor is not None and vendor != host_vendor:
        raise TargetError(
            "the image comes from a host with another vendor's CPU: it is for "
            f"{CPU_VENDORS.get(vendor, vendor)}, and this host has "
            f"{CPU_VENDORS.get(host_vendor, host_vendor)}",
            errno=refused.errno,
            call="xc_set_domain_cpu_policy",
            remedy="restore it on a host with a CPU of the same vendor",
        )
    raise TargetError(
        f"this host's CPU can't run the guest as it was saved: {refused} does not fit",
        errno=refused.errno,
        call="xc_set_domain_cpu_policy",
        remedy="restore it on a host with the same CPU model or a newer one of the same vendor",
    )


def _vendor(leaves: bytes) -> str | None:
    """The vendor in CPUID leaf 0 of a policy; None where there is none that could be shown."""
    whole = len(leaves) // _LEAF.size * _LEAF.size
    for leaf, _subleaf, _a, b, c, d in _LEAF.iter_unpack(leaves[:whole]):
        if leaf == 0:
            text = struct.pack("<3I", b, d, c).decode("latin-1")
            return text if text.isascii() and text.isprintable() else None
    return None


class _Policies(Visitor):
    """Keeps the bytes of both policies."""

    def __init__(self) -> None:
        self.leaves = self.msrs = b""

    def record(self, record: Record) -> None:
        static_data_ends = record.type in (RecordType.STATIC_DATA_END, RecordType.PAGE_DATA)
        if static_data_ends or record.number > _RECORDS_MAX or record.length > _POLICY_MAX:
            raise CannotGoOn

    def libxc_body(self, record: Record, body: RecordBody, data: memoryview) -> None:
        if record.type == RecordType.X86_CPUID_POLICY:
            self.leaves = bytes(data)
        elif record.type == RecordType.X86_MSR_POLICY:
            self.msrs = bytes(data)

    def problem(self, problem: Problem) -> None:
        raise CannotGoOn


def _policies(fd: int, offset: int) -> tuple[bytes, bytes]:
    policies = _Policies()
    walker = Walker(FileReader(fd, position=offset, offset=offset), policies)
    with suppress(CannotGoOn):
        walker.headers()
        walker.section()
    return policies.leaves, policies.msrs
