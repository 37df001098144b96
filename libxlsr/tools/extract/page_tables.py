"""Virtual to guest-physical addresses, through the guest's own page tables.

Page tables are the guest's, so they are as hostile as the rest of the image: they may be missing,
point anywhere and at themselves. In the image of a PV guest their entries hold guest frame numbers
(libxc-migration-stream.pandoc, "x86 PV Guest"), so that the same walk serves for all guests.

Sources: Intel SDM volume 3, chapter 4; AMD64 manual volume 2, chapter 5.
"""

from __future__ import annotations

import enum
import sys
from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple, Optional

from libxlsr.errors import StreamError
from libxlsr.formats.libxc import PAGE_SHIFT, PAGE_SIZE

TABLES_MAX = 1 << 17
"""Page tables that one walk visits at the most: those of 256 GiB in pages of 4 KiB."""

_PRESENT = 1 << 0
_PAGE_SIZE_BIT = 1 << 7
_ADDRESS = 0x000FFFFFFFFFF000


class Paging(enum.Enum):
    """How a vCPU translates addresses: levels of tables, bits of an entry, of an index, of a
    virtual address; the highest level whose entries can map a large page."""

    NONE = (0, 0, 0, 48, 0)
    LEGACY = (2, 32, 10, 32, 2)
    LEGACY_SMALL_PAGES = (2, 32, 10, 32, 1)  # CR4.PSE is 0: bit 7 means nothing
    PAE = (3, 64, 9, 32, 2)
    FOUR_LEVEL = (4, 64, 9, 48, 3)
    FIVE_LEVEL = (5, 64, 9, 57, 3)

    @property
    def levels(self) -> int:
        return self.value[0]

    @property
    def virtual_bits(self) -> int:
        return self.value[3]

    @property
    def large_levels(self) -> int:
        return self.value[4]


class Mapping(NamedTuple):
    """Consecutive virtual addresses that lead to consecutive guest-physical ones, in bytes."""

    vaddr: int
    paddr: int
    size: int


ReadPage = Callable[[int], Optional[bytes]]


class PageTables:
    """One address space: ``read_page(gfn)`` gives the guest's frames, ``root`` is the
    guest-physical address of the highest table."""

    def __init__(self, read_page: ReadPage, paging: Paging, root: int) -> None:
        self._read_page = read_page
        self._paging = paging
        self._root = root
        self._visited = 0

    def mappings(self, first: int, last: int) -> Iterator[Mapping]:
        """What the virtual addresses ``first`` to ``last`` (included) are mapped to, ascending,
        consecutive mappings joined. Raises StreamError for tables without end."""
        self._visited = 0
        open_one: Mapping | None = None
        for mapping in self._all(first, last):
            if (
                open_one is not None
                and open_one.vaddr + open_one.size == mapping.vaddr
                and open_one.paddr + open_one.size == mapping.paddr
            ):
                open_one = open_one._replace(size=open_one.size + mapping.size)
                continue
            if open_one is not None:
                yield open_one
            open_one = mapping
        if open_one is not None:
            yield open_one

    def _all(self, first: int, last: int) -> Iterator[Mapping]:
        if self._paging is Paging.NONE:
            yield Mapping(first, first, last - first + 1)
            return
        for low, high in self._canonical(first, last):
            for mapping in self._walk(self._paging.levels, self._root, 0, low, high):
                yield mapping._replace(vaddr=self._sign_extended(mapping.vaddr))

    def _canonical(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The parts of the range that are addresses at all, without the copies of their top bit."""
        bits = self._paging.virtual_bits
        if bits == 32:
            if first < 1 << bits:
                yield first, min(last, (1 << bits) - 1)
            return
        half = 1 << (bits - 1)
        if first < half:
            yield first, min(last, half - 1)
        upper = (1 << 64) - half
        if last >= upper:
            mask = (1 << bits) - 1
            yield max(first, upper) & mask, last & mask

    def _sign_extended(self, vaddr: int) -> int:
        bits = self._paging.virtual_bits
        if bits == 32 or not vaddr >> (bits - 1) & 1:
            return vaddr
        return vaddr | ((1 << 64) - (1 << bits))

    def _walk(self, level: int, table: int, base: int, first: int, last: int) -> Iterator[Mapping]:
        """The mappings of one table, which translates the addresses from ``base`` on."""
        entry_bits, index_bits = self._paging.value[1:3]
        shift = PAGE_SHIFT + index_bits * (level - 1)
        size = 1 << shift
        low = max(first - base, 0) >> shift
        high = min((last - base) >> shift, (1 << index_bits) - 1)
        if level == self._paging.levels and self._paging is Paging.PAE:
            high = min(high, 3)  # the highest table has four entries
        for index, entry in self._present(table, entry_bits, low, high):
            vaddr = base + (index << shift)
            if level > 1 and not self._is_large(level, entry):
                yield from self._walk(level - 1, entry & _ADDRESS, vaddr, first, last)
                continue
            skip = max(first - vaddr, 0)
            length = min(last - vaddr + 1, size) - skip
            paddr = self._target(level, entry, size)
            yield Mapping(vaddr + skip, paddr + skip, length)

    def _is_large(self, level: int, entry: int) -> bool:
        """Whether an entry maps a large page: of 2 or 4 MiB, or of 1 GiB."""
        return level <= self._paging.large_levels and bool(entry & _PAGE_SIZE_BIT)

    def _target(self, level: int, entry: int, size: int) -> int:
        if self._paging is Paging.LEGACY and level == 2:  # PSE-36: bits 13 to 20 are 32 to 39
            return (entry & 0xFFC00000) | (entry >> 13 & 0xFF) << 32
        return entry & _ADDRESS & ~(size - 1)

    def _present(
        self, table: int, entry_bits: int, low: int, high: int
    ) -> Iterator[tuple[int, int]]:
        self._visited += 1
        if self._visited > TABLES_MAX:
            raise StreamError(
                f"the guest has more than {TABLES_MAX} page tables for these addresses",
                offset=None,
                remedy="name a smaller range of virtual addresses",
            )
        page = self._read_page(table >> PAGE_SHIFT)
        if page is None:
            return
        # The highest table of PAE is aligned to 32 bytes only.
        page = page[table & (PAGE_SIZE - 1) :]
        entries = array("Q" if entry_bits == 64 else "I", page)
        if sys.byteorder == "big":  # pragma: no cover - no such machine here
            entries.byteswap()
        for index, entry in enumerate(entries[low : high + 1], low):
            if entry & _PRESENT:
                yield index, entry
