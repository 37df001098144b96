"""What records say of vCPUs and devices, as names and values that JSON can hold."""

from __future__ import annotations

import struct
from typing import Any

from libxlsr.errors import StreamError
from libxlsr.formats.hvm_context import HVM_SAVE_CODE_CPU, HvmSaveEntry
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import XSAVE_MIN, X86PvVcpu
from libxlsr.guest_state.ext_vcpucontext import decode_ext_vcpucontext
from libxlsr.guest_state.hvm_cpu import HvmCpu
from libxlsr.guest_state.hvm_devices import CPU_XSAVE_AREA, decode_device
from libxlsr.guest_state.vcpu_guest_context import VcpuGuestContext
from libxlsr.guest_state.xsave_area import (
    FXSAVE_SIZE,
    XSAVE_HEADER_SIZE,
    fxsave_registers,
    xsave_header,
)
from libxlsr.tools.inspect.registers import hexadecimal, registers

_HEX_SHOWN = 256

VCPU_KINDS = {
    RecordType.X86_PV_VCPU_BASIC: "registers",
    RecordType.X86_PV_VCPU_EXTENDED: "extended",
    RecordType.X86_PV_VCPU_XSAVE: "xsave",
    RecordType.X86_PV_VCPU_MSRS: "msrs",
}
"""What a vCPU's records are called in the description."""


def pv_vcpu(body: X86PvVcpu) -> Any:
    """The values of one of a PV guest's vCPU's records."""
    if not body.context:  # Xen 4.6 to 4.8 wrote such records
        return {}
    if body.type is RecordType.X86_PV_VCPU_BASIC:
        return _guest_context(VcpuGuestContext.decode(body.context))
    if body.type is RecordType.X86_PV_VCPU_EXTENDED:
        return registers(decode_ext_vcpucontext(body.context))
    if body.type is RecordType.X86_PV_VCPU_XSAVE:
        return _pv_xsave(body.context)
    return {
        hexadecimal(index): hexadecimal(value)
        for index, _, value in struct.iter_unpack("<IIQ", body.context)
    }


def _guest_context(context: VcpuGuestContext) -> dict[str, Any]:
    return {
        **registers(context.registers),
        "fpu": registers(fxsave_registers(context.fpu_ctxt)),
        "traps": {
            str(place): f"{trap.cs:#x}:{trap.address:#x} flags {trap.flags:#x}"
            for place, trap in context.traps().items()
        },
    }


def _pv_xsave(context: bytes) -> dict[str, Any]:
    xcr0, xcr0_accum = struct.unpack_from("<QQ", context)
    values: dict[str, Any] = {
        "bytes": len(context),
        **registers({"xcr0": xcr0, "xcr0_accum": xcr0_accum}),
    }
    area = context[XSAVE_MIN:]
    if len(area) >= FXSAVE_SIZE + XSAVE_HEADER_SIZE:
        values.update(registers(xsave_header(area)), fpu=registers(fxsave_registers(area)))
    return values


def hvm_entry(entry: HvmSaveEntry) -> dict[str, Any]:
    """The values of a device's or vCPU's entry in HVM_CONTEXT."""
    try:
        if entry.typecode == HVM_SAVE_CODE_CPU:
            return _hvm_cpu(HvmCpu.decode(entry.state))
        decoded = decode_device(entry.name, entry.state)
    except StreamError:
        decoded = None
    if decoded is None:
        return {"bytes": len(entry.state), "hex": entry.state[:_HEX_SHOWN].hex()}
    values = registers(decoded)
    if entry.name == "CPU_XSAVE":
        values["fpu"] = registers(fxsave_registers(entry.state[CPU_XSAVE_AREA:]))
    return values


def _hvm_cpu(cpu: HvmCpu) -> dict[str, Any]:
    flags = {} if cpu.flags is None else {"flags": cpu.flags}
    return {
        **registers({**cpu.registers, **flags}),
        "fpu": registers(fxsave_registers(cpu.fpu_regs)),
    }
