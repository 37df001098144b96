"""The save images that are restored, made by the test kit."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.formats.page_types import (
    XEN_DOMCTL_PFINFO_L1TAB,
    XEN_DOMCTL_PFINFO_L2TAB,
    XEN_DOMCTL_PFINFO_NOTAB,
)
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.pages import PageBatch

# One page for all frames, and no zeros in it: cp would leave out what it takes for a hole.
_PAGE = random.Random(1).randbytes(PAGE_SIZE)
# A page table whose entries are all present, and point to the first 128 frames.
_TABLE = struct.pack("<128Q", *((gfn << 12) | 1 for gfn in range(128))) * 4

KINDS = {
    "hvm": "HVM, frames in order",
    "pv": "PV, every 64th frame a page table",
    "hvm-every-other": "HVM, every other frame, then the rest",
    "hvm-shuffled": "HVM, frames in random order",
}
"""What there is. The third is what dirty pages of a live migration look like, the last one is what
no sender does: each page costs a system call of its own."""


def write_image(path: Path, kind: str, mib: int) -> None:
    """Write the image of a guest with ``mib`` of memory to ``path``."""
    pages = (mib << 20) // PAGE_SIZE
    guest, _, order = kind.partition("-")
    types = {}
    if guest == "pv":
        table = (XEN_DOMCTL_PFINFO_L1TAB, XEN_DOMCTL_PFINFO_L2TAB)
        # Not the last frames: they hold the P2M.
        types = {gfn: table[gfn // 64 % 2] for gfn in range(0, pages - pages // 256 - 1, 64)}

    def content(gfn: int, generation: int) -> bytes:
        return _TABLE if gfn in types else _PAGE

    builder = StreamBuilder(guest, pages=pages, types=types, content=content)
    if order:
        _reorder(builder, pages, shuffled=order == "shuffled")
    with path.open("wb", buffering=0) as file:
        builder.write_to(file.fileno())


def _reorder(builder: StreamBuilder, pages: int, *, shuffled: bool) -> None:
    gfns = [*range(0, pages, 2), *range(1, pages, 2)]
    if shuffled:
        random.Random(2).shuffle(gfns)
    rest = iter(gfns)
    for part in builder.parts:
        if isinstance(part.body, PageBatch):
            frames = [(next(rest), XEN_DOMCTL_PFINFO_NOTAB) for _ in part.body.frames]
            part.body = PageBatch(frames, part.body.content)
