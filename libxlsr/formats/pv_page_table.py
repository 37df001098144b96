"""A PV guest's page table as it is in an image: its entries hold guest frames, not the machine's.

Sources: x86_pv_localise_page() and pte_to_frame() in tools/libs/guest/xg_sr_restore_x86_pv.c and
xg_sr_common_x86_pv.c. libxenguest maps each present entry's frame into the new domain, and aborts
the process (an assertion) where the P2M does not go so far.
"""

from __future__ import annotations

import sys
from array import array
from functools import lru_cache

from libxlsr.errors import StreamError
from libxlsr.formats.framing import Buffer
from libxlsr.formats.libxc import PAGE_SHIFT, PAGE_SIZE, RecordType

_PAGE_PRESENT = 1
_PTE_FRAME = ((1 << 40) - 1) << PAGE_SHIFT
_CARRY_SHIFT = 52  # the lowest bit above an entry's frame

# A table as one number: what is done to all its 512 entries is done at once, where a loop in Python
# takes ten times as long.
_EACH = int.from_bytes((b"\1" + bytes(7)) * (PAGE_SIZE // 8), "little")
_FRAMES = _EACH * _PTE_FRAME


def highest_frame(table: Buffer) -> int:
    """The highest guest frame that a present entry of ``table``, one page, points to; or -1."""
    entries = array("Q", bytes(table))
    if sys.byteorder == "big":  # pragma: no cover - no such machine here
        entries.byteswap()
    highest = max((entry & _PTE_FRAME for entry in entries if entry & _PAGE_PRESENT), default=-1)
    return highest >> PAGE_SHIFT


def points_beyond(table: Buffer, end: int) -> bool:
    """Whether a present entry of ``table``, one page, points to a guest frame from ``end`` on."""
    entries = int.from_bytes(table, "little")
    beyond = ((entries & _FRAMES) + _to_carry(end)) >> _CARRY_SHIFT
    return bool(beyond & entries & _EACH)


@lru_cache(maxsize=1)
def _to_carry(end: int) -> int:
    """What makes each entry's frame from ``end`` on, and no other, carry into the bit above it."""
    return _EACH * ((1 << _CARRY_SHIFT) - (end << PAGE_SHIFT))


def check_table(table: Buffer, gfn: int, p2m_covered: int, offset: int | None) -> None:
    """Raises StreamError for the table in guest frame ``gfn`` if it points beyond the P2M."""
    if points_beyond(table, p2m_covered):
        highest = highest_frame(table)
        raise StreamError(
            f"a page table in frame {gfn:#x} points to frame {highest:#x}",
            offset=offset,
            record=RecordType.PAGE_DATA.name,
            expected=f"less than {p2m_covered:#x}, where the P2M ends",
        )
