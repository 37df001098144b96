"""Each finding is made by an image that was built to deserve it, and documented."""

from __future__ import annotations

import gzip

import pytest

from libxlsr.formats import libxc
from libxlsr.formats.libxc import RecordType
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.parts import join, record_part
from libxlsr.tools.verify.findings import RULES, SHOWN_MAX, Severity, markdown
from tests.paths import ROOT

from .finding_cases import CASES, SIXTEEN, page_data
from .verify_images import ids, verify_bytes, verify_stream

DOCUMENT = ROOT / "docs" / "verify.md"
T = RecordType


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
    assert markdown() in DOCUMENT.read_text(), "run python -m libxlsr.tools.verify.findings"


def test_every_case_is_of_a_documented_finding() -> None:
    assert set(CASES) == set(RULES)
    assert libxc.PAGE_SIZE == 4096
