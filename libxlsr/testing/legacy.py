"""Makes images of Xen 4.5 and older from the documented format: formats/legacy.py says what it is.

::

    image = LegacyImage("hvm", width=8, pages=16)
    data = image.build()                # with an xl header, as xl save wrote it

No public images of that age exist. What these are compared with is Xen's convert-legacy-stream.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence

from libxlsr.formats import xl
from libxlsr.formats.hvm_context import (
    HVM_FILE_MAGIC,
    HVM_FILE_VERSION,
    HVM_SAVE_CODE_CPU,
    HVM_SAVE_EVERY_VCPU,
    HVM_SAVE_SIZES,
    HvmContext,
    HvmSaveEntry,
)
from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.formats.libxc_pv import VCPU_GUEST_CONTEXT_SIZE
from libxlsr.formats.page_types import XEN_DOMCTL_PFINFO_NOTAB, has_data
from libxlsr.guest_state.hvm_cpu import HvmCpu
from libxlsr.source.legacy import format as legacy
from libxlsr.testing.builder import HVM_PLATFORM, config_json
from libxlsr.testing.pages import Content, stamped_page

PHYSMAP = ((0xF0000000, 0xF0010000, 0x800000, "vga.vram"),)
TSC = (0, 10**9, 2_300_000, 1)


class LegacyImage:
    """One domain's image; the attributes are what a test changes before ``build()``.

    ``guest``         ``pv`` or ``hvm``
    ``width``         of the toolstack's unsigned long: 4 or 8 bytes
    ``guest_width``   of a PV guest
    ``types``         XEN_DOMCTL_PFINFO_* of frames that are no plain ones
    ``dirtied``       for each later iteration of a live migration, the frames sent again
    ``xl_header``     None for none; "json" as Xen 4.5 wrote it, "text" as older ones did
    ``xsave``         bytes of XSAVE data of each vCPU of a PV guest, 0 for none
    """

    def __init__(
        self,
        guest: str = "hvm",
        *,
        width: int = 8,
        guest_width: int = 8,
        pages: int = 16,
        types: Mapping[int, int] | None = None,
        dirtied: Sequence[Iterable[int]] = (),
        content: Content = stamped_page,
        xl_header: str | None = "json",
        vcpus: Sequence[int] = (0,),
        xsave: int = 576,
        extended: bool = True,
        tsc: bool = True,
        qemu: bytes = b"QEVM" + bytes(range(256)) * 4,
        qemu_signature: bytes = legacy.QEMU_WITH_LENGTH[0],
        physmap: Sequence[tuple[int, int, int, str]] = PHYSMAP,
    ) -> None:
        self.guest = guest
        self.width = width
        self.guest_width = guest_width
        self.pages = pages
        self.types = dict(types or {})
        self.dirtied = [list(frames) for frames in dirtied]
        self.content = content
        self.xl_header = xl_header
        self.vcpus = list(vcpus)
        self.xsave = xsave
        self.extended = extended
        self.tsc = tsc
        self.qemu = qemu
        self.qemu_signature = qemu_signature
        self.physmap = list(physmap)
        self.extra_chunks = b""
        """Chunks before the last one."""

    def build(self) -> bytes:
        """The whole image."""
        tail = self._pv_tail() if self.guest == "pv" else self._hvm_tail()
        return self._xl() + self._head() + self._chunks() + tail

    def page(self, gfn: int) -> bytes:
        """What the frame holds in the end."""
        sent = [number for number, frames in enumerate(self.dirtied, 1) if gfn in frames]
        return self.content(gfn, sent[-1] if sent else 0)

    def hvm_context(self) -> bytes:
        """The HVM context, with the CPU entries of Xen 4.6 and older."""
        header = struct.pack("<IIQII", HVM_FILE_MAGIC, HVM_FILE_VERSION, 0, 0, 2_300_000)
        state = HvmCpu({}, bytes(512)).encode()
        states = [
            HvmSaveEntry(
                typecode,
                vcpu,
                state if typecode == HVM_SAVE_CODE_CPU else bytes(HVM_SAVE_SIZES[typecode][0]),
            )
            for typecode in HVM_SAVE_EVERY_VCPU
            for vcpu in self.vcpus
        ]
        return HvmContext((HvmSaveEntry(1, 0, header), *states, *HVM_PLATFORM)).encode()

    def vcpu_part(self, vcpu: int, size: int, kind: int) -> bytes:
        """A part of a PV vCPU's state that can be told from the others."""
        return bytes([vcpu, kind]) * (size // 2)

    # -- parts

    def _words(self, *words: int) -> bytes:
        return struct.pack(f"<{len(words)}{'I' if self.width == 4 else 'Q'}", *words)

    def _xl(self) -> bytes:
        if self.xl_header is None:
            return b""
        text = (
            json.dumps(config_json(self.guest, self.pages, vcpus=max(self.vcpus) + 1))
            if self.xl_header == "json"
            else (f'name = "guest"\nbuilder = "{self.guest}"\n')
        )
        data = text.encode() + b"\0"
        optional = struct.pack("<I", len(data)) + data
        flags = xl.XL_MANDATORY_FLAG_JSON if self.xl_header == "json" else 0
        return xl.Header(flags, 0, len(optional)).encode() + optional

    def _head(self) -> bytes:
        head = self._words(self.pages)
        if self.guest == "hvm":
            return head
        size = VCPU_GUEST_CONTEXT_SIZE[self.guest_width]
        blocks = struct.pack("<4sI", b"vcpu", size) + bytes(size)
        if self.extended:
            blocks += struct.pack("<4sI", b"extv", 0)
        if self.xsave:
            blocks += struct.pack("<4sII", b"xcnt", 4, self.xsave + 16)
        ones = (1 << 8 * self.width) - 1
        frames = (self.pages - 1) // (PAGE_SIZE // self.guest_width) + 1
        p2m = self._words(*range(self.pages - frames, self.pages))
        return head + self._words(ones) + struct.pack("<I", len(blocks)) + blocks + p2m

    def _batch(self, frames: Sequence[int], generation: int) -> bytes:
        pairs = [(gfn, self.types.get(gfn, XEN_DOMCTL_PFINFO_NOTAB)) for gfn in frames]
        words = [page_type << 28 | gfn for gfn, page_type in pairs] + [legacy.FILLER] * 2
        pages = [self.content(gfn, generation) for gfn, kind in pairs if has_data(kind)]
        return struct.pack("<i", len(words)) + self._words(*words) + b"".join(pages)

    def _chunks(self) -> bytes:
        chunks = []
        for generation, frames in enumerate([list(range(self.pages)), *self.dirtied]):
            for start in range(0, len(frames), 1000):
                chunks.append(self._batch(frames[start : start + 1000], generation))
        highest = max(self.vcpus)
        bitmap = sum(1 << vcpu for vcpu in self.vcpus).to_bytes((highest // 64 + 1) * 8, "little")
        chunks.append(struct.pack("<ii", legacy.XC_SAVE_ID_VCPU_INFO, highest) + bitmap)
        if self.tsc:
            chunks.append(struct.pack("<iIQII", legacy.XC_SAVE_ID_TSC_INFO, *TSC))
        if self.guest == "hvm":
            for number, chunk in enumerate(legacy.HVM_PARAM_CHUNKS):
                if chunk != -21:  # later than Xen's own converter
                    chunks.append(struct.pack("<iIQ", chunk, 0, 0x1000 + number))
            chunks.append(self._toolstack())
        chunks.append(struct.pack("<i", legacy.XC_SAVE_ID_LAST_CHECKPOINT))
        return b"".join(chunks) + self.extra_chunks + struct.pack("<i", 0)

    def _toolstack(self) -> bytes:
        entries = b""
        for phys_offset, start_addr, size, name in self.physmap:
            raw = name.encode() + b"\0"
            entries += struct.pack("<QQQI", phys_offset, start_addr, size, len(raw)) + raw
            entries += bytes(4 if self.width == 8 else 0)
        data = struct.pack("<II", 1, len(self.physmap)) + entries
        return struct.pack("<iI", legacy.XC_SAVE_ID_TOOLSTACK, len(data)) + data

    def _pv_tail(self) -> bytes:
        tail = struct.pack("<I", 2) + self._words(3, 4)
        for vcpu in self.vcpus:
            tail += self.vcpu_part(vcpu, VCPU_GUEST_CONTEXT_SIZE[self.guest_width], 1)
            if self.extended:
                tail += self.vcpu_part(vcpu, legacy.EXTENDED_SIZE, 2)
            if self.xsave:
                tail += struct.pack("<QQ", 7, self.xsave) + self.vcpu_part(vcpu, self.xsave, 3)
        return tail + b"\x5a" * PAGE_SIZE

    def _hvm_tail(self) -> bytes:
        context = self.hvm_context()
        tail = struct.pack("<3QI", self.pages - 3, self.pages - 2, self.pages - 1, len(context))
        tail += context + self.qemu_signature
        if self.qemu_signature != legacy.QEMU_TO_EOF:
            tail += struct.pack("<I", len(self.qemu))
        return tail + self.qemu
