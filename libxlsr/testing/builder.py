"""Makes save images of PV, PVH and HVM domains, right ones by default, wrong ones on demand.

::

    stream = StreamBuilder("hvm", pages=64)               # xl header to END, as xl save writes it
    stream.find(libxc.RecordType.PAGE_DATA).length = 7    # a lie
    stream.drop(libxl.RecordType.END)
    data = stream.build()                                 # or, of any size: stream.write_to(fd)

``parts`` is the stream as a plain list; whatever the methods don't do, a test does there. Pages
hold their frame number and how often they were sent (pages.py), so that ``page(gfn)`` says what a
restore must end up with.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from libxlsr.formats import libxc, libxl, xl
from libxlsr.formats.cpu_policy import CpuidLeaf, MsrEntry, X86CpuidPolicy, X86MsrPolicy
from libxlsr.formats.hvm_context import (
    HVM_FILE_MAGIC,
    HVM_FILE_VERSION,
    HVM_SAVE_CODE_CPU,
    HVM_SAVE_CODE_LAPIC,
    HVM_SAVE_CODE_LAPIC_REGS,
    HVM_SAVE_CODE_MTRR,
    HVM_SAVE_EVERY_HVM_GUEST,
    HVM_SAVE_SIZES,
    HvmContext,
    HvmSaveEntry,
)
from libxlsr.formats.hvm_params import (
    HVM_PARAM_BUFIOREQ_PFN,
    HVM_PARAM_CONSOLE_PFN,
    HVM_PARAM_IOREQ_PFN,
    HVM_PARAM_STORE_PFN,
    HvmParams,
)
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import (
    PT_LEVELS,
    VCPU_GUEST_CONTEXT_SIZE,
    SharedInfo,
    X86PvInfo,
    X86PvP2mFrames,
    X86PvVcpu,
)
from libxlsr.formats.libxc_records import X86TscInfo
from libxlsr.formats.page_types import XEN_DOMCTL_PFINFO_NOTAB
from libxlsr.testing.pages import Content, PageBatch, stamped_page
from libxlsr.testing.parts import (
    DOMAIN_HEADER,
    IMAGE_HEADER,
    LIBXL_HEADER,
    XL_HEADER,
    XL_OPTIONAL_DATA,
    Part,
    join,
    layer_of,
    record_part,
)

BATCH = 1024  # MAX_BATCH_SIZE in xg_sr_common.h: frames in a sender's PAGE_DATA record
UUID = "5c1f0a36-9b1e-4a53-8f2d-6d5d0b6f7a10"
#: What Xen 4.17 writes of each vCPU, in bytes. It refuses longer ones; newer ones fill them up.
_HVM_VCPU_SIZES = {
    HVM_SAVE_CODE_CPU: 1032,
    HVM_SAVE_CODE_LAPIC: 24,
    HVM_SAVE_CODE_LAPIC_REGS: 1024,
    HVM_SAVE_CODE_MTRR: 240,
}

#: Entries of HVM_CONTEXT for the devices that every HVM guest has: zeros.
HVM_PLATFORM = [
    HvmSaveEntry(typecode, instance, bytes(HVM_SAVE_SIZES[typecode][0]))
    for typecode, instance in HVM_SAVE_EVERY_HVM_GUEST
]


def config_json(guest: str, pages: int, *, name: str = "guest", vcpus: int = 1) -> dict[str, Any]:
    """What libxl would write of such a domain's configuration."""
    memkb = max(pages * libxc.PAGE_SIZE >> 10, 1)
    return {
        "c_info": {"type": guest, "name": name, "uuid": UUID, "run_hotplug_scripts": "False"},
        "b_info": {
            "max_vcpus": vcpus,
            "avail_vcpus": list(range(vcpus)),
            "max_memkb": memkb,
            "target_memkb": memkb,
            "sched_params": {},
            f"type.{guest}": {},
            "arch_x86": {},
        },
        "on_reboot": "restart",
    }


class StreamBuilder:
    """The image of one domain. The constructor's arguments say which; all have defaults.

    ``guest``           ``pv``, ``pvh`` or ``hvm``
    ``version``         of the libxc image: 3, or 2 as Xen 4.6 to 4.13 wrote it
    ``pages``           how many frames the domain has, from 0 on
    ``types``           XEN_DOMCTL_PFINFO_* of frames that are no plain ones
    ``dirtied``         for each later iteration of a live migration, the frames sent again
    ``checkpoints``     None: a plain stream. Else for each Remus checkpoint the frames sent in it;
                        the first comes with the whole memory too
    ``content``         makes a page's bytes from its frame number and the iteration
    ``emulator``        the device model's state; None for none (the default for PV and PVH)
    ``xenstore``        the device model's xenstore keys
    ``config``          the JSON object in the xl header; ``xl_header=False`` leaves both out
    ``batch``           frames in each PAGE_DATA record
    ``verify``          whether memory is sent once more after a VERIFY record
    """

    def __init__(
        self,
        guest: str = "hvm",
        *,
        version: int = 3,
        pages: int = 16,
        types: Mapping[int, int] | None = None,
        dirtied: Sequence[Iterable[int]] = (),
        checkpoints: Sequence[Iterable[int]] | None = None,
        content: Content = stamped_page,
        emulator: bytes | None = None,
        xenstore: Sequence[tuple[str, str]] = (),
        config: dict[str, Any] | None = None,
        xl_header: bool = True,
        vcpus: int = 1,
        guest_width: int = 8,
        batch: int = BATCH,
        xen_version: tuple[int, int] = (4, 17),
        verify: bool = False,
    ) -> None:
        self.guest = guest
        self.version = version
        self.pages = pages
        self.content = content
        self.vcpus = vcpus
        self.guest_width = guest_width
        self.parts: list[Part] = []
        self._types = dict(types or {})
        self._batch = batch
        self._generations: dict[int, int] = {}
        if guest == "hvm" and emulator is None:
            emulator = b"QEVM" + bytes(range(256)) * 4

        if xl_header:
            self._add_xl_header(config or config_json(guest, pages, vcpus=vcpus))
        self.header(LIBXL_HEADER, "libxl", libxl.Header().encode())
        self.record(libxl.RecordType.LIBXC_CONTEXT)
        self._add_libxc_headers(xen_version)
        self._add_static_data()
        self.memory(range(pages), 0)
        for generation, frames in enumerate(dirtied, 1):
            self.memory(frames, generation)
        if verify:
            self.record(RecordType.VERIFY)
            self.memory(range(pages), None)
        for number, frames in enumerate(checkpoints or ()):
            self.memory(frames, len(dirtied) + 1 + number)
            self.state()
            self.record(RecordType.CHECKPOINT)
            self._add_emulator(emulator, xenstore)
            self.record(libxl.RecordType.CHECKPOINT_END)
        self.state()
        self.record(RecordType.END)
        self._add_emulator(emulator, xenstore)
        self.record(libxl.RecordType.END)

    # What a test adds.

    def header(self, name: str, layer: str, data: bytes) -> Part:
        """Append a header, or any bytes without a record's header."""
        part = Part(name, layer, data)
        self.parts.append(part)
        return part

    def record(self, record_type: int, body: bytes | PageBatch = b"") -> Part:
        """Append a record; the enumeration that ``record_type`` is of says whose."""
        part = record_part(record_type, body)
        self.parts.append(part)
        return part

    def memory(self, frames: Iterable[int], generation: int | None) -> None:
        """Append PAGE_DATA records for ``frames``; None sends again what they hold."""
        numbers = list(frames)
        for start in range(0, len(numbers), self._batch):
            batch = numbers[start : start + self._batch]
            pairs = [(gfn, self._types.get(gfn, XEN_DOMCTL_PFINFO_NOTAB)) for gfn in batch]
            if generation is None:
                body = PageBatch(pairs, lambda gfn, _: self.page(gfn))
            else:
                body = PageBatch(pairs, self.content, generation)
                if generation:
                    self._generations.update(dict.fromkeys(batch, generation))
            self.record(RecordType.PAGE_DATA, body)

    def state(self) -> None:
        """Append what follows memory: TSC and either vCPUs or the HVM context and parameters."""
        self.record(RecordType.X86_TSC_INFO, X86TscInfo(0, 2_300_000, 10**9, 1).encode())
        if self.guest == "pv":
            self.record(RecordType.SHARED_INFO, SharedInfo(bytes(libxc.PAGE_SIZE)).encode())
            for vcpu_id in range(self.vcpus):
                self._add_vcpu(vcpu_id)
        else:
            self.record(RecordType.HVM_CONTEXT, self._hvm_context().encode())
            self.record(RecordType.HVM_PARAMS, self._hvm_params().encode())

    # What a test changes.

    def find(self, record_type: int, index: int = 0) -> Part:
        """The record of a type; ``index`` counts from 0, from the end if negative."""
        return self._records(record_type)[index]

    def find_header(self, name: str) -> Part:
        """The header with one of the names in parts.py."""
        return next(part for part in self.parts if part.name == name and part.type is None)

    def drop(self, record_type: int) -> None:
        """Leave out every record of a type."""
        for part in self._records(record_type):
            self.parts.remove(part)

    def insert_before(self, place: Part, part: Part) -> Part:
        """Add a part right before ``place``; returns it. Raises ValueError for a foreign place."""
        self.parts.insert(self.parts.index(place), part)
        return part

    def insert_after(self, place: Part, part: Part) -> Part:
        """Add a part right behind ``place``; returns it. Raises ValueError for a foreign place."""
        self.parts.insert(self.parts.index(place) + 1, part)
        return part

    def swap(self, one: Part, other: Part) -> None:
        """Let two parts change places."""
        first, second = self.parts.index(one), self.parts.index(other)
        self.parts[first], self.parts[second] = other, one

    def truncate_after(self, part: Part) -> None:
        """Leave out everything after ``part``."""
        del self.parts[self.parts.index(part) + 1 :]

    # What comes out.

    def chunks(self) -> Iterator[bytes]:
        """The stream in pieces of 1 MiB at most, made as they are asked for."""
        for part in self.parts:
            yield from part.chunks()

    def build(self) -> bytes:
        """The whole stream."""
        return join(self.parts)

    def write_to(self, fd: int) -> int:
        """Write the stream to a blocking ``fd``; how many bytes that were."""
        written = 0
        for chunk in self.chunks():
            view = memoryview(chunk)
            while view:
                count = os.write(fd, view)
                written += count
                view = view[count:]
        return written

    @property
    def size(self) -> int:
        """The stream's length in bytes."""
        return sum(part.size for part in self.parts)

    def offset_of(self, part: Part) -> int:
        """Where ``part`` begins: a record with its 8-byte header."""
        return sum(before.size for before in self.parts[: self.parts.index(part)])

    def page(self, gfn: int) -> bytes:
        """What the frame holds in the end: the contents that were sent last."""
        return self.content(gfn, self._generations.get(gfn, 0))

    def _records(self, record_type: int) -> list[Part]:
        layer = layer_of(record_type)
        return [part for part in self.parts if part.layer == layer and part.type == record_type]

    def _add_xl_header(self, config: dict[str, Any]) -> None:
        data = xl.OptionalData(xl.Config.from_json(config)).encode()
        header = xl.Header(optional_data_len=len(data))
        self.header(XL_HEADER, "xl", header.encode())
        self.header(XL_OPTIONAL_DATA, "xl", data)

    def _add_libxc_headers(self, xen_version: tuple[int, int]) -> None:
        self.header(IMAGE_HEADER, "libxc", libxc.ImageHeader(self.version).encode())
        guest_type = libxc.DHDR_TYPE_X86_PV if self.guest == "pv" else libxc.DHDR_TYPE_X86_HVM
        domain_header = libxc.DomainHeader(guest_type, *xen_version)
        self.header(DOMAIN_HEADER, "libxc", domain_header.encode())

    def _add_static_data(self) -> None:
        if self.guest == "pv":
            info = X86PvInfo(self.guest_width, PT_LEVELS[self.guest_width])
            self.record(RecordType.X86_PV_INFO, info.encode())
        if self.version >= 3:
            leaves = (CpuidLeaf(0, 0xFFFFFFFF, 0xD, 0x756E6547, 0x6C65746E, 0x49656E69),)
            self.record(RecordType.X86_CPUID_POLICY, X86CpuidPolicy(leaves).encode())
            msrs = (MsrEntry(0xCE, 0, 0x80000000), MsrEntry(0x10A, 0, 0))
            self.record(RecordType.X86_MSR_POLICY, X86MsrPolicy(msrs).encode())
            self.record(RecordType.STATIC_DATA_END)
        if self.guest == "pv":
            self.record(RecordType.X86_PV_P2M_FRAMES, self._p2m_frames().encode())

    def _p2m_frames(self) -> X86PvP2mFrames:
        last = self.pages - 1
        count = last // (libxc.PAGE_SIZE // self.guest_width) + 1
        return X86PvP2mFrames(0, last, tuple(range(self.pages - count, self.pages)))

    def _add_vcpu(self, vcpu_id: int) -> None:
        for record_type, size in (
            (RecordType.X86_PV_VCPU_BASIC, VCPU_GUEST_CONTEXT_SIZE[self.guest_width]),
            (RecordType.X86_PV_VCPU_EXTENDED, 128),
            (RecordType.X86_PV_VCPU_XSAVE, 576 + 16),
            (RecordType.X86_PV_VCPU_MSRS, 32),
        ):
            self.record(record_type, X86PvVcpu(record_type, vcpu_id, bytes(size)).encode())

    def _hvm_context(self) -> HvmContext:
        header = (
            HVM_FILE_MAGIC.to_bytes(4, "little")
            + HVM_FILE_VERSION.to_bytes(4, "little")
            + b"\xff" * 8
            + (0x000A0655).to_bytes(4, "little")
            + (2_300_000).to_bytes(4, "little")
        )
        states = [
            HvmSaveEntry(typecode, vcpu_id, bytes(size))
            for typecode, size in _HVM_VCPU_SIZES.items()
            for vcpu_id in range(self.vcpus)
        ]
        if self.guest == "hvm":
            states += HVM_PLATFORM
        return HvmContext((HvmSaveEntry(1, 0, header), *sorted(states)))

    def _hvm_params(self) -> HvmParams:
        last = self.pages - 1
        params = [(HVM_PARAM_STORE_PFN, last), (HVM_PARAM_CONSOLE_PFN, max(last - 1, 0))]
        if self.guest == "hvm":
            params += [(HVM_PARAM_IOREQ_PFN, max(last - 2, 0))]
            params += [(HVM_PARAM_BUFIOREQ_PFN, max(last - 3, 0))]
        return HvmParams(tuple(params))

    def _add_emulator(self, emulator: bytes | None, xenstore: Sequence[tuple[str, str]]) -> None:
        ids = (libxl.EMULATOR_QEMU_UPSTREAM, 0)
        if xenstore:
            data = libxl.EmulatorXenstoreData(*ids, tuple(xenstore))
            self.record(libxl.RecordType.EMULATOR_XENSTORE_DATA, data.encode())
        if emulator is not None:
            context = libxl.EmulatorContext(*ids, emulator)
            self.record(libxl.RecordType.EMULATOR_CONTEXT, context.encode())
