"""Records of a guest's state decoded into names and values that JSON can hold.

Registers, addresses and masks are strings in hexadecimal, as 64 bits are more than many readers
of JSON take; counts are numbers. What does not decode is left out: verify says why.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from libxlsr.errors import StreamError
from libxlsr.formats import libxl
from libxlsr.formats.cpu_policy import XEN_CPUID_NO_SUBLEAF, X86CpuidPolicy, X86MsrPolicy
from libxlsr.formats.cpuid_features import feature_names
from libxlsr.formats.hvm_context import HVM_SAVE_CODE_CPU, HvmSaveEntry
from libxlsr.formats.hvm_cpu import HvmCpu
from libxlsr.formats.hvm_devices import decode_device
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import SharedInfo, X86PvInfo, X86PvVcpu
from libxlsr.formats.libxc_records import TSC_MODE_NAMES, RecordBody, X86TscInfo
from libxlsr.formats.qemu_state import QemuState
from libxlsr.formats.shared_info import SharedInfoPage
from libxlsr.formats.vcpu_guest_context import VcpuGuestContext

_PENDING_SHOWN = 64
_HEX_SHOWN = 256

VCPU_KINDS = {
    RecordType.X86_PV_VCPU_BASIC: "registers",
    RecordType.X86_PV_VCPU_EXTENDED: "extended",
    RecordType.X86_PV_VCPU_XSAVE: "xsave",
    RecordType.X86_PV_VCPU_MSRS: "msrs",
}
"""What a vCPU's records are called in the description."""


def record_values(body: RecordBody, width: int) -> tuple[str, Any]:
    """A record's kind and its values; ``width`` is X86_PV_INFO's ``guest_width``.

    Records of a vCPU, of devices, and those that add to one another have functions of their own.
    """
    if isinstance(body, X86PvInfo):
        return "pv_info", body._asdict()
    if isinstance(body, SharedInfo):
        return "shared_info", _shared_info(body, width)
    if isinstance(body, X86TscInfo):
        return "tsc", {**body._asdict(), "mode": TSC_MODE_NAMES[body.mode]}
    if isinstance(body, X86CpuidPolicy):
        return "cpuid", _cpuid(body)
    assert isinstance(body, X86MsrPolicy)
    return "msrs", {hexadecimal(msr.idx): hexadecimal(msr.val) for msr in body.msrs}


def _cpuid(body: X86CpuidPolicy) -> dict[str, Any]:
    return {
        "leaves": {
            _leaf_name(leaf.leaf, leaf.subleaf): {
                register: f"{getattr(leaf, register):#010x}" for register in "abcd"
            }
            for leaf in body.leaves
        },
        "features": feature_names(body.leaves),
    }


def pv_vcpu(body: X86PvVcpu) -> Any:
    """The values of one of a PV guest's vCPU's records."""
    if body.type is RecordType.X86_PV_VCPU_BASIC:
        return _registers(VcpuGuestContext.decode(body.context).registers)
    if body.type is RecordType.X86_PV_VCPU_MSRS:
        return {
            hexadecimal(index): hexadecimal(value)
            for index, _, value in struct.iter_unpack("<IIQ", body.context)
        }
    if body.type is RecordType.X86_PV_VCPU_XSAVE and body.context:
        xcr0, xcr0_accum = struct.unpack_from("<QQ", body.context)
        return {
            "xcr0": hexadecimal(xcr0),
            "xcr0_accum": hexadecimal(xcr0_accum),
            "bytes": len(body.context),
        }
    return {"bytes": len(body.context)}


def hvm_entry(entry: HvmSaveEntry) -> Any:
    """The values of a device's entry in HVM_CONTEXT."""
    try:
        if entry.typecode == HVM_SAVE_CODE_CPU:
            cpu = HvmCpu.decode(entry.state)
            return _registers(cpu.registers)
        decoded = decode_device(entry.name, entry.state)
    except StreamError:
        decoded = None
    if decoded is None:
        return {"bytes": len(entry.state), "hex": entry.state[:_HEX_SHOWN].hex()}
    return _registers(decoded)


def _shared_info(body: SharedInfo, width: int) -> dict[str, Any]:
    page = SharedInfoPage.decode(body.shared_info, width)
    return {
        "wc_version": page.wc_version,
        "wc_sec": page.wc_sec,
        "wc_nsec": page.wc_nsec,
        "booted": _date(page.wc_sec),
        "pending_event_channels": list(page.pending[:_PENDING_SHOWN]),
        "pending": len(page.pending),
        "unmasked": page.unmasked,
    }


def _date(seconds: int) -> str | None:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
    except (OverflowError, ValueError, OSError):
        return None


def emulator(head: libxl.EmulatorContext, size: int, state: bytes) -> dict[str, Any]:
    """The values of EMULATOR_CONTEXT, whose device model's state has ``size`` bytes."""
    emulator: dict[str, Any] = {
        "emulator": libxl.EMULATOR_NAMES[head.emulator_id],
        "index": head.emulator_index,
        "bytes": size,
    }
    try:
        qemu = QemuState.decode(state)
    except StreamError:
        pass
    else:
        emulator.update(
            version=qemu.version,
            machine=qemu.machine,
            sections=[vars(section).copy() for section in qemu.sections],
            description_bytes=qemu.description_size,
            description=qemu.description,
        )
    return emulator


def _registers(values: Mapping[str, int | list[int]]) -> dict[str, Any]:
    return {
        name: [hexadecimal(item) for item in value]
        if isinstance(value, list)
        else hexadecimal(value)
        for name, value in values.items()
    }


def _leaf_name(leaf: int, subleaf: int) -> str:
    return f"{leaf:#010x}" if subleaf == XEN_CPUID_NO_SUBLEAF else f"{leaf:#010x}.{subleaf}"


def hexadecimal(value: int) -> str:
    """A register, an address or a mask."""
    return f"{value:#x}"
