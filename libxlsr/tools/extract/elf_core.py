"""The format ``elf``: a core file with a segment for each range of memory, and register notes.

::

    ELF header, program headers (PT_NOTE, then a PT_LOAD for each range)
    notes               core_notes.py
    memory              each range once, in ascending order, without what lies in between

Without virtual addresses a segment's p_vaddr is its guest-physical address. With them each mapping
has a segment of its own, and several may lead to the same memory in the file.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from libxlsr.errors import StreamError
from libxlsr.formats import elf
from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.tools.extract.core_notes import VMCOREINFO_NOTE_MAX, VmcoreinfoFinder, register_notes
from libxlsr.tools.extract.page_tables import Mapping
from libxlsr.tools.extract.request import Guest, frames_of

_LOADS_MAX = elf.PHNUM_MAX - 1

_ALIASES_MAX = 64
"""How many mappings of one page are kept. Linux fills whole regions with one page: 65,536 times
for its espfix64, 262,144 times for what is missing in a PV guest's p2m."""

_32BIT = 1 << 32


class _Extent(NamedTuple):
    """A range of guest-physical memory that lies in one piece in the file."""

    gfn: int
    number: int


def write(guest: Guest) -> int:
    """Write it; the size of the file in bytes. Raises StreamError and OSError."""
    mappings: list[Mapping] | None = None
    wanted = [guest.frame_range()]
    if guest.request.vaddr is not None:
        mappings = list(islice(_without_fillers(guest.mappings()), _LOADS_MAX + 1))
        if len(mappings) > _LOADS_MAX:
            raise _too_many()
        wanted = _union(frames_of(mapping) for mapping in mappings)
    extents = _extents(guest, wanted)
    if not extents:
        raise guest.nothing_there()

    loads = _identity(extents) if mappings is None else _split(mappings, extents)
    if len(loads) > _LOADS_MAX:
        raise _too_many()
    is_64bit = guest.width == 8
    notes = register_notes(guest.vcpus, is_64bit)
    memory_size = sum(extent.number for extent in extents) * PAGE_SIZE
    top = (extents[-1].gfn + extents[-1].number) * PAGE_SIZE
    bits = 64 if is_64bit or max(top, 2 * memory_size) >= _32BIT else 32
    notes_at = elf.EHDR_SIZE[bits] + (len(loads) + 1) * elf.PHDR_SIZE[bits]
    memory_at = _page_up(notes_at + len(notes) + VMCOREINFO_NOTE_MAX)

    place = {}
    position = memory_at
    finder = VmcoreinfoFinder()
    for extent in extents:
        place[extent.gfn] = position
        guest.output.copy_frames(
            guest.frames, extent.gfn, extent.gfn + extent.number, position, finder.look
        )
        position += extent.number * PAGE_SIZE

    notes += finder.note()
    headers = [elf.ProgramHeader(elf.PT_NOTE, notes_at, 0, 0, len(notes))]
    for extent, mapping in loads:
        offset = place[extent.gfn] + mapping.paddr - extent.gfn * PAGE_SIZE
        headers.append(
            elf.ProgramHeader(elf.PT_LOAD, offset, mapping.vaddr, mapping.paddr, mapping.size)
        )
    machine = elf.EM_X86_64 if is_64bit else elf.EM_386
    file_header = elf.file_header(bits, machine, phnum=len(headers))
    guest.output.write(file_header + b"".join(header.encode(bits) for header in headers), 0)
    guest.output.write(notes, notes_at)
    return position


def _too_many() -> StreamError:
    return StreamError(
        f"the guest maps its memory in more than {_LOADS_MAX} pieces",
        offset=None,
        remedy="name a smaller range of virtual addresses",
    )


def _without_fillers(mappings: Iterator[Mapping]) -> Iterator[Mapping]:
    """The mappings, without those after the first few of a page that is mapped over and over."""
    times: Counter[int] = Counter()
    for mapping in mappings:
        if mapping.size == PAGE_SIZE:
            times[mapping.paddr] += 1
            if times[mapping.paddr] > _ALIASES_MAX:
                continue
        yield mapping


def _page_up(size: int) -> int:
    return -(-size // PAGE_SIZE) * PAGE_SIZE


def _union(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges (first, end) that overlap or touch, joined."""
    union: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if union and first <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((first, end))
    return union


def _extents(guest: Guest, wanted: list[tuple[int, int]]) -> list[_Extent]:
    """The ranges of memory, not more than there can be segments: where there are, those that are
    separated by the smallest gaps are joined, and the gaps become zeros."""
    gap = 0
    while True:
        extents = list(islice(_joined(guest, wanted, gap), _LOADS_MAX + 1))
        if len(extents) <= _LOADS_MAX:
            return extents
        gap = 2 * gap + 1


def _joined(guest: Guest, wanted: list[tuple[int, int]], gap: int) -> Iterator[_Extent]:
    """The ranges, those at most ``gap`` frames apart joined."""
    joined: _Extent | None = None
    for first, end in wanted:
        for gfn, number in guest.frames.ranges(first, end):
            if joined is not None and gfn - (joined.gfn + joined.number) <= gap:
                joined = _Extent(joined.gfn, gfn + number - joined.gfn)
                continue
            if joined is not None:
                yield joined
            joined = _Extent(gfn, number)
    if joined is not None:
        yield joined


def _identity(extents: list[_Extent]) -> list[tuple[_Extent, Mapping]]:
    return [
        (extent, Mapping(extent.gfn * PAGE_SIZE, extent.gfn * PAGE_SIZE, extent.number * PAGE_SIZE))
        for extent in extents
    ]


def _split(mappings: list[Mapping], extents: list[_Extent]) -> list[tuple[_Extent, Mapping]]:
    """The parts of the mappings that lead to memory in the file."""
    starts = [extent.gfn * PAGE_SIZE for extent in extents]
    parts: list[tuple[_Extent, Mapping]] = []
    for mapping in mappings:
        end = mapping.paddr + mapping.size
        index = max(bisect_right(starts, mapping.paddr) - 1, 0)
        while index < len(extents) and starts[index] < end:
            extent = extents[index]
            low = max(mapping.paddr, starts[index])
            high = min(end, starts[index] + extent.number * PAGE_SIZE)
            if low < high:
                vaddr = mapping.vaddr + low - mapping.paddr
                parts.append((extent, Mapping(vaddr, low, high - low)))
                if len(parts) > _LOADS_MAX:
                    return parts
            index += 1
    return parts
