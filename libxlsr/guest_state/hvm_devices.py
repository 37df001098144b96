"""What the entries of HVM_CONTEXT hold, field by field, under their names in Xen's header.

CPU has a module of its own (hvm_cpu.py). A layout is a list of ``(name, struct code)``, or
``(name, struct code, number)`` for an array; a name that is empty is padding or reserved.

Source: xen/include/public/arch-x86/hvm/save.h.
"""

from __future__ import annotations

import struct
from typing import Union

from libxlsr.errors import StreamError
from libxlsr.formats.framing import Buffer
from libxlsr.formats.hvm_context import HVM_SAVE_SIZES, hvm_save_name

Field = Union["tuple[str, str]", "tuple[str, str, int]"]
Value = Union[int, "list[int]"]

_PIT_CHANNEL = (
    ("count", "I"),
    ("latched_count", "H"),
    *((name, "B") for name in ("count_latched", "status_latched", "status", "read_state")),
    *((name, "B") for name in ("write_state", "write_latch", "rw_mode", "mode", "bcd", "gate")),
)
#: Registers of a local APIC by their offset (Intel SDM, volume 3, table 11-1).
LAPIC_REGISTERS = {
    0x20: "id",
    0x30: "version",
    0x80: "tpr",
    0x90: "apr",
    0xA0: "ppr",
    0xD0: "ldr",
    0xE0: "dfr",
    0xF0: "svr",
    **{0x100 + 0x10 * number: f"isr{number}" for number in range(8)},
    **{0x180 + 0x10 * number: f"tmr{number}" for number in range(8)},
    **{0x200 + 0x10 * number: f"irr{number}" for number in range(8)},
    0x280: "esr",
    0x2F0: "lvt_cmci",
    0x300: "icr",
    0x310: "icr2",
    0x320: "lvt_timer",
    0x330: "lvt_thermal",
    0x340: "lvt_performance",
    0x350: "lvt_lint0",
    0x360: "lvt_lint1",
    0x370: "lvt_error",
    0x380: "timer_initial",
    0x390: "timer_current",
    0x3E0: "timer_divide",
}

CPU_XSAVE_AREA = 24
"""Where XSAVE's area begins in a CPU_XSAVE entry (xsave_area.py)."""

_LAYOUTS: dict[str, tuple[Field, ...]] = {
    "HEADER": (
        ("magic", "I"),
        ("version", "I"),
        ("changeset", "Q"),
        ("cpuid", "I"),
        ("gtsc_khz", "I"),
    ),
    "PIC": tuple(
        (name, "B")
        for name in ("irr", "imr", "isr", "irq_base", "init", "flags", "elcr", "int_output")
    ),
    "IOAPIC": (("base_address", "Q"), ("ioregsel", "I"), ("id", "I"), ("redirtbl", "Q", 48)),
    "LAPIC": (
        ("apic_base_msr", "Q"),
        ("disabled", "I"),
        ("timer_divisor", "I"),
        ("tdt_msr", "Q"),
        ("pending_esr", "I"),
        ("", "4x"),
    ),
    "PCI_IRQ": (("wires", "Q", 2),),
    "ISA_IRQ": (("wires", "Q"),),
    "PCI_LINK": (("route", "B", 4), ("", "4x")),
    "PIT": (
        *((f"{name}{number}", code) for number in range(3) for name, code in _PIT_CHANNEL),
        ("speaker_data_on", "I"),
        ("", "4x"),
    ),
    "RTC": (("cmos", "B", 14), ("cmos_index", "B"), ("", "x"), ("rtc_offset", "q")),
    "HPET": (
        ("capability", "Q"),
        ("", "8x"),
        ("config", "Q"),
        ("", "8x"),
        ("isr", "Q"),
        ("", "200x"),
        ("mc64", "Q"),
        ("", "8x"),
        *(
            field
            for number in range(3)
            for field in (
                (f"timer{number}_config", "Q"),
                (f"timer{number}_cmp", "Q"),
                (f"timer{number}_fsb", "Q"),
                ("", "8x"),
            )
        ),
        ("", f"{8 * 4 * 21}x"),
        ("period", "Q", 3),
    ),
    "PMTIMER": (("tmr_val", "I"), ("pm1a_sts", "H"), ("pm1a_en", "H")),
    "MTRR": (
        ("pat", "Q"),
        ("variable", "Q", 16),
        ("fixed", "Q", 11),
        ("cap", "Q"),
        ("def_type", "Q"),
    ),
    "VIRIDIAN_DOMAIN": (
        ("hypercall_gpa", "Q"),
        ("guest_os_id", "Q"),
        ("time_ref_count", "Q"),
        ("reference_tsc", "Q"),
    ),
    "CPU_XSAVE": (
        ("xfeature_mask", "Q"),
        ("xcr0", "Q"),
        ("xcr0_accum", "Q"),
        ("", "512x"),
        ("xstate_bv", "Q"),
        ("xcomp_bv", "Q"),
    ),
    "VIRIDIAN_VCPU": (
        ("vp_assist_msr", "Q"),
        ("apic_assist_pending", "B"),
        ("", "7x"),
        ("simp_msr", "Q"),
        ("sint_msr", "Q", 16),
        ("stimer_config_msr", "Q", 4),
        ("stimer_count_msr", "Q", 4),
    ),
    "VMCE_VCPU": (
        ("caps", "Q"),
        ("mci_ctl2_bank0", "Q"),
        ("mci_ctl2_bank1", "Q"),
        ("mcg_ext_ctl", "Q"),
    ),
    "TSC_ADJUST": (("tsc_adjust", "Q"),),
}

_SHORTEST = {
    "HEADER": 24,
    **{hvm_save_name(typecode): least for typecode, (least, _) in HVM_SAVE_SIZES.items()},
}


def decode_device(name: str, state: Buffer, offset: int = 0) -> dict[str, Value] | None:
    """The fields of an entry's state by their names; None for a type that is not known here.

    Entries of newer Xens may be longer, and what is behind the known fields is left alone. Those of
    older ones may be shorter, and the fields that they lack are left out. Raises StreamError for a
    state that is shorter than any Xen writes it.
    """
    if name == "LAPIC_REGS":
        _check_size(state, _SHORTEST[name], name, offset)
        return {
            register: struct.unpack_from("<I", state, place)[0]
            for place, register in LAPIC_REGISTERS.items()
        }
    if name == "CPU_MSR":
        return _msrs(state, offset)
    layout = _LAYOUTS.get(name)
    if layout is None:
        return None
    _check_size(state, _SHORTEST[name], name, offset)
    decoded: dict[str, Value] = {}
    position = 0
    for field_name, code, *number in layout:
        packed = struct.Struct("<" + code * (number[0] if number else 1))
        if position + packed.size > len(state):
            break
        values = packed.unpack_from(state, position)
        if field_name:
            decoded[field_name] = list(values) if number else values[0]
        position += packed.size
    return decoded


def _msrs(state: Buffer, offset: int) -> dict[str, Value]:
    _check_size(state, _SHORTEST["CPU_MSR"], "CPU_MSR", offset)
    (count,) = struct.unpack_from("<I", state)
    entry = struct.Struct("<IIQ")
    # A flexible array: it begins at the first multiple of 8 behind the count.
    start = 8
    _check_size(state, start + entry.size * count, "CPU_MSR", offset)
    return {
        f"{index:#x}": value
        for index, _, value in (
            entry.unpack_from(state, start + entry.size * number) for number in range(count)
        )
    }


def _check_size(state: Buffer, size: int, name: str, offset: int) -> None:
    if len(state) < size:
        raise StreamError(
            f"the state of {name} is {len(state)} bytes long",
            offset=offset,
            record=f"HVM_CONTEXT {name}",
            expected=f"at least {size} bytes",
        )
