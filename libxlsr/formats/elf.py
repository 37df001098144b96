"""What a core dump needs of ELF: the file header, program and section headers, notes.

Everything is little-endian. ``bits`` is 32 or 64, the class of the file.

Source: System V Application Binary Interface, "ELF"; elf.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

ET_CORE = 4
EM_386 = 3
EM_X86_64 = 62
PT_LOAD = 1
PT_NOTE = 4
PF_RWX = 7
SHT_PROGBITS = 1
SHT_STRTAB = 3
SHT_NOTE = 7
NT_PRSTATUS = 1
NT_FPREGSET = 2

PHNUM_MAX = 0xFFFE
"""The most program headers that e_phnum can count; 0xffff means that another field does."""

_EHDR = {32: struct.Struct("<16sHHIIIIIHHHHHH"), 64: struct.Struct("<16sHHIQQQIHHHHHH")}
_PHDR = {32: struct.Struct("<IIIIIIII"), 64: struct.Struct("<IIQQQQQQ")}
_SHDR = struct.Struct("<IIQQQQIIQQ")
_NOTE = struct.Struct("<III")

EHDR_SIZE = {bits: layout.size for bits, layout in _EHDR.items()}
PHDR_SIZE = {bits: layout.size for bits, layout in _PHDR.items()}
SHDR_SIZE = _SHDR.size


def file_header(
    bits: int,
    machine: int,
    *,
    phnum: int = 0,
    shoff: int = 0,
    shnum: int = 0,
    shstrndx: int = 0,
) -> bytes:
    """The header of a core file whose program headers follow at once."""
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    return _EHDR[bits].pack(
        ident,
        ET_CORE,
        machine,
        1,
        0,
        EHDR_SIZE[bits] if phnum else 0,
        shoff,
        0,
        EHDR_SIZE[bits],
        PHDR_SIZE[bits] if phnum else 0,
        phnum,
        SHDR_SIZE if shnum else 0,
        shnum,
        shstrndx,
    )


@dataclass(frozen=True)
class ProgramHeader:
    """One segment. Addresses and sizes are in bytes."""

    type: int
    offset: int
    vaddr: int
    paddr: int
    size: int

    def encode(self, bits: int) -> bytes:
        flags, align = (PF_RWX, 0x1000) if self.type == PT_LOAD else (0, 4)
        if bits == 64:
            fields = (self.type, flags, self.offset, self.vaddr, self.paddr, self.size, self.size)
        else:
            fields = (self.type, self.offset, self.vaddr, self.paddr, self.size, self.size, flags)
        return _PHDR[bits].pack(*fields, align)


@dataclass(frozen=True)
class SectionHeader:
    """One section of a 64-bit file; ``name`` is an offset into the section of names."""

    name: int
    type: int
    offset: int
    size: int
    alignment: int = 1
    entry_size: int = 0

    def encode(self) -> bytes:
        return _SHDR.pack(
            self.name,
            self.type,
            0,
            0,
            self.offset,
            self.size,
            0,
            0,
            self.alignment,
            self.entry_size,
        )


def note(name: str, note_type: int, description: bytes) -> bytes:
    """One note, with the padding to 4 bytes that follows its name and its description."""
    name_bytes = name.encode() + b"\0"
    return (
        _NOTE.pack(len(name_bytes), len(description), note_type)
        + name_bytes.ljust(-len(name_bytes) % 4 + len(name_bytes), b"\0")
        + description.ljust(-len(description) % 4 + len(description), b"\0")
    )
