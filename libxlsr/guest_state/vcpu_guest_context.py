"""struct vcpu_guest_context: a PV vCPU's registers, of a 64-bit or of a 32-bit guest.

The body of X86_PV_VCPU_BASIC, and an element of a core dump's ``.xen_prstatus``. In a stream the
frames in ``ctrlreg`` (the page tables) and ``gdt_frames`` are guest frame numbers.

Sources: xen/include/public/arch-x86/xen.h, xen-x86_64.h and xen-x86_32.h.
"""

from __future__ import annotations

# ruff: noqa: SIM905 - names of registers read better as words than as a list of strings
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from libxlsr.errors import StreamError
from libxlsr.formats.framing import Buffer
from libxlsr.formats.libxc_pv import VCPU_GUEST_CONTEXT_SIZE
from libxlsr.guest_state.xsave_area import FXSAVE_SIZE

VGCF_I387_VALID = 1 << 0
VGCF_IN_KERNEL = 1 << 2
VGCF_ONLINE = 1 << 5

_TRAP_INFO = {4: struct.Struct("<BBHI"), 8: struct.Struct("<BBH4xQ")}
_TRAPS = {width: 256 * layout.size for width, layout in _TRAP_INFO.items()}

# Names of the fields in their order, "" for padding, each with its struct code.
_USER_REGS_64 = (
    *((name, "Q") for name in "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi".split()),
    ("error_code", "I"),
    ("entry_vector", "I"),
    ("rip", "Q"),
    ("cs", "H"),
    ("", "2x"),
    ("saved_upcall_mask", "B"),
    ("", "3x"),
    ("rflags", "Q"),
    ("rsp", "Q"),
    *(field for name in "ss es ds fs gs".split() for field in ((name, "H"), ("", "6x"))),
)
_USER_REGS_32 = (
    *((name, "I") for name in "rbx rcx rdx rsi rdi rbp rax".split()),
    ("error_code", "H"),
    ("entry_vector", "H"),
    ("rip", "I"),
    ("cs", "H"),
    ("saved_upcall_mask", "B"),
    ("", "x"),
    ("rflags", "I"),
    ("rsp", "I"),
    *(field for name in "ss es ds fs gs".split() for field in ((name, "H"), ("", "2x"))),
)
_AFTER_TRAPS = (
    "ldt_base",
    "ldt_ents",
    *(f"gdt_frame{number}" for number in range(16)),
    "gdt_ents",
    "kernel_ss",
    "kernel_sp",
    *(f"cr{number}" for number in range(8)),
    *(f"dr{number}" for number in range(8)),
)
_END_64 = (
    "event_callback_eip",
    "failsafe_callback_eip",
    "syscall_callback_eip",
    "vm_assist",
    "fs_base",
    "gs_base_kernel",
    "gs_base_user",
)
_END_32 = (
    "event_callback_cs",
    "event_callback_eip",
    "failsafe_callback_cs",
    "failsafe_callback_eip",
    "vm_assist",
)


def _fields(width: int) -> tuple[tuple[str, str], ...]:
    word = {4: "I", 8: "Q"}[width]
    user_regs = {4: _USER_REGS_32, 8: _USER_REGS_64}[width]
    end = {4: _END_32, 8: _END_64}[width]
    return (
        ("fpu_ctxt", f"{FXSAVE_SIZE}s"),
        ("flags", word),
        *user_regs,
        ("trap_ctxt", f"{_TRAPS[width]}s"),
        *((name, word) for name in (*_AFTER_TRAPS, *end)),
    )


_NAMES = {width: [name for name, _ in _fields(width) if name] for width in (4, 8)}
_LAYOUTS = {
    width: struct.Struct("<" + "".join(code for _, code in _fields(width))) for width in (4, 8)
}
assert {width: layout.size for width, layout in _LAYOUTS.items()} == VCPU_GUEST_CONTEXT_SIZE


class TrapInfo(NamedTuple):
    """Where the guest wants an exception to be delivered (struct trap_info)."""

    vector: int
    flags: int
    """Bits 0 and 1: who may raise it with an instruction; bit 2: whether it masks events."""
    cs: int
    address: int


@dataclass(frozen=True)
class VcpuGuestContext:
    """One vCPU. ``registers`` are named as in the 64-bit structure, those of a 32-bit guest too:
    ``rax`` to ``gs``, ``cr0`` to ``cr7``, ``dr0`` to ``dr7``, ``flags`` (VGCF_*), ``fs_base``."""

    width: int
    registers: Mapping[str, int]
    fpu_ctxt: bytes = bytes(FXSAVE_SIZE)
    """What FXSAVE stored (xsave_area.py)."""
    trap_ctxt: bytes | None = None
    """The virtual IDT: 256 struct trap_info."""

    def encode(self) -> bytes:
        values: dict[str, int | bytes] = dict.fromkeys(_NAMES[self.width], 0)
        values.update({name: n for name, n in self.registers.items() if name in values})
        values["fpu_ctxt"] = self.fpu_ctxt
        values["trap_ctxt"] = self.trap_ctxt or bytes(_TRAPS[self.width])
        return _LAYOUTS[self.width].pack(*values.values())

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> VcpuGuestContext:
        """Its length says which of the two it is. Raises StreamError for any other length."""
        widths = {layout.size: width for width, layout in _LAYOUTS.items()}
        width = widths.get(len(data))
        if width is None:
            raise StreamError(
                f"a vCPU's context is {len(data)} bytes long",
                offset=offset,
                expected=" or ".join(f"{size} bytes" for size in widths),
            )
        values = dict(zip(_NAMES[width], _LAYOUTS[width].unpack(data)))
        fpu_ctxt, trap_ctxt = values.pop("fpu_ctxt"), values.pop("trap_ctxt")
        return cls(width, values, fpu_ctxt, trap_ctxt)

    def traps(self) -> dict[int, TrapInfo]:
        """The entries of the virtual IDT that are not all zeros, by their place in it."""
        entries = _TRAP_INFO[self.width].iter_unpack(self.trap_ctxt or b"")
        return {place: TrapInfo(*entry) for place, entry in enumerate(entries) if any(entry)}


def page_table_address(width: int, cr3: int) -> int:
    """The guest-physical address of the page table that a PV guest's ``ctrlreg[3]`` names.

    A 32-bit guest's frame number is rotated left by 12 (xen_cr3_to_pfn), a 64-bit one's shifted.
    More than 32 bits are never a rotated number: they are taken as the address itself.
    """
    if width == 4 and cr3 < 1 << 32:
        return ((cr3 >> 12) | (cr3 << 20 & 0xFFF00000)) << 12
    return cr3 & 0x000FFFFFFFFFF000
