"""Decoders of what is inside the records: devices, features, the shared info page, QEMU's state."""

from __future__ import annotations

import json
import struct

import pytest

from libxlsr.errors import StreamError
from libxlsr.formats.cpu_policy import XEN_CPUID_NO_SUBLEAF, CpuidLeaf
from libxlsr.formats.hvm_context import HVM_SAVE_NAMES
from libxlsr.guest_state.cpuid_features import feature_names
from libxlsr.guest_state.ext_vcpucontext import decode_ext_vcpucontext
from libxlsr.guest_state.hvm_devices import decode_device
from libxlsr.guest_state.qemu_state import DESCRIPTION_MAX, QemuState
from libxlsr.guest_state.shared_info import SharedInfoPage
from libxlsr.guest_state.vcpu_guest_context import TrapInfo, VcpuGuestContext
from libxlsr.guest_state.xsave_area import fxsave_registers, xsave_header

#: What Xen 4.22 writes (sizeof of each structure in arch-x86/hvm/save.h).
SIZES = {
    "HEADER": 24,
    "PIC": 8,
    "IOAPIC": 400,
    "LAPIC": 32,
    "LAPIC_REGS": 1024,
    "PCI_IRQ": 16,
    "ISA_IRQ": 8,
    "PCI_LINK": 8,
    "PIT": 56,
    "RTC": 24,
    "HPET": 1048,
    "PMTIMER": 8,
    "MTRR": 240,
    "VIRIDIAN_DOMAIN": 32,
    "CPU_XSAVE": 24 + 512 + 64,
    "VIRIDIAN_VCPU": 216,
    "VMCE_VCPU": 32,
    "TSC_ADJUST": 8,
}


def test_every_type_but_two_has_a_layout() -> None:
    assert set(HVM_SAVE_NAMES.values()) - set(SIZES) == {"END", "CPU", "CPU_MSR"}


@pytest.mark.parametrize("name", SIZES)
def test_a_devices_state_has_its_size(name: str) -> None:
    size = SIZES[name]
    fields = decode_device(name, bytes(size))
    assert fields is not None
    assert all(value in (0, [0] * 99) or set(value) == {0} for value in fields.values())  # type: ignore[arg-type]
    assert decode_device(name, bytes(size + 8)) == fields
    with pytest.raises(StreamError, match=f"the state of {name} is 7 bytes"):
        decode_device(name, bytes(7))


def fxsave_area() -> bytes:
    head = struct.pack(
        "<HHBBHQQII", 0x37F, 0x3800, 0xFF, 0, 0x7A1, 0x401000, 0x7FFE10, 0x1F80, 0xFFFF
    )
    st = b"".join(bytes([number] * 10 + [0] * 6) for number in range(8))
    xmm = b"".join(bytes([0x10 + number] * 16) for number in range(16))
    return (head + st + xmm).ljust(512, b"\0")


def test_fxsave() -> None:
    registers = fxsave_registers(fxsave_area())
    assert len(registers) == 8 + 8 + 16
    assert (registers["fcw"], registers["fsw"], registers["ftw"]) == (0x37F, 0x3800, 0xFF)
    assert (registers["fop"], registers["fip"], registers["fdp"]) == (0x7A1, 0x401000, 0x7FFE10)
    assert (registers["mxcsr"], registers["mxcsr_mask"]) == (0x1F80, 0xFFFF)
    assert registers["st7"] == 0x07070707070707070707
    assert registers["xmm15"] == 0x1F1F1F1F1F1F1F1F1F1F1F1F1F1F1F1F
    with pytest.raises(StreamError, match="511 bytes long"):
        fxsave_registers(bytes(511))


def test_the_header_of_an_xsave_area() -> None:
    area = fxsave_area() + struct.pack("<QQ", 7, 1 << 63) + bytes(48 + 256)
    assert xsave_header(area) == {"xstate_bv": 7, "xcomp_bv": 1 << 63}
    assert fxsave_registers(area) == fxsave_registers(fxsave_area())
    with pytest.raises(StreamError, match="575 bytes long"):
        xsave_header(area[:575])


def test_an_extended_vcpu_context() -> None:
    context = struct.pack(
        "<IIQQHHBB2xQQQQ", 1, 64, 0xFFFF800000001000, 0x2000, 0xE023, 0xE019, 1, 0, 0x806, 7, 8, 9
    )
    fields = decode_ext_vcpucontext(context.ljust(128, b"\0"))
    assert fields == {
        "vcpu": 1,
        "size": 64,
        "syscall32_callback_eip": 0xFFFF800000001000,
        "sysenter_callback_eip": 0x2000,
        "syscall32_callback_cs": 0xE023,
        "sysenter_callback_cs": 0xE019,
        "syscall32_disables_events": 1,
        "sysenter_disables_events": 0,
        "mcg_cap": 0x806,
        "mci_ctl2_bank0": 7,
        "mci_ctl2_bank1": 8,
        "mcg_ext_ctl": 9,
    }
    assert list(decode_ext_vcpucontext(context[:40])) == list(fields)[:9]
    assert list(decode_ext_vcpucontext(context[:39])) == list(fields)[:8]


@pytest.mark.parametrize(("width", "code"), [(4, "<BBHI"), (8, "<BBH4xQ")])
def test_a_trap_table(width: int, code: str) -> None:
    size = struct.calcsize(code)
    table = bytearray(256 * size)
    struct.pack_into(code, table, 14 * size, 14, 4, 0xE033, 0x81A01230)
    struct.pack_into(code, table, 128 * size, 128, 3, 0xE033, 0x81A04560)
    encoded = VcpuGuestContext(width, {"rip": 1}, fxsave_area(), bytes(table)).encode()
    context = VcpuGuestContext.decode(encoded)
    assert context.traps() == {
        14: TrapInfo(14, 4, 0xE033, 0x81A01230),
        128: TrapInfo(128, 3, 0xE033, 0x81A04560),
    }
    assert context.fpu_ctxt == fxsave_area()


def test_msrs() -> None:
    state = struct.pack("<IIIIQIIQ", 2, 0, 0x10, 0, 7, 0xC0000102, 0, 1 << 63)
    assert decode_device("CPU_MSR", state) == {"0x10": 7, "0xc0000102": 1 << 63}
    with pytest.raises(StreamError):
        decode_device("CPU_MSR", struct.pack("<II", 0xFFFFFFFF, 0))


def test_an_unknown_device() -> None:
    assert decode_device("typecode 77", b"") is None


def test_features() -> None:
    leaves = [
        CpuidLeaf(1, XEN_CPUID_NO_SUBLEAF, 0, 0, 1 << 28, 1 << 0),
        CpuidLeaf(7, 0, 0, 1 << 5, 0, 0),
        CpuidLeaf(7, 5, 0, 1 << 16, 0, 0),
        CpuidLeaf(0x80000001, XEN_CPUID_NO_SUBLEAF, 0, 0, 0, 1 << 29),
    ]
    assert feature_names(leaves) == ["AVX", "AVX2", "FPU", "LM"]


@pytest.mark.parametrize("width", [4, 8])
def test_the_shared_info_page(width: int) -> None:
    page = bytearray(4096)
    size = 128 if width == 4 else 512
    page[2048] = 0b10100000
    page[2048 + size : 2048 + 2 * size] = b"\xff" * size
    page[2048 + size] = 0xFC
    struct.pack_into("<IIII", page, 2048 + 2 * size, 6, 1000, 7, 1)
    decoded = SharedInfoPage.decode(page, width)
    assert decoded.pending == (5, 7)
    assert decoded.unmasked == 2
    assert decoded.wc_sec == (1000 if width == 4 else (1 << 32) + 1000)
    assert (decoded.wc_version, decoded.wc_nsec) == (6, 7)


def section(number: int, name: bytes, data: bytes, version: int = 1) -> bytes:
    header = struct.pack(">BIB", 4, number, len(name)) + name + struct.pack(">II", 0, version)
    return header + data


def test_qemus_state() -> None:
    machine = struct.pack(">BI", 7, 5) + b"xenfv"
    description = b'{"devices": []}'
    state = (
        b"QEVM\0\0\0\3"
        + machine
        + section(0, b"timer", bytes(20), 2)
        + section(2, b"cpu_common", b"\4\0\0\0\1\3cpu")  # an id that does not grow is data
        + section(3, b"0000:00:01.0/PIIX3", bytes(9))
        + b"\0"
        + struct.pack(">BI", 6, len(description))
        + description
    )
    decoded = QemuState.decode(state)
    assert (decoded.version, decoded.machine) == (3, "xenfv")
    assert [(one.section_id, one.name, one.version) for one in decoded.sections] == [
        (0, "timer", 2),
        (2, "cpu_common", 1),
        (3, "0000:00:01.0/PIIX3", 1),
    ]
    assert decoded.sections[0].offset == 8 + len(machine)
    assert decoded.sections[1].offset == 8 + len(machine) + 19 + 20
    assert decoded.sections[2].length == 14 + len("0000:00:01.0/PIIX3") + 9, "and no EOF"
    assert decoded.description == {"devices": []}


FOOTER = 0x7E


@pytest.mark.parametrize(
    "described", [b"", struct.pack(">BI", 6, 2) + b"{}"], ids=["", "described"]
)
@pytest.mark.parametrize("footers", [False, True])
@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\6\0", b"\x7e", b"\x7e\0\0\0\5"], ids=bytes.hex)
def test_a_section_ends_where_its_data_does(data: bytes, footers: bool, described: bytes) -> None:
    state = b"QEVM\0\0\0\3"
    for number, name in ((2, b"timer"), (7, b"ide")):
        footer = struct.pack(">BI", FOOTER, number) if footers else b""
        state += section(number, name, data) + footer
    decoded = QemuState.decode(state + b"\0" + described)
    first, last = decoded.sections
    assert (first.offset, first.length) == (8, 14 + len("timer") + len(data))
    assert last.offset == 8 + first.length + 5 * footers
    assert last.length == 14 + len("ide") + len(data)


def test_what_looks_like_a_footer_in_a_sections_header() -> None:
    header = struct.pack(">BIB", 4, 2, 5) + b"timer" + struct.pack(">II", FOOTER, 2)
    (timer,) = QemuState.decode(b"QEVM\0\0\0\3" + header + b"\0").sections
    assert timer.length == len(header)


def test_a_section_without_an_eof_behind_it() -> None:
    (timer,) = QemuState.decode(b"QEVM\0\0\0\3" + section(0, b"timer", b"\1")).sections
    assert timer.length == 14 + len("timer") + 1


def with_description(text: bytes, length: int | None = None) -> QemuState:
    head = struct.pack(">BBI", 0, 6, len(text) if length is None else length)
    return QemuState.decode(b"QEVM\0\0\0\3" + section(0, b"timer", bytes(20)) + head + text)


@pytest.mark.parametrize(
    "length", [2, 6, 100, 1536, 1541, 1542, 1600, 1791, 1792, 262150, 393216, 393226]
)
def test_a_description_of_any_length(length: int) -> None:
    text = b'{"a": ""}'.replace(b'""', b'"' + b"x" * (length - 9) + b'"') if length > 8 else b"{}"
    text = text.ljust(length)
    decoded = with_description(text)
    assert decoded.description_size == length
    assert decoded.description == json.loads(text)


def test_a_description_that_is_too_large_is_not_parsed() -> None:
    text = b'{"devices": []}'
    whole = with_description(text.ljust(DESCRIPTION_MAX))
    assert whole.description == {"devices": []}
    larger = with_description(text.ljust(DESCRIPTION_MAX + 1))
    assert (larger.description_size, larger.description) == (DESCRIPTION_MAX + 1, None)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": 1.5}',
        b'{"a": "\xff"}',
        b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=range(8),
)
def test_what_is_no_description(text: bytes) -> None:
    decoded = with_description(text)
    assert (decoded.description_size, decoded.description) == (0, None)


def test_a_description_that_does_not_end_the_state() -> None:
    assert with_description(b"{}", 1).description is None
    assert with_description(b"{}", 3).description is None


@pytest.mark.parametrize("state", [b"", b"QEVM", b"QEMU\0\0\0\3", b"\0" * 100])
def test_what_is_not_qemus(state: bytes) -> None:
    with pytest.raises(StreamError, match="the device model's state"):
        QemuState.decode(state)


def test_any_bytes_after_the_magic() -> None:
    for byte in range(256):
        QemuState.decode(b"QEVM\0\0\0\3" + bytes([byte]) * 500)
        QemuState.decode(b"QEVM\0\0\0\3" + bytes([7, 0xFF, 0xFF, 0xFF, byte, 0, 6]))
