"""struct xen_domctl_ext_vcpucontext: what X86_PV_VCPU_EXTENDED says of a PV vCPU.

::

    vcpu u32, size u32, syscall32_callback_eip u64, sysenter_callback_eip u64,
    syscall32_callback_cs u16, sysenter_callback_cs u16, syscall32_disables_events u8,
    sysenter_disables_events u8, padding u16,
    mcg_cap u64, mci_ctl2_bank0 u64, mci_ctl2_bank1 u64, mcg_ext_ctl u64

Xen grew the structure over time, at its end. mcg_cap and what follows are its struct hvm_vmce_vcpu.
Where a guest makes system calls of 64 bits to is in vcpu_guest_context.

Sources: xen/include/public/domctl.h, xen/include/public/arch-x86/hvm/save.h.
"""

from __future__ import annotations

import struct

from libxlsr.formats.framing import Buffer

_FIELDS = (
    ("vcpu", "I"),
    ("size", "I"),
    ("syscall32_callback_eip", "Q"),
    ("sysenter_callback_eip", "Q"),
    ("syscall32_callback_cs", "H"),
    ("sysenter_callback_cs", "H"),
    ("syscall32_disables_events", "B"),
    ("sysenter_disables_events", "B"),
    ("", "2x"),
    ("mcg_cap", "Q"),
    ("mci_ctl2_bank0", "Q"),
    ("mci_ctl2_bank1", "Q"),
    ("mcg_ext_ctl", "Q"),
)


def decode_ext_vcpucontext(context: Buffer) -> dict[str, int]:
    """The fields by their names, as many as are whole in ``context``."""
    fields: dict[str, int] = {}
    position = 0
    for name, code in _FIELDS:
        layout = struct.Struct("<" + code)
        if position + layout.size > len(context):
            break
        if name:
            (fields[name],) = layout.unpack_from(context, position)
        position += layout.size
    return fields
