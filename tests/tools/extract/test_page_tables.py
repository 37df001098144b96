"""Virtual addresses through page tables of every kind, hostile ones too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from unittest.mock import Mock

import pytest

import libxlsr
from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.guest_state.vcpu_guest_context import VcpuGuestContext
from libxlsr.restoring.image import layout
from libxlsr.testing import paging
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.paging import (
    CR0_PG_PE,
    CR4_LA57,
    CR4_PAE,
    CR4_PSE,
    EFER_LMA,
    LARGE,
    PRESENT,
    save,
)
from libxlsr.tools.extract import page_tables
from libxlsr.tools.extract.operation import extract
from libxlsr.tools.extract.page_tables import Mapping as Mapped
from libxlsr.tools.extract.page_tables import PageTables, Paging
from libxlsr.tools.extract.request import LAST_ADDRESS, Guest, Request
from libxlsr.tools.extract.vcpus import read_vcpus

NX = 1 << 63


def reader(tables: paging.Tables, width: int = 8) -> Callable[[int], bytes | None]:
    pages = {gfn: paging.table_page(entries, width) for gfn, entries in tables.items()}
    return pages.get


def entry(gfn: int) -> int:
    return gfn << 12 | PRESENT


def walk(
    tables: paging.Tables, mode: Paging, root: int = 0x1000, width: int = 8
) -> list[tuple[int, int, int]]:
    walked = PageTables(reader(tables, width), mode, root).mappings(0, LAST_ADDRESS)
    return [(mapping.vaddr, mapping.paddr, mapping.size) for mapping in walked]


def test_four_levels_with_pages_of_every_size() -> None:
    tables = {
        1: {0: entry(2), 511: entry(2)},
        2: {0: entry(3), 1: 5 << 30 | LARGE | NX, 511: 0},
        3: {0: entry(4), 1: 7 << 21 | LARGE},
        4: {0: entry(100), 1: entry(101), 3: entry(50) | NX, 4: 51 << 12},
    }
    low = [
        (0, 100 << 12, 2 * PAGE_SIZE),
        (3 << 12, 50 << 12, PAGE_SIZE),
        (1 << 21, 7 << 21, 1 << 21),
        (1 << 30, 5 << 30, 1 << 30),
    ]
    upper = 0xFFFFFF8000000000
    expected = low + [(vaddr + upper, paddr, size) for vaddr, paddr, size in low]
    assert walk(tables, Paging.FOUR_LEVEL) == expected


def test_neighbouring_mappings_are_joined_across_tables() -> None:
    tables = {
        1: {0: entry(2)},
        2: {0: entry(3)},
        3: {0: entry(4), 1: 2 << 21 | LARGE, 2: 3 << 21 | LARGE},
        4: {511: (2 << 21) - PAGE_SIZE | PRESENT},
    }
    start = 511 * PAGE_SIZE
    assert walk(tables, Paging.FOUR_LEVEL) == [
        (start, (2 << 21) - PAGE_SIZE, PAGE_SIZE + (2 << 21)),
    ]


def test_five_levels() -> None:
    tables = {
        1: {0: entry(2), 256: entry(2)},
        2: {1: entry(3)},
        3: {2: 9 << 30 | LARGE},
    }
    vaddr = 1 << 39 | 2 << 30
    assert walk(tables, Paging.FIVE_LEVEL) == [
        (vaddr, 9 << 30, 1 << 30),
        (0xFF00000000000000 + vaddr, 9 << 30, 1 << 30),
    ]


def test_pae_whose_highest_table_lies_within_a_page() -> None:
    tables = {1: {4: entry(2), 7: entry(3), 8: entry(9)}, 2: {0: LARGE}, 3: {511: entry(4)}, 4: {}}
    tables[4] = {511: entry(77)}
    assert walk(tables, Paging.PAE, root=0x1020) == [
        (0, 0, 1 << 21),
        (0xFFFFF000, 77 << 12, PAGE_SIZE),
    ]


def test_legacy_tables() -> None:
    pse36 = 0x00400000 | 1 << 13 | LARGE
    tables = {1: {0: entry(2), 1: pse36}, 2: {1023: entry(9)}}
    assert walk(tables, Paging.LEGACY, width=4) == [
        (1023 << 12, 9 << 12, PAGE_SIZE),
        (1 << 22, 1 << 32 | 0x00400000, 1 << 22),
    ]


def test_no_paging() -> None:
    tables = PageTables(lambda _gfn: None, Paging.NONE, 0)
    assert list(tables.mappings(5, 20)) == [Mapped(5, 5, 16)]


def test_a_part_of_a_large_page() -> None:
    tables = {1: {0: entry(2)}, 2: {1: 5 << 30 | LARGE}}
    walked = PageTables(reader(tables), Paging.FOUR_LEVEL, 0x1000)
    first = (1 << 30) + 12345
    assert list(walked.mappings(first, first + 99)) == [Mapped(first, (5 << 30) + 12345, 100)]


def test_addresses_that_are_none_are_not_mapped() -> None:
    tables = {1: {0: entry(2)}, 2: {0: LARGE}}
    walked = PageTables(reader(tables), Paging.FOUR_LEVEL, 0x1000)
    assert list(walked.mappings(1 << 48, (1 << 48) + 5)) == []


@pytest.mark.parametrize(
    ("mode", "tables", "width"),
    [
        (Paging.LEGACY, {1: {0: LARGE, 1023: LARGE}}, 4),
        (Paging.PAE, {1: {0: entry(2), 3: entry(2)}, 2: {0: LARGE, 511: LARGE}}, 8),
    ],
    ids=["legacy", "PAE"],
)
def test_addresses_of_32_bits_end_at_4_gib(mode: Paging, tables: paging.Tables, width: int) -> None:
    walked = PageTables(reader(tables, width), mode, 0x1000)
    assert list(walked.mappings(1 << 40, (1 << 40) + 8191)) == []
    assert list(walked.mappings(LAST_ADDRESS - 8191, LAST_ADDRESS)) == []
    start = (1 << 32) - PAGE_SIZE
    (mapped,) = walked.mappings(start, (1 << 32) + PAGE_SIZE - 1)
    assert (mapped.vaddr, mapped.size) == (start, PAGE_SIZE)


def test_missing_tables_map_nothing() -> None:
    assert walk({1: {0: entry(2), 1: entry(1 << 39)}}, Paging.FOUR_LEVEL) == []


def test_tables_that_point_at_themselves_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_tables, "TABLES_MAX", 2000)
    everything = dict.fromkeys(range(512), entry(1))
    walked = PageTables(reader({1: everything}), Paging.FOUR_LEVEL, 0x1000)
    with pytest.raises(libxlsr.StreamError, match="more than 2000 page tables"):
        for _ in walked.mappings(0, LAST_ADDRESS):
            pass
    # A small range goes through a handful of tables, and is all right.
    assert list(walked.mappings(0, 8191)) == [Mapped(0, 4096, 4096), Mapped(4096, 4096, 4096)]


LONG_MODE = {"cr0": CR0_PG_PE, "cr4": CR4_PAE, "msr_efer": EFER_LMA, "cr3": 0x1000}
KERNEL = 0xFFFFFFFF80000000
KERNEL_TABLES = {
    1: {511: entry(2)},
    2: {510: entry(3)},
    3: {0: entry(4)},
    4: {0: entry(9), 1: entry(12), 3: entry(10)},
}


@pytest.mark.parametrize(
    ("registers", "tables", "base", "width"),
    [
        (LONG_MODE, KERNEL_TABLES, KERNEL, 8),
        (
            {**LONG_MODE, "cr4": CR4_PAE | CR4_LA57, "cr3": 0x5000},
            {5: {511: entry(1)}, **KERNEL_TABLES},
            KERNEL,
            8,
        ),
        (
            {"cr0": CR0_PG_PE, "cr4": CR4_PAE, "cr3": 0x1000},
            {1: {3: entry(2)}, 2: {0: entry(3)}, 3: KERNEL_TABLES[4]},
            0xC0000000,
            8,
        ),
        (
            {"cr0": CR0_PG_PE, "cr3": 0x1000},
            {1: {0x300: entry(2)}, 2: KERNEL_TABLES[4]},
            0xC0000000,
            4,
        ),
    ],
    ids=["four levels", "five levels", "PAE", "legacy"],
)
def test_hvm_guests(
    registers: Mapping[str, int], tables: paging.Tables, base: int, width: int, tmp_path: Path
) -> None:
    stream = paging.hvm(registers, tables, entry_width=width, pages=20)
    check_kernel(stream, base, tmp_path)


def test_pv_guests(tmp_path: Path) -> None:
    check_kernel(paging.pv({"cr3": 0x1000}, KERNEL_TABLES, pages=20), KERNEL, tmp_path)


def test_32bit_pv_guests(tmp_path: Path) -> None:
    tables = {1: {3: entry(2)}, 2: {0: entry(3)}, 3: KERNEL_TABLES[4]}
    stream = paging.pv({"cr3": 1 << 12}, tables, width=4, pages=20)
    check_kernel(stream, 0xC0000000, tmp_path)


@pytest.mark.parametrize("cr3", [None, 0x00005001, 0x1_0000_5000], ids=["own", "folded", "plain"])
def test_a_32bit_pv_guest_whose_tables_lie_above_4_gib(cr3: int | None, tmp_path: Path) -> None:
    high = 1 << 20
    tables = {high + 5: {0: entry(high + 6)}, high + 6: {0: entry(high + 7)}}
    tables[high + 7] = {0: entry(3)}
    own = 0x00005001  # of frame 0x100005, as xen_pfn_to_cr3() has it
    basic = tmp_path / layout.VCPUS / "0" / "basic"
    basic.parent.mkdir(parents=True)
    basic.write_bytes(VcpuGuestContext(4, {"cr3": own}).encode())
    guest = Guest(
        directory=tmp_path,
        request=Request("raw", vaddr=(0, PAGE_SIZE - 1), cr3=cr3),
        frames=Mock(page=reader(tables)),
        vcpus=read_vcpus(tmp_path),
        width=4,
        output=Mock(),
    )
    assert list(guest.mappings()) == [Mapped(0, 3 << 12, PAGE_SIZE)]


def check_kernel(stream: StreamBuilder, base: int, tmp_path: Path) -> None:
    """From ``base`` on the frames 9 and 12 are mapped, nothing, then 10."""
    image = save(stream, tmp_path / "image")
    extract(image, tmp_path / "raw", Request("raw", vaddr=(base, base + 4 * PAGE_SIZE - 1)))
    pages = stream.page(9) + stream.page(12) + bytes(PAGE_SIZE) + stream.page(10)
    assert (tmp_path / "raw").read_bytes() == pages
    start = base + PAGE_SIZE - 100
    extract(image, tmp_path / "part", Request("raw", vaddr=(start, start + 299)))
    assert (tmp_path / "part").read_bytes() == pages[PAGE_SIZE - 100 :][:300]


@pytest.mark.parametrize(("cr4", "gfn"), [(0, 3), (CR4_PSE, 0)], ids=["small", "large"])
def test_pages_of_4_mib_are_for_who_enabled_them(cr4: int, gfn: int, tmp_path: Path) -> None:
    tables = {2: {0: 1 << 12 | LARGE}, 1: {0: entry(3)}}
    registers = {"cr0": CR0_PG_PE, "cr3": 0x2000, "cr4": cr4}
    stream = paging.hvm(registers, tables, entry_width=4)
    image = save(stream, tmp_path / "image")
    extract(image, tmp_path / "raw", Request("raw", vaddr=(0, PAGE_SIZE - 1)))
    assert (tmp_path / "raw").read_bytes() == stream.page(gfn)


def test_another_address_space(tmp_path: Path) -> None:
    tables = {**KERNEL_TABLES, 6: {0: entry(7)}, 7: {0: LARGE}}
    image = save(paging.hvm(LONG_MODE, tables, pages=20), tmp_path / "image")
    request = Request("raw", vaddr=(PAGE_SIZE * 3, PAGE_SIZE * 4 - 1), cr3=0x6000)
    extract(image, tmp_path / "raw", request)
    assert (tmp_path / "raw").read_bytes() == paging.table_page(KERNEL_TABLES[3])
    with pytest.raises(libxlsr.UsageError, match="no contents for the virtual addresses"):
        extract(image, tmp_path / "none", Request("raw", vaddr=(0, PAGE_SIZE)))


def test_another_address_space_where_paging_is_off(tmp_path: Path) -> None:
    image = save(paging.hvm({"cr0": 1}, pages=4), tmp_path / "image")
    with pytest.raises(libxlsr.UsageError, match=r"paging switched off.*CR3 0x6000"):
        extract(image, tmp_path / "raw", Request("raw", vaddr=(0, 99), cr3=0x6000))
    extract(image, tmp_path / "raw", Request("raw", vaddr=(0, 99)))


def test_a_cr3_that_a_32bit_vcpu_can_not_hold(tmp_path: Path) -> None:
    registers = {"cr0": CR0_PG_PE, "cr4": CR4_PAE, "cr3": 0x1000}
    image = save(paging.hvm(registers, pages=4), tmp_path / "image")
    with pytest.raises(libxlsr.UsageError, match=r"CR3 has 32 bits, and 0x100001000 has more"):
        extract(image, tmp_path / "raw", Request("raw", vaddr=(0, 99), cr3=0x1_0000_1000))
