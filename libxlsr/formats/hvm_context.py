"""HVM_CONTEXT: the state of an HVM or PVH domain's virtual hardware, as Xen saves it.

::

    entries, each  typecode u16, instance u16, length u32, state[length]
    the first is   HEADER: magic u32, version u32, changeset u64, cpuid u32, gtsc_khz u32
    the last is    END, of length 0

Sources: xen/include/public/hvm/save.h and arch-x86/hvm/save.h; hvm_load() in
xen/arch/x86/hvm/save.c.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from libxlsr.errors import StreamError
from libxlsr.formats.framing import Buffer, check_length
from libxlsr.formats.libxc import RecordType

HVM_FILE_MAGIC = 0x54381286
HVM_FILE_VERSION = 1

HVM_SAVE_CODE_END = 0
HVM_SAVE_CODE_HEADER = 1
HVM_SAVE_CODE_CPU = 2
HVM_SAVE_CODE_LAPIC = 5
HVM_SAVE_CODE_LAPIC_REGS = 6
HVM_SAVE_CODE_MTRR = 14
HVM_SAVE_CODE_CPU_XSAVE = 16
HVM_SAVE_CODE_VIRIDIAN_VCPU = 17
HVM_SAVE_CODE_VMCE_VCPU = 18
HVM_SAVE_CODE_TSC_ADJUST = 19
HVM_SAVE_CODE_CPU_MSR = 20

#: HVM_SAVE_CODE() of each type in arch-x86/hvm/save.h.
HVM_SAVE_NAMES = {
    0: "END",
    1: "HEADER",
    2: "CPU",
    3: "PIC",
    4: "IOAPIC",
    5: "LAPIC",
    6: "LAPIC_REGS",
    7: "PCI_IRQ",
    8: "ISA_IRQ",
    9: "PCI_LINK",
    10: "PIT",
    11: "RTC",
    12: "HPET",
    13: "PMTIMER",
    14: "MTRR",
    15: "VIRIDIAN_DOMAIN",
    16: "CPU_XSAVE",
    17: "VIRIDIAN_VCPU",
    18: "VMCE_VCPU",
    19: "TSC_ADJUST",
    20: "CPU_MSR",
}

#: Types of which each vCPU has an entry of its own; for all others ``instance`` counts devices.
HVM_SAVE_PER_VCPU = frozenset(
    {
        HVM_SAVE_CODE_CPU,
        HVM_SAVE_CODE_LAPIC,
        HVM_SAVE_CODE_LAPIC_REGS,
        HVM_SAVE_CODE_MTRR,
        HVM_SAVE_CODE_CPU_XSAVE,
        HVM_SAVE_CODE_VIRIDIAN_VCPU,
        HVM_SAVE_CODE_VMCE_VCPU,
        HVM_SAVE_CODE_TSC_ADJUST,
        HVM_SAVE_CODE_CPU_MSR,
    }
)

#: Those without which no Xen saves a vCPU that is up. (CPU alone is left out for one that is down;
#: the others depend on the host, the guest and the Xen.)
HVM_SAVE_EVERY_VCPU = (
    HVM_SAVE_CODE_CPU,
    HVM_SAVE_CODE_LAPIC,
    HVM_SAVE_CODE_LAPIC_REGS,
    HVM_SAVE_CODE_MTRR,
)

#: Type and instance of what no Xen saves an HVM guest without: the interrupt controllers and their
#: lines, timers, and the clock (the handlers in xen/arch/x86/hvm and emul-i8254.c). A PVH guest has
#: hardly any of it; HPET can be left out of a guest.
HVM_SAVE_EVERY_HVM_GUEST = (
    (3, 0),
    (3, 1),
    *((typecode, 0) for typecode in (4, 7, 8, 9, 10, 11, 13)),
)

#: How long each type's state is at the least and at the most, in bytes, in Xen 4.0 to 4.22, which
#: refuse other lengths. Those that have grown are taken as short as they once were, and Xen fills
#: them up with zeros. None: it varies. (CPU is 1024 or 1032 bytes long, and nothing in between;
#: LAPIC has grown to 32 within Xen 4.18.5, 4.19.2 and 4.20.1, and those before refuse that.)
HVM_SAVE_SIZES: dict[int, tuple[int, int | None]] = {
    HVM_SAVE_CODE_CPU: (1024, 1032),
    3: (8, 8),
    4: (400, 400),
    HVM_SAVE_CODE_LAPIC: (16, 32),
    HVM_SAVE_CODE_LAPIC_REGS: (1024, 1024),
    7: (16, 16),
    8: (8, 8),
    9: (8, 8),
    10: (56, 56),
    11: (16, 24),
    12: (1048, 1048),
    13: (8, 8),
    HVM_SAVE_CODE_MTRR: (240, 240),
    15: (16, 32),
    HVM_SAVE_CODE_CPU_XSAVE: (24 + 576, None),
    HVM_SAVE_CODE_VIRIDIAN_VCPU: (8, 216),
    HVM_SAVE_CODE_VMCE_VCPU: (8, 32),
    HVM_SAVE_CODE_TSC_ADJUST: (8, 8),
    HVM_SAVE_CODE_CPU_MSR: (8 + 16, None),
}

#: So many entries are taken: 20 types for 1024 vCPUs would be a third of it.
HVM_SAVE_ENTRIES_MAX = 1 << 16

_NAME = RecordType.HVM_CONTEXT.name
_DESCRIPTOR = struct.Struct("<HHI")
_FILE_HEADER = struct.Struct("<IIQII")


def hvm_save_name(typecode: int) -> str:
    """The name of an entry's type; unknown ones as a number."""
    return HVM_SAVE_NAMES.get(typecode, f"typecode {typecode}")


class HvmSaveEntry(NamedTuple):
    """One device's state. ``instance`` is the vCPU for those that each vCPU has."""

    typecode: int
    instance: int
    state: bytes

    @property
    def name(self) -> str:
        return hvm_save_name(self.typecode)


class HvmContext(NamedTuple):
    """The entries, HEADER first, without END."""

    entries: tuple[HvmSaveEntry, ...]
    end_instance: int = 0

    def encode(self) -> bytes:
        return b"".join(
            _DESCRIPTOR.pack(entry.typecode, entry.instance, len(entry.state)) + entry.state
            for entry in (*self.entries, HvmSaveEntry(HVM_SAVE_CODE_END, self.end_instance, b""))
        )

    @property
    def gtsc_khz(self) -> int:
        """The guest's TSC frequency in kHz, from HEADER."""
        return int(_FILE_HEADER.unpack(self.entries[0].state)[4])

    @property
    def cpuid(self) -> int:
        """CPUID leaf 1's EAX on the machine that saved the domain, from HEADER."""
        return int(_FILE_HEADER.unpack(self.entries[0].state)[3])

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> HvmContext:
        """Raises StreamError where HEADER is not first or not Xen's, where the entries don't end
        with END at the end of the record, and where the state of a known type is cut off. A longer
        one than is known may be a newer Xen's. What a device's state means is Xen's to check."""
        entries: list[HvmSaveEntry] = []
        position = 0
        while len(entries) < HVM_SAVE_ENTRIES_MAX:
            if len(data) - position < _DESCRIPTOR.size:
                raise StreamError(
                    f"{len(data) - position} bytes after {len(entries)} entries",
                    offset=offset + position,
                    record=_NAME,
                    expected="a descriptor of 8 bytes",
                )
            typecode, instance, length = _DESCRIPTOR.unpack_from(data, position)
            if not entries and typecode != HVM_SAVE_CODE_HEADER:
                raise StreamError(
                    f"the first entry is {hvm_save_name(typecode)}",
                    offset=offset + position,
                    record=_NAME,
                    expected="HEADER",
                )
            start = position + _DESCRIPTOR.size
            if length > len(data) - start:
                raise StreamError(
                    f"{hvm_save_name(typecode)}[{instance}] has a length of {length}",
                    offset=offset + position + 4,
                    record=_NAME,
                    expected=f"at most the {len(data) - start} bytes that are left",
                )
            if typecode == HVM_SAVE_CODE_END:
                check_length(data[start:], 0, offset + start, f"{_NAME} after END")
                return cls(tuple(entries), instance)
            _check_state_length(typecode, instance, length, offset + position + 4)
            state = bytes(data[start : start + length])
            if not entries:
                _check_file_header(state, offset + start)
            entries.append(HvmSaveEntry(typecode, instance, state))
            position = start + length
        raise StreamError(
            f"{HVM_SAVE_ENTRIES_MAX} entries and no END",
            offset=offset + position,
            record=_NAME,
            expected="fewer entries",
        )


def _check_state_length(typecode: int, instance: int, length: int, offset: int) -> None:
    least, most = HVM_SAVE_SIZES.get(typecode, (0, None))
    cpu = typecode == HVM_SAVE_CODE_CPU
    if length < least or (cpu and length not in (least, most)):
        raise StreamError(
            f"{hvm_save_name(typecode)}[{instance}] has a length of {length}",
            offset=offset,
            record=_NAME,
            expected=f"{least} or {most}" if cpu else f"at least {least}",
        )


def _check_file_header(state: bytes, offset: int) -> None:
    name = f"{_NAME} HEADER"
    check_length(state, _FILE_HEADER.size, offset, name)
    magic, version = _FILE_HEADER.unpack(state)[:2]
    if magic != HVM_FILE_MAGIC:
        raise StreamError(
            f"magic is {magic:#x}", offset=offset, record=name, expected=f"{HVM_FILE_MAGIC:#x}"
        )
    if version != HVM_FILE_VERSION:
        raise StreamError(
            f"version is {version}",
            offset=offset + 4,
            record=name,
            expected=f"{HVM_FILE_VERSION}",
        )
