"""Where a finding says it is, and which frames it names."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from libxlsr.formats.hvm_context import HvmContext, HvmSaveEntry
from libxlsr.formats.hvm_params import HvmParams
from libxlsr.formats.libxc import RecordType
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.pages import PageBatch
from libxlsr.testing.parts import record_part
from libxlsr.tools.verify.findings import RULES
from tests.paths import ROOT

from .finding_cases import CASES, SIXTEEN, page_data
from .verify_images import verify_bytes, verify_stream

DOCUMENT = ROOT / "docs" / "verify.md"
T = RecordType


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
    "guest-type",
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
    assert message_of_the("frames-missing", missing) == f"8 of 16 frames were never named: {RANGES}"
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
