"""What is to be extracted, and what every writer works with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from libxlsr.errors import LibxlsrError, StreamError, UsageError
from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.tools.extract.frames import Frames
from libxlsr.tools.extract.page_tables import Mapping, PageTables, Paging
from libxlsr.tools.extract.sparse_file import SparseFile
from libxlsr.tools.extract.vcpus import Vcpu

FORMATS = ("raw", "elf", "xen-core", "lime")
VIRTUAL_FORMATS = ("raw", "elf")
"""Formats that can hold memory by its virtual addresses."""

LAST_ADDRESS = (1 << 64) - 1
FILE_SIZE_MAX = (1 << 63) - 1
"""Of a file on Linux, whose off_t is signed; a file system may have less."""


@dataclass(frozen=True)
class Request:
    """A part of memory: frames, or virtual addresses; both None for everything."""

    format: str
    frames: tuple[int, int] | None = None
    """The first and the last frame."""
    vaddr: tuple[int, int] | None = None
    """The first and the last virtual address."""
    cr3: int | None = None
    """The page tables to look virtual addresses up in; None for those of the first vCPU."""

    def check(self) -> None:
        """Raises UsageError for what contradicts itself."""
        if self.format not in FORMATS:
            raise UsageError(
                f"there is no format {self.format!r}", remedy=f"choose one of {', '.join(FORMATS)}"
            )
        for name, value in (("frames", self.frames), ("virtual addresses", self.vaddr)):
            if value is not None and not 0 <= value[0] <= value[1] <= LAST_ADDRESS:
                raise UsageError(f"{value[0]:#x} to {value[1]:#x} is no range of {name}")
        if self.frames is not None and self.vaddr is not None:
            raise UsageError("name a range of frames or of virtual addresses, not both")
        if self.cr3 is not None and self.vaddr is None:
            raise UsageError("a CR3 is for looking up virtual addresses: name them too")
        if self.vaddr is not None and self.format not in VIRTUAL_FORMATS:
            raise UsageError(
                f"the format {self.format} knows no virtual addresses",
                remedy=f"choose one of {', '.join(VIRTUAL_FORMATS)}",
            )
        if self.format == "raw" and self.vaddr is not None:
            first, last = self.vaddr
            if last - first >= FILE_SIZE_MAX:
                raise UsageError(
                    f"the virtual addresses {first:#x} to {last:#x} don't fit into a raw file",
                    remedy="name a smaller range, or choose the format elf",
                )


@dataclass(frozen=True)
class Guest:
    """A guest whose memory is to be written to ``output``."""

    directory: Path
    request: Request
    frames: Frames
    vcpus: list[Vcpu]
    width: int
    """4 for a 32-bit guest, 8 for a 64-bit one."""
    output: SparseFile

    def frame_range(self) -> tuple[int, int]:
        """The first frame that is wanted, and one more than the last."""
        if self.request.frames is None:
            return 0, self.frames.end
        first, last = self.request.frames
        return first, min(last + 1, self.frames.end)

    def nothing_there(self) -> LibxlsrError:
        """The error for a guest, or the range that was named, of which the image has nothing."""
        if self.request.vaddr is not None:
            first, last = self.request.vaddr
            return UsageError(
                f"the image has no contents for the virtual addresses {first:#x} to {last:#x}",
                remedy="name others, or the page tables that map them (CR3)",
            )
        if self.request.frames is not None:
            first, last = self.request.frames
            return UsageError(
                f"the image has no contents for the frames {first:#x} to {last:#x}",
                remedy=f"the highest frame that it names is {self.frames.end - 1:#x}",
            )
        return StreamError("the image has no contents for the guest", offset=None)

    def mappings(self) -> Iterator[Mapping]:
        """What the virtual addresses that are wanted are mapped to. Raises StreamError where the
        guest has no vCPU that says how, UsageError for a CR3 that its vCPU can't use."""
        assert self.request.vaddr is not None
        if not self.vcpus:
            raise StreamError("the image has no vCPU whose page tables could be used", offset=None)
        vcpu = self.vcpus[0]
        root = vcpu.page_table
        if self.request.cr3 is not None:
            if vcpu.paging is Paging.NONE:
                raise UsageError(
                    "the first vCPU has paging switched off, so that there is no telling how to "
                    f"read page tables at CR3 {self.request.cr3:#x}",
                    remedy="leave the CR3 out: virtual addresses are physical ones",
                )
            if not vcpu.is_pv and vcpu.paging.virtual_bits == 32 and self.request.cr3 >> 32:
                raise UsageError(
                    f"the first vCPU's CR3 has 32 bits, and {self.request.cr3:#x} has more",
                    remedy="name the CR3 that this vCPU would hold",
                )
            root = vcpu.table_address(self.request.cr3)
        return PageTables(self.frames.page, vcpu.paging, root).mappings(*self.request.vaddr)


def frames_of(mapping: Mapping) -> tuple[int, int]:
    """The first frame of a mapping, and one more than its last."""
    return mapping.paddr // PAGE_SIZE, (mapping.paddr + mapping.size - 1) // PAGE_SIZE + 1
