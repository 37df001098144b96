"""The notes of an ELF core: registers as gdb wants them, and as QEMU's dumps have them.

NT_PRSTATUS is what debuggers read; it has no control registers, so each vCPU has a note of QEMU's
too (crash and libvmi read its CR3). VMCOREINFO is the Linux kernel's own description of itself,
which drgn and crash need to find their way.

Sources: Linux, include/uapi/linux/elfcore.h, arch/x86/include/asm/elf.h and user_64.h; QEMU,
target/i386/arch_dump.c; Linux, Documentation/admin-guide/kdump/vmcoreinfo.rst.
"""

from __future__ import annotations

# ruff: noqa: SIM905 - names of registers read better as words than as a list of strings
import struct

from libxlsr.formats import elf
from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.tools.extract.vcpus import Vcpu

_REGS_64 = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs rflags rsp ss"
    " fs_base gs_base ds es fs gs"
).split()
_REGS_32 = ("rbx rcx rdx rsi rdi rbp rax ds es fs gs orig_rax rip cs rflags rsp ss").split()

#: si_signo, si_code, si_errno, cursig, pending and held signals, pid, ppid, pgrp, sid, four times
_PRSTATUS_64 = struct.Struct(f"<12x4xQQI12x64x{len(_REGS_64)}QI4x")
_PRSTATUS_32 = struct.Struct(f"<12x4xIII12x32x{len(_REGS_32)}II")

_QEMU_CPU = struct.Struct("<II18Q" + "IIIIQ" * 10 + "6Q")
_QEMU_VERSION = 1
_QEMU_REGS = ("rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags").split()
_QEMU_SEGMENTS = "cs ds es fs gs ss ldtr tr gdtr idtr".split()

VMCOREINFO_START = b"OSRELEASE="
_VMCOREINFO_MARK = b"\nPAGESIZE=4096\n"
VMCOREINFO_NOTE_MAX = len(elf.note("VMCOREINFO", 0, bytes(PAGE_SIZE)))


def register_notes(vcpus: list[Vcpu], is_64bit: bool) -> bytes:
    """The notes of all vCPUs."""
    notes = b""
    for vcpu in vcpus:
        notes += elf.note("CORE", elf.NT_PRSTATUS, _prstatus(vcpu, is_64bit))
        if is_64bit:  # user_fpregs_struct is an FXSAVE area there, and there only
            notes += elf.note("CORE", elf.NT_FPREGSET, vcpu.context.fpu_ctxt)
    for vcpu in vcpus:
        notes += elf.note("QEMU", 0, _qemu_cpu(vcpu))
    return notes


def _prstatus(vcpu: Vcpu, is_64bit: bool) -> bytes:
    layout, names = (_PRSTATUS_64, _REGS_64) if is_64bit else (_PRSTATUS_32, _REGS_32)
    mask = (1 << 64 if is_64bit else 1 << 32) - 1
    registers = (vcpu.registers.get(name, 0) & mask for name in names)
    # A debugger takes the process id for the thread's number, and 0 for none.
    return layout.pack(0, 0, vcpu.number + 1, *registers, 1)


def _qemu_cpu(vcpu: Vcpu) -> bytes:
    registers = vcpu.registers
    segments = []
    for name in _QEMU_SEGMENTS:
        segments += [
            registers.get(f"{name}_sel", registers.get(name, 0)) & 0xFFFFFFFF,
            registers.get(f"{name}_limit", 0),
            _descriptor_flags(registers.get(f"{name}_arbytes", 0)),
            0,
            registers.get(f"{name}_base", 0),
        ]
    control = [registers.get("cr0", 0), 0, registers.get("cr2", 0), vcpu.page_table]
    return _QEMU_CPU.pack(
        _QEMU_VERSION,
        _QEMU_CPU.size,
        *(registers.get(name, 0) for name in _QEMU_REGS),
        *segments,
        *control,
        registers.get("cr4", 0),
        registers.get("kernel_gs_base", 0),
    )


def _descriptor_flags(arbytes: int) -> int:
    """A segment's attributes as they lie in the upper half of its descriptor, which QEMU keeps.

    Xen has them packed: bits 8 to 11 are AVL, L, D/B and G, which are 20 to 23 there (the layout of
    the _ar fields in xen/include/public/hvm/hvm_vcpu.h).
    """
    return (arbytes & 0xFF) << 8 | (arbytes & 0xF00) << 12


class VmcoreinfoFinder:
    """Looks for the page in which Linux keeps its VMCOREINFO."""

    def __init__(self) -> None:
        self._found: bytes | None = None

    def look(self, buffer: bytearray, size: int) -> None:
        """Look at the pages of ``buffer`` up to ``size``."""
        if self._found is not None:
            return
        for page in range(0, size, PAGE_SIZE):
            if buffer.startswith(VMCOREINFO_START, page):
                text = bytes(buffer[page : page + PAGE_SIZE]).rstrip(b"\0")
                if _VMCOREINFO_MARK in text and b"\0" not in text:
                    self._found = text
                    return

    def note(self) -> bytes:
        """The note, nothing where there is none."""
        return b"" if self._found is None else elf.note("VMCOREINFO", 0, self._found)
