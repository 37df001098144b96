"""A guest's state but its memory, decoded into names and values that JSON can hold.

Registers, addresses and masks are strings in hexadecimal, as 64 bits are more than many readers
of JSON take; counts are numbers. What does not decode is left out: verify says why.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from libxlsr.contents.collector import Collector
from libxlsr.errors import StreamError
from libxlsr.formats import libxl
from libxlsr.formats.cpu_policy import XEN_CPUID_NO_SUBLEAF, X86CpuidPolicy, X86MsrPolicy
from libxlsr.formats.cpuid_features import feature_names
from libxlsr.formats.hvm_context import HVM_SAVE_CODE_CPU, HvmContext, HvmSaveEntry
from libxlsr.formats.hvm_cpu import HvmCpu
from libxlsr.formats.hvm_devices import decode_device
from libxlsr.formats.hvm_params import HvmParams, hvm_param_name
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import SharedInfo, X86PvInfo, X86PvP2mFrames, X86PvVcpu
from libxlsr.formats.libxc_records import TSC_MODE_NAMES, RecordBody, X86TscInfo, decode_body
from libxlsr.formats.qemu_state import QemuState
from libxlsr.formats.shared_info import SharedInfoPage
from libxlsr.formats.vcpu_guest_context import VcpuGuestContext

_PENDING_SHOWN = 64


def guest_state(contents: Collector) -> dict[str, Any]:
    """The state by kind: ``tsc``, ``hvm_params``, ``hvm_context``, ``vcpus``, ``cpuid``, …"""
    state: dict[str, Any] = {}
    width = 8
    for name, (record_type, data) in sorted(contents.state.items(), key=_pv_info_first):
        body = decode_body(record_type, data, guest_width=width)
        if isinstance(body, X86PvInfo):
            width = body.guest_width
        _add(state, name, body, width)
    _add_emulator(state, contents)
    return state


def _pv_info_first(item: tuple[str, tuple[RecordType, bytes]]) -> tuple[int, int, str]:
    name, (record_type, _) = item
    number = name.rpartition(" ")[2]
    return (
        0 if record_type is RecordType.X86_PV_INFO else 1,
        int(number) if number.isdigit() else -1,
        name,
    )


def _add(state: dict[str, Any], name: str, body: RecordBody, width: int) -> None:
    if isinstance(body, X86PvInfo):
        state["pv_info"] = body._asdict()
    elif isinstance(body, X86PvP2mFrames):
        state["p2m"] = {
            "first_pfn": _hex(body.start_pfn),
            "last_pfn": _hex(body.end_pfn),
            "frames": len(body.p2m_pfns),
        }
    elif isinstance(body, X86PvVcpu):
        vcpu = state.setdefault("vcpus", {}).setdefault(str(body.vcpu_id), {})
        vcpu[_KINDS[body.type]] = _vcpu(body)
    elif isinstance(body, SharedInfo):
        state["shared_info"] = _shared_info(body, width)
    elif isinstance(body, X86TscInfo):
        state["tsc"] = {**body._asdict(), "mode": TSC_MODE_NAMES[body.mode]}
    elif isinstance(body, HvmParams):
        state["hvm_params"] = {hvm_param_name(index): _hex(value) for index, value in body.params}
    elif isinstance(body, HvmContext):
        state["hvm_context"] = {
            f"{entry.name}[{entry.instance}]": _hvm_entry(entry) for entry in body.entries
        }
    elif isinstance(body, X86CpuidPolicy):
        state["cpuid"] = {
            "leaves": {
                _leaf_name(leaf.leaf, leaf.subleaf): {
                    register: f"{getattr(leaf, register):#010x}" for register in "abcd"
                }
                for leaf in body.leaves
            },
            "features": feature_names(body.leaves),
        }
    elif isinstance(body, X86MsrPolicy):
        state["msrs"] = {_hex(msr.idx): _hex(msr.val) for msr in body.msrs}


_KINDS = {
    RecordType.X86_PV_VCPU_BASIC: "registers",
    RecordType.X86_PV_VCPU_EXTENDED: "extended",
    RecordType.X86_PV_VCPU_XSAVE: "xsave",
    RecordType.X86_PV_VCPU_MSRS: "msrs",
}


def _vcpu(body: X86PvVcpu) -> Any:
    if body.type is RecordType.X86_PV_VCPU_BASIC:
        return _registers(VcpuGuestContext.decode(body.context).registers)
    if body.type is RecordType.X86_PV_VCPU_MSRS:
        return {
            _hex(index): _hex(value) for index, _, value in struct.iter_unpack("<IIQ", body.context)
        }
    if body.type is RecordType.X86_PV_VCPU_XSAVE and body.context:
        xcr0, xcr0_accum = struct.unpack_from("<QQ", body.context)
        return {"xcr0": _hex(xcr0), "xcr0_accum": _hex(xcr0_accum), "bytes": len(body.context)}
    return {"bytes": len(body.context)}


def _hvm_entry(entry: HvmSaveEntry) -> Any:
    try:
        if entry.typecode == HVM_SAVE_CODE_CPU:
            cpu = HvmCpu.decode(entry.state)
            return _registers(cpu.registers)
        decoded = decode_device(entry.name, entry.state)
    except StreamError:
        decoded = None
    if decoded is None:
        return {"bytes": len(entry.state), "hex": entry.state[:256].hex()}
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


def _add_emulator(state: dict[str, Any], contents: Collector) -> None:
    if contents.emulator_keys is not None:
        state["emulator_keys"] = dict(contents.emulator_keys.pairs)
    if contents.emulator is None:
        return
    blob = contents.device_model_state
    emulator: dict[str, Any] = {
        "emulator": libxl.EMULATOR_NAMES[contents.emulator.emulator_id],
        "index": contents.emulator.emulator_index,
        "bytes": len(blob),
    }
    try:
        qemu = QemuState.decode(blob)
    except StreamError:
        pass
    else:
        emulator.update(
            version=qemu.version,
            machine=qemu.machine,
            sections=[vars(section).copy() for section in qemu.sections],
            description=qemu.description,
        )
    state["emulator"] = emulator


def _registers(values: Mapping[str, int | list[int]]) -> dict[str, Any]:
    return {
        name: [_hex(item) for item in value] if isinstance(value, list) else _hex(value)
        for name, value in values.items()
    }


def _leaf_name(leaf: int, subleaf: int) -> str:
    return f"{leaf:#010x}" if subleaf == XEN_CPUID_NO_SUBLEAF else f"{leaf:#010x}.{subleaf}"


def _hex(value: int) -> str:
    return f"{value:#x}"


def flattened(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    """``(path, leaf)`` of each value in nested objects; lists are leaves."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flattened(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
