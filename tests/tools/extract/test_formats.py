"""What other programs read: each file is read back by somebody else's code where there is some."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from libxlsr.formats.libxc import PAGE_SIZE, RecordType
from libxlsr.formats.libxc_pv import VCPU_GUEST_CONTEXT_SIZE, SharedInfo
from libxlsr.formats.page_types import XEN_DOMCTL_PFINFO_XTAB
from libxlsr.guest_state.vcpu_guest_context import VcpuGuestContext
from libxlsr.testing import paging
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.pages import stamped_page
from libxlsr.testing.paging import CR0_PG_PE, CR4_PAE, EFER_LMA, LARGE, save
from libxlsr.tools.extract.operation import extract
from libxlsr.tools.extract.request import Request

HOLES = dict.fromkeys((0, 5, 6, 31), XEN_DOMCTL_PFINFO_XTAB)
RANGES = [(1, 4), (7, 24)]
REGISTERS = {
    "rip": 0xFFFFFFFF81000000,
    "rsp": 0xFFFFC90000093E40,
    "rax": 0x1111,
    "r15": 0x15,
    "cs_sel": 0x10,
    "cs_arbytes": 0xA9B,
    "ss_sel": 0x18,
    "ss_arbytes": 0xC93,
    "rflags": 0x46,
    "fs_base": 0x7F0000001000,
    "gs_base": 0xFFFF888007A00000,
    "cr0": CR0_PG_PE,
    "cr3": 0x1000,
    "cr4": CR4_PAE,
    "msr_efer": EFER_LMA,
}


@pytest.fixture
def pvh(tmp_path: Path) -> StreamBuilder:
    stream = paging.hvm(REGISTERS, {}, pages=32, types=HOLES)
    save(stream, tmp_path / "image")
    return stream


def pages_of(stream: StreamBuilder, first: int, number: int) -> bytes:
    return b"".join(stream.page(gfn) for gfn in range(first, first + number))


def write(tmp_path: Path, name: str, **request: object) -> Path:
    path = tmp_path / f"out.{name}"
    extract(tmp_path / "image", path, Request(name, **request))  # type: ignore[arg-type]
    return path


def loads(elf: ELFFile) -> Iterator[tuple[int, int, bytes]]:
    for segment in elf.iter_segments("PT_LOAD"):
        assert segment["p_filesz"] == segment["p_memsz"]
        yield segment["p_vaddr"], segment["p_paddr"], segment.data()


def notes_of(elf: ELFFile) -> list[Any]:
    (segment,) = elf.iter_segments("PT_NOTE")
    assert isinstance(segment, NoteSegment)
    return list(segment.iter_notes())


def check_with_readelf(path: Path) -> None:
    """binutils finds nothing to warn of."""
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    done = subprocess.run(["readelf", "-aW", str(path)], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""


def test_elf_memory(pvh: StreamBuilder, tmp_path: Path) -> None:
    path = write(tmp_path, "elf")
    with open(path, "rb") as file:
        elf = ELFFile(file)
        assert (elf["e_type"], elf["e_machine"]) == ("ET_CORE", "EM_X86_64")
        assert list(loads(elf)) == [
            (first * PAGE_SIZE, first * PAGE_SIZE, pages_of(pvh, first, number))
            for first, number in RANGES
        ]
    check_with_readelf(path)


def test_elf_registers(pvh: StreamBuilder, tmp_path: Path) -> None:
    with open(write(tmp_path, "elf"), "rb") as file:
        notes = notes_of(ELFFile(file))
    assert [(n["n_name"], n["n_type"]) for n in notes[:2]] == [
        ("CORE", "NT_PRSTATUS"),
        ("CORE", "NT_FPREGSET"),
    ]
    prstatus = notes[0]["n_descdata"]
    assert len(prstatus) == 336
    registers = struct.unpack_from("<27Q", prstatus, 112)
    assert registers[0] == 0x15  # r15 to rdi, orig_rax, rip, cs, rflags, rsp, ss, fs and gs base
    assert registers[10] == 0x1111
    assert registers[16:23] == (
        0xFFFFFFFF81000000,
        0x10,
        0x46,
        0xFFFFC90000093E40,
        0x18,
        0x7F0000001000,
        0xFFFF888007A00000,
    )
    assert notes[2]["n_name"] == "QEMU"
    qemu = notes[2]["n_descdata"]
    assert struct.unpack_from("<II", qemu) == (1, 440)
    assert len(qemu) == 440
    assert struct.unpack_from("<6Q", qemu, 392)[3] == 0x1000  # CR3
    segments = [struct.unpack_from("<IIII", qemu, 152 + 24 * number) for number in range(6)]
    assert segments[0] == (0x10, 0, 0xA09B00, 0)  # CS: G and L, as in its descriptor
    assert segments[5] == (0x18, 0, 0xC09300, 0)  # SS: G and D/B


def test_gdb_opens_the_elf_core(pvh: StreamBuilder, tmp_path: Path) -> None:
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("no gdb")
    commands = ["info registers rip", "output *(long *)0x1008", "x/1gx 0x8000"]
    arguments = [word for command in commands for word in ("-ex", command)]
    done = subprocess.run(
        [gdb, "-nx", "-batch", "-core", str(write(tmp_path, "elf")), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert "0xffffffff81000000" in done.stdout
    assert "0x8000:\t0x0000000000000008" in done.stdout


def test_the_kernels_own_description_becomes_a_note(tmp_path: Path) -> None:
    text = b"OSRELEASE=6.1.0\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff82a10000\n"

    def content(gfn: int, generation: int) -> bytes:
        if gfn == 9:
            return text.ljust(PAGE_SIZE, b"\0")
        return b"OSRELEASE=impostor".ljust(PAGE_SIZE, b"\0") if gfn == 2 else stamped_page(gfn)

    save(StreamBuilder("pvh", pages=16, content=content), tmp_path / "image")
    with open(write(tmp_path, "elf"), "rb") as file:
        (note,) = [n for n in notes_of(ELFFile(file)) if n["n_name"] == "VMCOREINFO"]
    assert note["n_descdata"] == text


def test_elf_with_virtual_addresses(tmp_path: Path) -> None:
    tables = {1: {511: 2 << 12 | 1}, 2: {511: 3 << 12 | 1}, 3: {0: 4 << 12 | 1, 1: LARGE}, 4: {}}
    tables[4] = {0: 9 << 12 | 1, 1: 10 << 12 | 1, 7: 9 << 12 | 1, 8: 99 << 12 | 1}
    stream = paging.hvm(REGISTERS, tables, pages=32)
    save(stream, tmp_path / "image")
    base = 0xFFFFFFFFC0000000
    path = write(tmp_path, "elf", vaddr=(0, (1 << 64) - 1))
    with open(path, "rb") as file:
        found = {vaddr: (paddr, data) for vaddr, paddr, data in loads(ELFFile(file))}
    assert found == {
        base: (9 * PAGE_SIZE, pages_of(stream, 9, 2)),
        base + 7 * PAGE_SIZE: (9 * PAGE_SIZE, stream.page(9)),
        base + (1 << 21): (0, pages_of(stream, 0, 32)),
    }
    assert path.stat().st_size < 40 * PAGE_SIZE, "memory that is mapped twice is there once"


def test_a_page_mapped_over_and_over_does_not_fill_the_core(tmp_path: Path) -> None:
    tables = {1: {0: 2 << 12 | 1}, 2: {0: 3 << 12 | 1}, 3: {0: 4 << 12 | 1}, 4: {}}
    tables[4] = dict.fromkeys(range(512), 9 << 12 | 1)
    save(paging.hvm(REGISTERS, tables, pages=16), tmp_path / "image")
    with open(write(tmp_path, "elf", vaddr=(0, (1 << 64) - 1)), "rb") as file:
        assert len(list(loads(ELFFile(file)))) == 64


@pytest.mark.parametrize("build", [paging.hvm, paging.pv], ids=["HVM", "PV"])
def test_elf_of_a_32bit_guest(build: object, tmp_path: Path) -> None:
    if build is paging.hvm:
        stream = paging.hvm({"rip": 0x100020, "cs_sel": 8}, {}, pages=8)
    else:
        stream = paging.pv({"rip": 0x100020, "cs": 8}, {}, width=4, pages=8)
    save(stream, tmp_path / "image")
    with open(write(tmp_path, "elf"), "rb") as file:
        elf = ELFFile(file)
        assert (elf.elfclass, elf["e_machine"]) == (32, "EM_386")
        assert [data for _, _, data in loads(elf)] == [pages_of(stream, 0, 8)]
        prstatus = notes_of(elf)[0]["n_descdata"]
    assert len(prstatus) == 144
    assert struct.unpack_from("<17I", prstatus, 72)[12:14] == (0x100020, 8)


def test_elf_of_scattered_frames_has_no_more_segments_than_can_be_counted(
    tmp_path: Path,
) -> None:
    types = dict.fromkeys(range(1, 140000, 2), XEN_DOMCTL_PFINFO_XTAB)
    stream = StreamBuilder("pvh", pages=140_000, types=types, content=lambda *_: bytes(PAGE_SIZE))
    with open(tmp_path / "image", "wb") as file:
        stream.write_to(file.fileno())
    with open(write(tmp_path, "elf"), "rb") as file:
        assert list(loads_sizes(ELFFile(file))) == [(140_000 - 1) * PAGE_SIZE]


def loads_sizes(elf: ELFFile) -> Iterator[int]:
    for segment in elf.iter_segments("PT_LOAD"):
        yield segment["p_filesz"]


def sections(path: Path) -> dict[str, bytes]:
    with open(path, "rb") as file:
        elf = ELFFile(file)
        assert elf["e_type"] == "ET_CORE"
        return {section.name: section.data() for section in elf.iter_sections()}


def xen_notes(data: bytes) -> dict[int, bytes]:
    notes = {}
    while data:
        name_size, size, kind = struct.unpack_from("<III", data)
        assert (name_size, data[12:16]) == (4, b"Xen\0")
        notes[kind] = data[16 : 16 + size]
        data = data[16 + size :]
    return notes


def test_xen_core_of_an_hvm_guest(pvh: StreamBuilder, tmp_path: Path) -> None:
    path = write(tmp_path, "xen-core")
    found = sections(path)
    pages = sum(number for _, number in RANGES)
    notes = xen_notes(found[".note.Xen"])
    assert struct.unpack("<4Q", notes[0x2000001]) == (0xF00FEBEE, 1, pages, 4096)
    assert struct.unpack_from("<QQ", notes[0x2000002]) == (4, 17)
    assert len(notes[0x2000002]) == 1280
    assert notes[0x2000003] == struct.pack("<Q", 1)
    frames = [gfn for first, number in RANGES for gfn in range(first, first + number)]
    assert struct.unpack(f"<{pages}Q", found[".xen_pfn"]) == tuple(frames)
    assert found[".xen_pages"] == b"".join(pvh.page(gfn) for gfn in frames)
    context = VcpuGuestContext.decode(found[".xen_prstatus"])
    assert context.registers["rip"] == REGISTERS["rip"]
    assert context.registers["cr3"] == 0x1000
    assert context.registers["gs_base_kernel"] == REGISTERS["gs_base"]
    assert ".xen_p2m" not in found
    check_with_readelf(path)


@pytest.mark.parametrize("width", [4, 8])
def test_xen_core_of_a_pv_guest(width: int, tmp_path: Path) -> None:
    stream = paging.pv({"rip": 0x1234, "cr3": 0x1000}, {}, width=width, pages=8)
    stream.find(RecordType.SHARED_INFO).body = SharedInfo(b"\x5a" * PAGE_SIZE).encode()
    save(stream, tmp_path / "image")
    path = write(tmp_path, "xen-core", frames=(2, 4))
    found = sections(path)
    notes = xen_notes(found[".note.Xen"])
    assert struct.unpack("<4Q", notes[0x2000001]) == (0xF00FEBED, 1, 3, 4096)
    assert len(notes[0x2000002]) == 1280
    if width == 4:  # u64 is aligned to 4 bytes only
        assert struct.unpack("<IQ4x", notes[0x2000002][-16:]) == (0xF5800000, 4096)
    else:
        assert struct.unpack("<QQ", notes[0x2000002][-16:]) == (0xFFFF800000000000, 4096)
    assert struct.unpack("<6Q", found[".xen_p2m"]) == (2, 2, 3, 3, 4, 4)
    assert found[".xen_pages"] == pages_of(stream, 2, 3)
    assert found[".xen_shared_info"] == b"\x5a" * PAGE_SIZE
    assert ".xen_pfn" not in found
    check_with_readelf(path)


@pytest.mark.parametrize("width", [4, 8])
def test_xen_core_of_a_pv_guest_has_vcpus_of_one_size(width: int, tmp_path: Path) -> None:
    stream = paging.pv({"rip": 0x1234}, {}, width=width, vcpus=2)
    save(stream, tmp_path / "image")
    with open(write(tmp_path, "xen-core"), "rb") as file:
        elf = ELFFile(file)
        assert elf["e_machine"] == {4: "EM_386", 8: "EM_X86_64"}[width]
        (section,) = (s for s in elf.iter_sections() if s.name == ".xen_prstatus")
        assert (section["sh_size"], section["sh_entsize"]) == (2 * 5168, 5168)
        first = section.data()[:5168]
    context = first[: VCPU_GUEST_CONTEXT_SIZE[width]]
    assert VcpuGuestContext.decode(context).registers["rip"] == 0x1234
    assert first[len(context) :] == bytes(5168 - len(context))


def test_xen_core_of_an_hvm_guest_in_32bit_mode_is_a_64bit_one(tmp_path: Path) -> None:
    save(paging.hvm({"rip": 0x100020, "cs_sel": 8}), tmp_path / "image")
    path = write(tmp_path, "xen-core")
    version = xen_notes(sections(path)[".note.Xen"])[0x2000002]
    assert struct.unpack("<QQ", version[-16:]) == (0xFFFF800000000000, 4096)


def test_lime(pvh: StreamBuilder, tmp_path: Path) -> None:
    data = write(tmp_path, "lime").read_bytes()
    for first, number in RANGES:
        magic, version, start, end, zero = struct.unpack_from("<4sIQQQ", data)
        assert (magic, version, zero) == (b"EMiL", 1, 0)
        assert (start, end) == (first * PAGE_SIZE, (first + number) * PAGE_SIZE - 1)
        assert data[32 : 32 + number * PAGE_SIZE] == pages_of(pvh, first, number)
        data = data[32 + number * PAGE_SIZE :]
    assert data == b""
