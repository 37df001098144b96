"""Whether the host can give the guest the CPU that it was saved with, before its memory is read.

The policy is at the start of the libxc stream. Where the image is a file it is looked at in
advance, without moving the file offset; on a pipe libxenguest finds out by itself, and its log
line says the same.
"""

from __future__ import annotations

import os

from libxlsr.errors import StreamError, TargetError
from libxlsr.formats import libxc
from libxlsr.formats.records import decode_libxc_header
from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenguest import set_domain_cpu_policy

_POLICY_MAX = 1 << 20
"""Bytes of a policy that are read; a real one has a few KiB (CPUID_MAX_SERIALISED_LEAVES)."""

_RECORDS_MAX = 8
"""Records that are looked at: both policies are among the first three."""


def set_cpu_policy(xenctrl: Xenctrl, domid: int, fd: int, offset: int) -> None:
    """Set the policies in the libxc stream at ``offset`` of the file on the new domain.

    Raises TargetError that names the CPUID leaf or MSR which the host can't give. What is wrong
    with the stream itself is left to libxenguest.
    """
    leaves, msrs = _policies(fd, offset)
    if not leaves and not msrs:
        return
    refused = set_domain_cpu_policy(xenctrl, domid, leaves, msrs)
    if refused is not None:
        raise TargetError(
            f"this host's CPU can't run the guest as it was saved: {refused} does not fit",
            errno=refused.errno,
            call="xc_set_domain_cpu_policy",
            remedy="restore it on a host with the same CPU model or a newer one of the same maker",
        )


def _policies(fd: int, offset: int) -> tuple[bytes, bytes]:
    leaves = msrs = b""
    position = offset + libxc.IMAGE_HEADER_SIZE + libxc.DOMAIN_HEADER_SIZE
    for _ in range(_RECORDS_MAX):
        raw = os.pread(fd, libxc.RECORD_HEADER_SIZE, position)
        try:
            header = decode_libxc_header(raw, position)
        except StreamError:
            break
        position += libxc.RECORD_HEADER_SIZE
        if header.type in (libxc.RecordType.STATIC_DATA_END, libxc.RecordType.PAGE_DATA):
            break
        if header.length > _POLICY_MAX:
            break
        if header.type == libxc.RecordType.X86_CPUID_POLICY:
            leaves = os.pread(fd, header.length, position)
        elif header.type == libxc.RecordType.X86_MSR_POLICY:
            msrs = os.pread(fd, header.length, position)
        position += header.padded_length
    return leaves, msrs
