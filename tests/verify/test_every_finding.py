"""Each finding is made by an image that was built to deserve it, and documented."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from libxlsr.formats import libxc, libxl, xl
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
    join,
    record_part,
)
from libxlsr.verify.findings import RULES, SHOWN_MAX, Severity, markdown

from .verify_images import ids, verify_bytes, verify_stream

DOCUMENT = Path(__file__).parents[2] / "docs" / "verify.md"
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


# -- the tests


@pytest.mark.parametrize("finding_id", RULES)
def test_each_finding_is_made(finding_id: str) -> None:
    for make, options in CASES[finding_id]:
        verified = verify_bytes(make(), **options)
        assert finding_id in ids(verified)
        assert verified.good is (verified.errors == 0)
        if RULES[finding_id].severity is Severity.ERROR:
            assert not verified.good


@pytest.mark.parametrize(
    "finding_id",
    [
        # Where one thing is wrong, nothing else is found.
        "trailing-data",
        "xl-header",
        "libxl-padding",
        "libxc-padding",
        "emulator-missing",
        "frames-missing",
        "domain-incomplete",
        "libxc-unusual-order",
        "pte-beyond-p2m",
        "p2m-frame-unusable",
        "record-too-large",
        "hvm-context",
        "hvm-context-missing",
        "hvm-vcpu-down",
        "vcpu-without-extended",
    ],
)
def test_nothing_else_is_found(finding_id: str) -> None:
    make, options = CASES[finding_id][0]
    assert ids(verify_bytes(make(), **options)) == {finding_id}


def test_a_finding_says_where() -> None:
    stream = StreamBuilder("pv")
    part = stream.find(T.X86_TSC_INFO)
    part.body = struct.pack("<IIQII", 9, 0, 0, 0, 0)
    (finding,) = verify_stream(stream).findings
    assert finding.offset == stream.offset_of(part) + 8
    assert finding.number == 7
    assert finding.layer == "libxc"
    assert finding.record == "libxc record 7 (X86_TSC_INFO)"
    assert str(finding) == (
        f"error: at offset {finding.offset:#x}, libxc record 7 (X86_TSC_INFO): TSC mode is 0x9, "
        "expected 0 to 3 [tsc-info]"
    )


OF_THE_WHOLE_IMAGE = {
    "emulator-missing",
    "frames-broken",
    "frames-missing",
    "frames-untracked",
    "frames-without-data",
    "no-config",
    "verify-mismatch",
}
OF_NO_RECORD = {
    "legacy-damaged",
    "legacy-image",
    "libxc-domain-header",
    "libxc-image-header",
    "libxl-header",
    "trailing-data",
    "unrecognised",
    "vcpu-missing",
    "wrong-format",
    "xl-config",
    "xl-header",
    "xl-optional-data-tail",
}


@pytest.mark.parametrize("finding_id", sorted(set(RULES) - {"compression"}))
def test_every_finding_has_its_place(finding_id: str) -> None:
    for make, options in CASES[finding_id]:
        for finding in verify_bytes(make(), **options).findings:
            if finding.id == finding_id:
                assert (finding.offset is None) is (finding_id in OF_THE_WHOLE_IMAGE)
                without_number = OF_THE_WHOLE_IMAGE | OF_NO_RECORD
                assert (finding.number is None) is (finding_id in without_number)


def test_the_document_says_which_findings_have_no_place() -> None:
    said = DOCUMENT.read_text().partition("## Findings")[2].partition("| id |")[0]
    assert not [name for name in OF_THE_WHOLE_IMAGE | OF_NO_RECORD if f"`{name}`" not in said]


def place_of(finding_id: str, stream: StreamBuilder) -> tuple[int | None, str | None]:
    (finding,) = [one for one in verify_stream(stream).findings if one.id == finding_id]
    return finding.offset, finding.record


def test_the_last_record_that_names_a_frame_or_a_vcpu() -> None:
    stream = StreamBuilder()
    first = stream.find(T.HVM_PARAMS)
    for params in (((1, 99), (17, 15)), ((9, 1),)):
        stream.insert_before(first, record_part(T.HVM_PARAMS, HvmParams(params).encode()))
    stream.parts.remove(first)
    offset, record = place_of("special-frame-missing", stream)
    assert offset == stream.offset_of(stream.find(T.HVM_PARAMS, 0)), "the other has no frame"
    assert record is not None
    assert record.endswith(" (HVM_PARAMS)")

    stream = StreamBuilder("pv", types={15: 1})
    part = stream.find(T.X86_PV_P2M_FRAMES)
    again = record_part(T.X86_PV_P2M_FRAMES, part.body_bytes())
    stream.insert_after(part, again)
    assert place_of("p2m-frame-unusable", stream)[0] == stream.offset_of(again)

    stream = StreamBuilder("pv", vcpus=2)
    stream.parts.remove(stream.find(T.X86_PV_VCPU_BASIC, 1))
    msrs = stream.find(T.X86_PV_VCPU_MSRS, 1)
    assert place_of("vcpu-without-basic", stream)[0] == stream.offset_of(msrs)


def test_the_bytes_behind_the_configuration() -> None:
    data = CASES["xl-optional-data-tail"][0][0]()
    (finding,) = [one for one in verify_bytes(data).findings if one.id == "xl-optional-data-tail"]
    assert (finding.offset, finding.record) == (data.index(b"tail"), "xl optional data")


def test_the_record_that_is_coming() -> None:
    stream = StreamBuilder("pv")
    end = stream.find(T.END)
    stream.parts = stream.parts[: stream.parts.index(end)]
    (cut,) = verify_stream(stream).findings
    records = sum(part.layer == "libxc" and part.type is not None for part in stream.parts)
    assert (cut.id, cut.number) == ("truncated", records + 1)
    assert cut.record == f"libxc record {records + 1}"


RANGES = "0x1-0x3, 0x5, 0x7, 0x9-0xa, ..."
SCATTERED = (1, 2, 3, 5, 7, 9, 10, 12)


def message_of_the(finding_id: str, data: bytes, **options: Any) -> str:
    (message,) = [
        finding.message
        for finding in verify_bytes(data, **options).findings
        if finding.id == finding_id
    ]
    return message


def test_frames_that_are_found_are_named() -> None:
    without = StreamBuilder(types=dict.fromkeys(SCATTERED, 0xE)).build()
    assert message_of_the("frames-without-data", without) == f"8 frames: {RANGES}"
    broken = StreamBuilder(types=dict.fromkeys(SCATTERED, 0xD)).build()
    assert message_of_the("frames-broken", broken) == f"8 frames: {RANGES}"
    missing = page_data(*(frame for frame in SIXTEEN if frame[0] not in SCATTERED))
    assert message_of_the("frames-missing", missing) == f"8 of 16 frames: {RANGES}"
    few = StreamBuilder(types=dict.fromkeys(SCATTERED[:6], 0xE)).build()
    assert message_of_the("frames-without-data", few) == "6 frames: 0x1-0x3, 0x5, 0x7, 0x9"


def test_ranges_that_go_on_in_the_next_chunk() -> None:
    edge = range((1 << 16) - 2, (1 << 16) + 3)
    frames = [(gfn, 0xE if gfn in edge else 0xF) for gfn in range(edge.stop + 10)]
    stream = StreamBuilder()
    stream.find(T.PAGE_DATA).body = PageBatch(frames[: 1 << 15])
    for start in (1 << 15, 1 << 16):
        more = record_part(T.PAGE_DATA, PageBatch(frames[start : start + (1 << 15)]))
        stream.insert_before(stream.find(T.X86_TSC_INFO), more)
    data = stream.build()
    assert message_of_the("frames-without-data", data) == "5 frames: 0xfffe-0x10002"


def test_frames_missing_where_not_all_are_kept_track_of() -> None:
    far = ((gfn << 16, 0xF) for gfn in range(1, 1100))
    message = message_of_the("frames-missing", page_data(*SIXTEEN[:3], *SIXTEEN[5:], *far))
    assert message.endswith(
        "of those that were kept track of: 0x3-0x4, 0x10-0xffff, 0x10001-0x1ffff, "
        "0x20001-0x2ffff, ..."
    )


def test_frames_that_differ_are_named() -> None:
    stream = StreamBuilder(verify=True)
    for first, generation in ((0, 0), (8, 7)):
        half = PageBatch(SIXTEEN[first : first + 8], generation=generation)
        stream.insert_before(stream.find(T.X86_TSC_INFO), record_part(T.PAGE_DATA, half))
    stream.parts.remove(stream.find(T.PAGE_DATA, 1))
    message = message_of_the("verify-mismatch", stream.build(), digest=True)
    assert message == "8 frames: 0x8-0xf"


def test_a_short_entry_is_found_where_it_says_its_length() -> None:
    stream = StreamBuilder()
    part = stream.find(T.HVM_CONTEXT)
    header, *_others = HvmContext.decode(part.body_bytes()).entries
    part.body = HvmContext((header, HvmSaveEntry(2, 0, bytes(8)))).encode()
    (finding,) = verify_stream(stream).findings
    assert finding.offset == stream.offset_of(part) + 8 + 32 + 4
    assert finding.message == "CPU[0] has a length of 8, expected 1024 or 1032"


def test_a_wrong_body_does_not_hide_what_follows() -> None:
    stream = StreamBuilder()
    stream.find(T.X86_CPUID_POLICY).body = bytes(1)
    stream.find(T.X86_TSC_INFO).body = bytes(1)
    stream.find(T.HVM_PARAMS).body = bytes(1)
    assert ids(verify_stream(stream)) == {"cpu-policy", "tsc-info", "hvm-params"}


def test_findings_are_bounded() -> None:
    stream = StreamBuilder()
    end = stream.find(T.END)
    for _ in range(SHOWN_MAX + 5):
        stream.insert_before(end, record_part(0x80000001, layer="libxc"))
    verified = verify_stream(stream)
    assert len(verified.findings) == SHOWN_MAX
    assert verified.dropped == {"libxc-optional-record": 5}
    assert verified.notes == SHOWN_MAX + 5


def test_damage_after_a_checkpoint_in_a_compressed_file_is_an_error() -> None:
    make, _ = CASES["ends-at-checkpoint"][0]
    assert "truncated" in ids(verify_bytes(gzip.compress(make())))


def test_bare_libxc_checkpoints() -> None:
    stream = StreamBuilder("pv", checkpoints=[[1], [2]])
    data = join(part for part in stream.parts if part.layer == "libxc")
    assert ids(verify_bytes(data)) == {"no-config"}
    assert ids(verify_bytes(data[:-8])) == {"no-config", "ends-at-checkpoint"}


@pytest.mark.parametrize("length", [0, 8, 1 << 20, 128 << 20, (1 << 32) - 1])
@pytest.mark.parametrize("record_type", [0, 1, 2, 3, 9, 10, 15, 17, 0x80000000, 0xFFFFFFFF])
def test_hostile_lengths(record_type: int, length: int) -> None:
    stream = StreamBuilder("pv", xl_header=False)
    part = stream.find(T.X86_PV_INFO)
    part.type, part.length = record_type, length
    verified = verify_stream(stream, full=True)
    assert verified.good is (record_type == 2 and length == 8)


def test_frames_near_the_end_of_what_x86_can_have() -> None:
    last = (1 << 40) - 1
    verified = verify_bytes(page_data(*SIXTEEN, (last, 0), (last + 1, 0xF)))
    assert "page-data" in ids(verified)
    verified = verify_bytes(page_data(*SIXTEEN, (last, 0)))
    assert ids(verified) == {"frames-missing"}


def test_the_document_lists_every_finding() -> None:
    assert markdown() in DOCUMENT.read_text(), "run python -m libxlsr.verify.findings"


def test_every_case_is_of_a_documented_finding() -> None:
    assert set(CASES) == set(RULES)
    assert libxc.PAGE_SIZE == 4096
