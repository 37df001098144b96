"""For each finding the images that are built to deserve it."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from libxlsr.formats import libxl, xl
from libxlsr.formats.hvm_context import HvmContext, HvmSaveEntry
from libxlsr.formats.hvm_params import HVM_PARAMS_MAX, HvmParams
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import X86PvVcpu
from libxlsr.testing.builder import StreamBuilder, config_json
from libxlsr.testing.legacy import LegacyImage
from libxlsr.testing.pages import PageBatch
from libxlsr.testing.parts import (
    DOMAIN_HEADER,
    IMAGE_HEADER,
    LIBXL_HEADER,
    XL_HEADER,
    XL_OPTIONAL_DATA,
    record_part,
)

T = RecordType
Make = Callable[[], bytes]
CASES: dict[str, list[tuple[Make, dict[str, Any]]]] = {}


def case(finding_id: str, **options: Any) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        CASES.setdefault(finding_id, []).append((make, options))
        return make

    return register


def with_body(record_type: int, body: bytes, **kind: Any) -> bytes:
    stream = StreamBuilder(**kind)
    stream.find(record_type).body = body
    return stream.build()


def without(record_type: int, **kind: Any) -> bytes:
    stream = StreamBuilder(**kind)
    stream.drop(record_type)
    return stream.build()


def with_header(name: str, offset: int, data: bytes, **kind: Any) -> bytes:
    stream = StreamBuilder(**kind)
    part = stream.find_header(name)
    body = bytearray(part.body_bytes())
    body[offset : offset + len(data)] = data
    part.body = bytes(body)
    return stream.build()


# -- the image as a whole

case("unrecognised")(lambda: b"\x7fELF\2\1\1\0" + bytes(100))
case("legacy-image")(lambda: LegacyImage("pv").build())
case("legacy-damaged")(lambda: struct.pack("<QI", 0x10000, 0xFFFFFFFF) + bytes(64))
case("legacy-damaged")(lambda: b"LinuxGuestRecord" + bytes(64))
case("legacy-damaged", expected="legacy")(lambda: b"\x7fELF\2\1\1\0" + bytes(100))
case("wrong-format", expected="libxc")(lambda: StreamBuilder().build())
case("compression")(lambda: gzip.compress(StreamBuilder().build())[:-9])
case("compression")(lambda: lzma.compress(StreamBuilder().build())[:100])
case("compression")(lambda: b"\x1f\x8bnonsense")
case("truncated")(lambda: StreamBuilder().build()[:-1])
case("truncated")(lambda: StreamBuilder("pv").build()[:-16])
case("trailing-data")(lambda: StreamBuilder().build() + b"\0")


@case("ends-at-checkpoint")
def _() -> bytes:
    stream = StreamBuilder(checkpoints=[[1], [2]])
    stream.truncate_after(stream.find(libxl.RecordType.CHECKPOINT_END))
    return stream.build()


# -- xl

case("xl-header")(lambda: with_header(XL_HEADER, 40, b"\1"))
case("xl-config")(lambda: with_header(XL_OPTIONAL_DATA, 4, b"["))
case("xl-config")(lambda: StreamBuilder(config={"c_info": {"type": "hvm"}}).build())
case("no-config")(lambda: StreamBuilder(xl_header=False).build())


@case("xl-optional-data-tail")
def _() -> bytes:
    stream = StreamBuilder()
    part = stream.find_header(XL_OPTIONAL_DATA)
    part.body = part.body_bytes() + b"tail"
    stream.find_header(XL_HEADER).body = xl.Header(optional_data_len=len(part.body)).encode()
    return stream.build()


# -- libxl

case("libxl-header")(lambda: with_header(LIBXL_HEADER, 15, b"\1"))
case("emulator-context")(
    lambda: with_body(libxl.RecordType.EMULATOR_CONTEXT, struct.pack("<II", 9, 0) + b"QEVM")
)
case("emulator-context")(lambda: with_body(libxl.RecordType.EMULATOR_CONTEXT, b"\2"))
case("emulator-empty")(lambda: StreamBuilder(emulator=b"").build())
case("emulator-empty")(lambda: StreamBuilder(emulator=b"QEMU").build())
case("emulator-missing")(lambda: without(libxl.RecordType.EMULATOR_CONTEXT))
case("emulator-unexpected")(lambda: StreamBuilder("pvh", emulator=b"QEVM").build())
case("emulator-unexpected")(lambda: StreamBuilder("pv", xl_header=False, emulator=b"Q").build())


@case("libxl-record-header")
def _() -> bytes:
    stream = StreamBuilder()
    stream.find(libxl.RecordType.EMULATOR_CONTEXT).type = 6
    return stream.build()


@case("libxl-padding")
def _() -> bytes:
    stream = StreamBuilder(emulator=b"QEVM1")
    stream.find(libxl.RecordType.EMULATOR_CONTEXT).padding = b"\0\0\1"
    return stream.build()


@case("libxl-order")
def _() -> bytes:
    stream = StreamBuilder(xenstore=[("physmap/1/size", "1")])
    stream.swap(
        stream.find(libxl.RecordType.EMULATOR_CONTEXT),
        stream.find(libxl.RecordType.EMULATOR_XENSTORE_DATA),
    )
    return stream.build()


@case("libxl-optional-record")
def _() -> bytes:
    stream = StreamBuilder()
    end = stream.find(libxl.RecordType.END)
    stream.insert_before(end, record_part(0x80000001, b"abc", layer="libxl"))
    return stream.build()


@case("emulator-xenstore-data")
def _() -> bytes:
    body = struct.pack("<II", 2, 0) + b"state\0running\0"
    return with_body(
        libxl.RecordType.EMULATOR_XENSTORE_DATA, body, xenstore=[("physmap/1/size", "1")]
    )


@case("checkpoint-state")
def _() -> bytes:
    stream = StreamBuilder()
    state = record_part(libxl.RecordType.CHECKPOINT_STATE, b"\7\0\0\0")
    stream.insert_before(stream.find(libxl.RecordType.END), state)
    return stream.build()


@case("checkpoint-partial")
def _() -> bytes:
    stream = StreamBuilder(checkpoints=[[1], [2]])
    stream.parts.remove(stream.find(RecordType.X86_TSC_INFO, 1))
    return stream.build()


# -- libxc

case("libxc-image-header")(lambda: with_header(IMAGE_HEADER, 18, b"\1"))
case("libxc-domain-header")(lambda: with_header(DOMAIN_HEADER, 0, b"\3"))
case("guest-type")(lambda: StreamBuilder("pv", config=config_json("hvm", 16)).build())
case("legacy-converted")(lambda: StreamBuilder("pv", xen_version=(0, 1)).build())
case("libxc-order")(lambda: without(T.STATIC_DATA_END))
case("libxc-order")(lambda: without(T.X86_PV_INFO, guest="pv"))
case("domain-incomplete")(lambda: without(T.HVM_CONTEXT))
case("domain-incomplete")(lambda: without(T.X86_PV_VCPU_BASIC, guest="pv"))
case("policy-missing")(lambda: without(T.X86_MSR_POLICY))
case("verify-pass")(lambda: StreamBuilder(verify=True).build())
case("pv-info")(lambda: with_body(T.X86_PV_INFO, struct.pack("<BB6x", 4, 4), guest="pv"))
case("shared-info")(lambda: with_body(T.SHARED_INFO, bytes(4095), guest="pv"))
case("tsc-info")(lambda: with_body(T.X86_TSC_INFO, struct.pack("<IIQII", 9, 0, 0, 0, 0)))
case("hvm-context")(lambda: with_body(T.HVM_CONTEXT, HvmContext(()).encode()))
case("hvm-params")(lambda: with_body(T.HVM_PARAMS, HvmParams(((1, 0), (1, 0))).encode()))


@case("hvm-params")
def _() -> bytes:
    stream = StreamBuilder()
    more = HvmParams(tuple((1000 + number, 0) for number in range(HVM_PARAMS_MAX)))
    stream.insert_after(stream.find(T.HVM_PARAMS), record_part(T.HVM_PARAMS, more.encode()))
    return stream.build()


case("hvm-param-missing")(lambda: with_body(T.HVM_PARAMS, HvmParams(((17, 15),)).encode()))
case("empty-record")(lambda: with_body(T.HVM_PARAMS, HvmParams().encode()))
case("special-frame-missing")(
    lambda: with_body(T.HVM_PARAMS, HvmParams(((1, 99), (17, 15))).encode())
)
case("cpu-policy")(lambda: with_body(T.X86_CPUID_POLICY, bytes(23)))
case("cpu-policy")(lambda: with_body(T.X86_MSR_POLICY, struct.pack("<IIQ", 1, 1, 1)))


@case("libxc-record-header")
def _() -> bytes:
    stream = StreamBuilder()
    stream.find(T.X86_TSC_INFO).length = (128 << 20) + 1
    return stream.build()


@case("record-too-large")
def _() -> bytes:
    return with_body(T.HVM_CONTEXT, bytes((16 << 20) + 8))


@case("libxc-unusual-order")
def _() -> bytes:
    stream = StreamBuilder()
    stream.swap(stream.find(T.HVM_CONTEXT), stream.find(T.HVM_PARAMS))
    return stream.build()


@case("libxc-padding")
def _() -> bytes:
    stream = StreamBuilder()
    state = HvmContext.decode(stream.find(T.HVM_CONTEXT).body_bytes())
    entry = HvmSaveEntry(16, 0, bytes(605))
    part = stream.find(T.HVM_CONTEXT)
    part.body = HvmContext((*state.entries, entry)).encode()
    part.padding = b"\0\0\1"
    return stream.build()


@case("libxc-optional-record")
def _() -> bytes:
    stream = StreamBuilder()
    stream.insert_before(stream.find(T.END), record_part(0x80000001, b"abc", layer="libxc"))
    return stream.build()


@case("duplicate-record")
def _() -> bytes:
    stream = StreamBuilder()
    part = stream.find(T.X86_TSC_INFO)
    stream.insert_after(part, record_part(T.X86_TSC_INFO, part.body_bytes()))
    return stream.build()


@case("duplicate-record")
def _() -> bytes:
    stream = StreamBuilder("pv")
    part = stream.find(T.X86_PV_VCPU_BASIC)
    stream.insert_after(part, record_part(T.X86_PV_VCPU_BASIC, part.body_bytes()))
    return stream.build()


def hvm_context(change: Callable[[list[HvmSaveEntry]], object], **kind: Any) -> bytes:
    stream = StreamBuilder(**kind)
    part = stream.find(T.HVM_CONTEXT)
    entries = list(HvmContext.decode(part.body_bytes()).entries)
    change(entries)
    part.body = HvmContext(tuple(entries)).encode()
    return stream.build()


def without_entry(name: str, instance: int = 0, **kind: Any) -> bytes:
    def drop(entries: list[HvmSaveEntry]) -> None:
        entries.remove(next(e for e in entries if (e.name, e.instance) == (name, instance)))

    return hvm_context(drop, **kind)


def with_entry(typecode: int, instance: int, length: int, **kind: Any) -> bytes:
    """Added, or in the place of the one that is there."""

    def put(entries: list[HvmSaveEntry]) -> None:
        entry = HvmSaveEntry(typecode, instance, bytes(length))
        places = [number for number, old in enumerate(entries) if old[:2] == entry[:2]]
        for place in places or [len(entries)]:
            entries[place : place + 1] = [entry]

    return hvm_context(put, **kind)


CPU = HvmSaveEntry(2, 0, bytes(1032))
case("hvm-context")(lambda: with_entry(2, 0, 8))
case("hvm-context")(lambda: with_entry(2, 0, 1028))
case("hvm-context")(lambda: with_entry(2, 0, 1040))
case("hvm-context")(lambda: with_entry(6, 0, 8))
case("hvm-context-entry")(lambda: with_entry(77, 0, 0))
case("hvm-context-entry")(lambda: with_entry(14, 0, 248))
case("hvm-context-entry")(lambda: with_entry(5, 0, 40))
case("hvm-context-entry")(lambda: hvm_context(lambda entries: entries.append(CPU)))
case("hvm-context-vcpu")(lambda: without_entry("CPU"))
case("hvm-context-missing")(lambda: without_entry("LAPIC"))
case("hvm-context-missing")(lambda: without_entry("LAPIC_REGS", 1, vcpus=2))
case("hvm-context-missing")(lambda: without_entry("MTRR", guest="pvh"))
case("hvm-context-missing")(lambda: with_entry(18, 0, 32, vcpus=2))
case("hvm-context-missing")(lambda: without_entry("PIC", 1))
case("hvm-context-missing")(lambda: without_entry("IOAPIC"))
case("hvm-context-missing")(lambda: without_entry("RTC"))
case("hvm-vcpu-down")(lambda: without_entry("CPU", 1, vcpus=2))
for _typecode, _length in [(2, 1032), (5, 24), (14, 240), (16, 600), (20, 24)]:
    case("vcpu-unknown")(partial(with_entry, _typecode, 1, _length))


# -- memory


def page_data(*frames: tuple[int, int], **kind: Any) -> bytes:
    stream = StreamBuilder(**kind)
    stream.find(T.PAGE_DATA).body = PageBatch(frames)
    return stream.build()


SIXTEEN = [(gfn, 0) for gfn in range(16)]
case("page-data")(lambda: with_body(T.PAGE_DATA, bytes(16)))
case("page-data")(lambda: with_body(T.PAGE_DATA, PageBatch([(1, 5)]).prefix() + bytes(4096)))
case("duplicate-frame")(lambda: page_data(*SIXTEEN, (3, 0)))
case("frame-beyond-p2m")(lambda: page_data(*SIXTEEN, (16, 0), guest="pv"))
case("frames-missing")(lambda: page_data(*SIXTEEN[:5], *SIXTEEN[6:]))
case("frames-missing")(lambda: page_data(*SIXTEEN[:15], guest="pv"))
case("frames-without-data")(lambda: StreamBuilder(types={2: 0xE}).build())
case("frames-broken")(lambda: StreamBuilder(types={2: 0xD}).build())
case("page-type")(lambda: StreamBuilder(types={2: 1}).build())
case("p2m-frame-unusable")(lambda: StreamBuilder("pv", types={15: 1}).build())


@case("frames-untracked")
def _() -> bytes:
    return page_data(*SIXTEEN, *((gfn << 16, 0xF) for gfn in range(1, 1100)))


@case("p2m-frames")
def _() -> bytes:
    return with_body(T.X86_PV_P2M_FRAMES, struct.pack("<IIQ", 9, 8, 0), guest="pv")


@case("p2m-frames")
def _() -> bytes:
    return with_body(T.X86_PV_P2M_FRAMES, struct.pack("<IIQ", 4, 8, 0), guest="pv")


def pte_page(gfn: int, generation: int) -> bytes:
    return struct.pack("<512Q", *([0] * 511), (16 << 12) | 1)


@case("pte-beyond-p2m", full=True)
def _() -> bytes:
    return StreamBuilder("pv", types={3: 1}, content=pte_page).build()


@case("verify-mismatch", digest=True)
def _() -> bytes:
    stream = StreamBuilder(verify=True)
    stream.find(T.PAGE_DATA, 1).body = PageBatch(SIXTEEN, generation=7)
    return stream.build()


# -- PV vCPUs

VCPU = X86PvVcpu(T.X86_PV_VCPU_XSAVE, 0, bytes(16))
case("vcpu")(lambda: with_body(T.X86_PV_VCPU_BASIC, bytes(100), guest="pv"))
case("vcpu-missing")(
    lambda: StreamBuilder("pv", config=config_json("pv", 16, vcpus=2), vcpus=1).build()
)
case("vcpu-unknown")(lambda: StreamBuilder("pv", config=config_json("pv", 16), vcpus=2).build())
case("empty-record")(
    lambda: with_body(
        T.X86_PV_VCPU_XSAVE, X86PvVcpu(T.X86_PV_VCPU_XSAVE, 0, b"").encode(), guest="pv"
    )
)


case("vcpu-without-extended")(lambda: without(T.X86_PV_VCPU_EXTENDED, guest="pv"))


@case("vcpu-without-basic")
def _() -> bytes:
    stream = StreamBuilder("pv", vcpus=2)
    stream.parts.remove(stream.find(T.X86_PV_VCPU_BASIC, 1))
    return stream.build()
