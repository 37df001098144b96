"""What records say of a whole guest, as names and values that JSON can hold."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from libxlsr.errors import StreamError
from libxlsr.formats import libxl
from libxlsr.formats.cpu_policy import XEN_CPUID_NO_SUBLEAF, X86CpuidPolicy, X86MsrPolicy
from libxlsr.formats.libxc_pv import SharedInfo, X86PvInfo
from libxlsr.formats.libxc_records import TSC_MODE_NAMES, RecordBody, X86TscInfo
from libxlsr.guest_state.cpuid_features import feature_names
from libxlsr.guest_state.qemu_state import QemuState
from libxlsr.guest_state.shared_info import SharedInfoPage
from libxlsr.tools.inspect.registers import hexadecimal

_PENDING_SHOWN = 64


def record_values(body: RecordBody, width: int) -> tuple[str, Any] | None:
    """A record's kind and its values; None for one whose values are not shown.

    ``width`` is X86_PV_INFO's ``guest_width``.

    Records of a vCPU and of devices (vcpu_values.py), and those that add to one another are decoded
    elsewhere.
    """
    if isinstance(body, X86PvInfo):
        return "pv_info", body._asdict()
    if isinstance(body, SharedInfo):
        return "shared_info", _shared_info(body, width)
    if isinstance(body, X86TscInfo):
        return "tsc", {**body._asdict(), "mode": TSC_MODE_NAMES[body.mode]}
    if isinstance(body, X86CpuidPolicy):
        return "cpuid", _cpuid(body)
    if isinstance(body, X86MsrPolicy):
        return "msrs", {hexadecimal(msr.idx): hexadecimal(msr.val) for msr in body.msrs}
    return None


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


def _shared_info(body: SharedInfo, width: int) -> dict[str, Any]:
    page = SharedInfoPage.decode(body.shared_info, width)
    return {
        "wc_version": page.wc_version,
        "wc_sec": page.wc_sec,
        "wc_nsec": page.wc_nsec,
        "wallclock_base": _date(page.wc_sec),
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


def _leaf_name(leaf: int, subleaf: int) -> str:
    return f"{leaf:#010x}" if subleaf == XEN_CPUID_NO_SUBLEAF else f"{leaf:#010x}.{subleaf}"
