"""The format ``lime``: each range of memory after a header of 32 bytes.

::

    magic u32 "EMiL", version u32 1, first address u64, last address u64, zero u64

Source: LiME's documentation, "LiME Memory Range Header Version 1".
"""

from __future__ import annotations

import struct

from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.tools.extract.request import Guest

_HEADER = struct.Struct("<IIQQQ")
MAGIC = 0x4C694D45
VERSION = 1


def write(guest: Guest) -> int:
    """Write it; the size of the file in bytes. Raises StreamError and OSError."""
    position = 0
    first, end = guest.frame_range()
    for gfn, number in guest.frames.ranges(first, end):
        address, size = gfn * PAGE_SIZE, number * PAGE_SIZE
        header = _HEADER.pack(MAGIC, VERSION, address, address + size - 1, 0)
        guest.output.write(header, position)
        position += _HEADER.size
        guest.output.copy_frames(guest.frames, gfn, gfn + number, position)
        position += size
    if not position:
        raise guest.nothing_there()
    return position
