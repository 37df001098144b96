"""A whole Xen guest in a few hundred bytes: it counts its local APIC's timer interrupts.

`tiny_guest()` returns a 32-bit ELF file that Xen starts in two ways:

* ``type="pvh"`` with ``kernel=``: through its PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY);
* ``type="hvm"`` with ``firmware_override=``: in hvmloader's place, through the ELF entry point.

Both enter it in flat 32-bit protected mode with paging off. It sets up the local APIC's timer and
halts; each interrupt adds one to the 32-bit word at `COUNTER_ADDRESS` and writes ``tick NNNNNNNN``
(eight hexadecimal digits, the counter) to port 0xe9, which Xen shows in ``xl dmesg``. Between the
interrupts it costs no CPU time. It goes on after a restore only when memory, registers, descriptor
tables and the APIC with its timer all came back.

As a PVH guest it never answers a suspend request, so ``xl save`` can't save it; as an HVM guest it
has no PV drivers, libxl suspends it by itself, and it can be saved.

Guest-physical layout::

    0x100000  this file: ELF header, note, descriptor tables' registers, message, code
    0x101000  the counter
    0x102000  interrupt descriptor table
    0x104000  top of the stack

Sources: xen/include/public/elfnote.h (note type 18), docs/misc/pvh.pandoc (state at the entry),
Intel SDM volume 3 (descriptors, APIC registers), xen/arch/x86/hvm/hvm.c (port 0xe9).
"""

from __future__ import annotations

import struct

LOAD_ADDRESS = 0x100000
COUNTER_ADDRESS = 0x101000
IDT_ADDRESS = 0x102000
STACK_TOP = 0x104000

XEN_ELFNOTE_PHYS32_ENTRY = 18
EM_386 = 3
PT_LOAD, PT_NOTE = 1, 4
PF_RWX = 7

CODE_SELECTOR, DATA_SELECTOR = 0x08, 0x10
TIMER_VECTOR = 0x20
LAPIC_EOI = 0xFEE000B0
LAPIC_SPURIOUS_VECTOR = 0xFEE000F0
LAPIC_LVT_TIMER = 0xFEE00320
LAPIC_TIMER_INITIAL_COUNT = 0xFEE00380
LAPIC_TIMER_DIVIDE = 0xFEE003E0
LAPIC_ENABLED = 0x100
LAPIC_TIMER_PERIODIC = 0x20000
LAPIC_DIVIDE_BY_16 = 0x3
# Xen's virtual APIC bus runs at 100 MHz (APIC_BUS_CYCLE_NS is 10): a tick each quarter of a second.
TIMER_COUNT = 100_000_000 // 16 // 4

_PROGRAM_HEADERS = 0x34
_NOTE = 0x74
_GDT = 0x88
_GDT_REGISTER = 0xA0
_IDT_REGISTER = 0xA6
_MESSAGE = 0xAC
_HANDLER = 0xC0  # and right behind it the code at the entry


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)


def _store(address: int, value: int) -> bytes:
    """The instruction ``mov dword [address], value``."""
    return b"\xc7\x05" + _u32(address) + _u32(value)


def _start_code(entry: int) -> bytes:
    after_far_jump = entry + 20
    handler = LOAD_ADDRESS + _HANDLER
    gate = IDT_ADDRESS + 8 * TIMER_VECTOR
    return b"".join(
        (
            b"\xfa",  # cli
            b"\xbc" + _u32(STACK_TOP),  # mov esp, STACK_TOP
            b"\x0f\x01\x15" + _u32(LOAD_ADDRESS + _GDT_REGISTER),  # lgdt
            b"\xea" + _u32(after_far_jump) + struct.pack("<H", CODE_SELECTOR),  # jmp far
            b"\xb8" + _u32(DATA_SELECTOR),  # mov eax, DATA_SELECTOR
            b"\x8e\xd8",  # mov ds, eax
            b"\x8e\xc0",  # mov es, eax
            b"\x8e\xd0",  # mov ss, eax
            _store(gate, CODE_SELECTOR << 16 | handler & 0xFFFF),
            _store(gate + 4, handler & 0xFFFF0000 | 0x8E00),  # present, 32-bit interrupt gate
            b"\x0f\x01\x1d" + _u32(LOAD_ADDRESS + _IDT_REGISTER),  # lidt
            _store(LAPIC_SPURIOUS_VECTOR, LAPIC_ENABLED | 0xFF),
            _store(LAPIC_TIMER_DIVIDE, LAPIC_DIVIDE_BY_16),
            _store(LAPIC_LVT_TIMER, LAPIC_TIMER_PERIODIC | TIMER_VECTOR),
            _store(LAPIC_TIMER_INITIAL_COUNT, TIMER_COUNT),
            b"\xfb",  # sti
            b"\xf4",  # idle: hlt
            b"\xeb\xfd",  # jmp idle
        )
    )


def _handler_code() -> bytes:
    return b"".join(
        (
            b"\xff\x05" + _u32(COUNTER_ADDRESS),  # inc dword [COUNTER_ADDRESS]
            b"\xbe" + _u32(LOAD_ADDRESS + _MESSAGE),  # mov esi, message
            b"\xac",  # character: lodsb
            b"\x84\xc0",  # test al, al
            b"\x74\x04",  # jz number
            b"\xe6\xe9",  # out 0xe9, al
            b"\xeb\xf7",  # jmp character
            b"\x8b\x15" + _u32(COUNTER_ADDRESS),  # number: mov edx, [COUNTER_ADDRESS]
            b"\xb9" + _u32(8),  # mov ecx, 8
            b"\xc1\xc2\x04",  # digit: rol edx, 4
            b"\x88\xd0",  # mov al, dl
            b"\x24\x0f",  # and al, 15
            b"\x3c\x0a",  # cmp al, 10
            b"\x1c\x69",  # sbb al, 0x69
            b"\x2f",  # das: al is now the hexadecimal digit's character
            b"\xe6\xe9",  # out 0xe9, al
            b"\xe2\xf0",  # loop digit
            b"\xb0\x0a",  # mov al, newline
            b"\xe6\xe9",  # out 0xe9, al
            _store(LAPIC_EOI, 0),
            b"\xcf",  # iret
        )
    )


def tiny_guest() -> bytes:
    """The guest's ELF file."""
    code = _handler_code()
    entry = LOAD_ADDRESS + _HANDLER + len(code)
    code += _start_code(entry)
    size = _HANDLER + len(code)
    image = bytearray(size)

    def place(offset: int, data: bytes) -> None:
        image[offset : offset + len(data)] = data

    ident = b"\x7fELF" + bytes((1, 1, 1)) + bytes(9)  # 32-bit, little-endian, version 1
    place(
        0,
        ident
        + struct.pack(
            "<HHIIIIIHHHHHH", 2, EM_386, 1, entry, _PROGRAM_HEADERS, 0, 0, 0x34, 0x20, 2, 0, 0, 0
        ),
    )
    load = (PT_LOAD, 0, LOAD_ADDRESS, LOAD_ADDRESS, size, STACK_TOP - LOAD_ADDRESS, PF_RWX, 4)
    note_address = LOAD_ADDRESS + _NOTE
    note = (PT_NOTE, _NOTE, note_address, note_address, _GDT - _NOTE, _GDT - _NOTE, 4, 4)
    place(_PROGRAM_HEADERS, struct.pack("<8I", *load) + struct.pack("<8I", *note))
    place(_NOTE, struct.pack("<III4sI", 4, 4, XEN_ELFNOTE_PHYS32_ENTRY, b"Xen", entry))
    place(_GDT, struct.pack("<QQQ", 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF))
    place(_GDT_REGISTER, struct.pack("<HI", 3 * 8 - 1, LOAD_ADDRESS + _GDT))
    place(_IDT_REGISTER, struct.pack("<HI", 8 * (TIMER_VECTOR + 1) - 1, IDT_ADDRESS))
    place(_MESSAGE, b"tick \0")
    place(_HANDLER, code)
    return bytes(image)
