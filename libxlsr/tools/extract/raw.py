"""The format ``raw``: memory as it lies; the first byte of the range is the file's first."""

from __future__ import annotations

from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.tools.extract.request import Guest


def write(guest: Guest) -> int:
    """Write it; the size of the file in bytes. Raises StreamError and OSError."""
    if guest.request.vaddr is not None:
        return _write_virtual(guest)
    first, end = guest.frame_range()
    last = first
    for gfn, number in guest.frames.ranges(first, end):
        last = gfn + number
    if last == first:
        raise guest.nothing_there()
    guest.output.copy_frames(guest.frames, first, end, 0)
    return (last - first) * PAGE_SIZE


def _write_virtual(guest: Guest) -> int:
    assert guest.request.vaddr is not None
    first, last = guest.request.vaddr
    for mapping in guest.mappings():
        _copy_bytes(guest, mapping.paddr, mapping.size, mapping.vaddr - first)
    if not guest.output.copied:
        raise guest.nothing_there()
    return last - first + 1


def _copy_bytes(guest: Guest, paddr: int, size: int, position: int) -> None:
    """Copy guest-physical memory that need not begin or end with a page."""
    while size:
        gfn, start = divmod(paddr, PAGE_SIZE)
        if start or size < PAGE_SIZE:
            count = min(PAGE_SIZE - start, size)
            page = guest.frames.page(gfn)
            if page is not None:
                guest.output.write(page[start : start + count], position)
                guest.output.copied += count
        else:
            count = size // PAGE_SIZE * PAGE_SIZE
            guest.output.copy_frames(guest.frames, gfn, gfn + count // PAGE_SIZE, position)
        paddr += count
        position += count
        size -= count
