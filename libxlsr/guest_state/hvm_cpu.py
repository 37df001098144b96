"""The CPU entry of HVM_CONTEXT: one vCPU's registers (struct hvm_hw_cpu).

::

    fpu_regs u8[512] (FXSAVE), general registers u64, cr0 cr2 cr3 cr4, dr0-3 dr6 dr7,
    selectors, limits, bases and access rights of the segments, SYSENTER and SYSCALL registers,
    tsc, pending event, flags

Source: xen/include/public/arch-x86/hvm/save.h. Xen 4.6 and older have no ``flags``.
"""

from __future__ import annotations

# ruff: noqa: SIM905 - names of registers read better as words than as a list of strings
import struct
from collections.abc import Mapping
from typing import NamedTuple

from libxlsr.errors import StreamError
from libxlsr.formats.framing import Buffer
from libxlsr.formats.hvm_context import HVM_SAVE_CODE_CPU, HvmContext
from libxlsr.guest_state.xsave_area import FXSAVE_SIZE

_GENERAL = "rax rbx rcx rdx rbp rsi rdi rsp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags".split()
_CONTROL = "cr0 cr2 cr3 cr4 dr0 dr1 dr2 dr3 dr6 dr7".split()
_SEGMENTS = "cs ds es fs gs ss tr ldtr".split()
_TABLES = ["idtr", "gdtr"]
_MSRS = (
    "sysenter_cs sysenter_esp sysenter_eip shadow_gs msr_flags msr_lstar msr_star msr_cstar"
    " msr_syscall_mask msr_efer msr_tsc_aux tsc"
).split()

_FIELDS = (
    *((name, "Q") for name in (*_GENERAL, *_CONTROL)),
    *((f"{name}_sel", "I") for name in _SEGMENTS),
    *((f"{name}_limit", "I") for name in (*_SEGMENTS, *_TABLES)),
    *((f"{name}_base", "Q") for name in (*_SEGMENTS, *_TABLES)),
    *((f"{name}_arbytes", "I") for name in _SEGMENTS),
    *((name, "Q") for name in _MSRS),
    ("pending_event", "I"),
    ("error_code", "I"),
)
_LAYOUT = struct.Struct(f"<{FXSAVE_SIZE}s" + "".join(code for _, code in _FIELDS))
_FLAGS = struct.Struct("<II")

SIZES = (_LAYOUT.size, _LAYOUT.size + _FLAGS.size)
"""How long the entry is in bytes: Xen 4.6 and older, and newer."""


class HvmCpu(NamedTuple):
    """One vCPU. ``registers`` has the fields of struct hvm_hw_cpu by their names."""

    registers: Mapping[str, int]
    fpu_regs: bytes
    """What FXSAVE stored (xsave_area.py)."""
    flags: int | None = None
    """XEN_X86_FPU_INITIALISED or 0; None in an entry of Xen 4.6 or older."""

    def encode(self) -> bytes:
        values = (self.registers.get(name, 0) for name, _ in _FIELDS)
        state = _LAYOUT.pack(self.fpu_regs, *values)
        return state if self.flags is None else state + _FLAGS.pack(self.flags, 0)

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> HvmCpu:
        """Raises StreamError for a length that no Xen writes."""
        if len(data) not in SIZES:
            raise StreamError(
                f"the state of a CPU is {len(data)} bytes long",
                offset=offset,
                record="HVM_CONTEXT CPU",
                expected=f"{SIZES[0]} or {SIZES[1]} bytes",
            )
        fpu_regs, *values = _LAYOUT.unpack_from(data)
        registers = dict(zip((name for name, _ in _FIELDS), values))
        flags = _FLAGS.unpack_from(data, _LAYOUT.size)[0] if len(data) == SIZES[1] else None
        return cls(registers, fpu_regs, flags)


def hvm_cpus(context: HvmContext) -> dict[int, HvmCpu]:
    """The CPU entries by vCPU number. Raises StreamError for one that does not decode."""
    return {
        entry.instance: HvmCpu.decode(entry.state)
        for entry in context.entries
        if entry.typecode == HVM_SAVE_CODE_CPU
    }
