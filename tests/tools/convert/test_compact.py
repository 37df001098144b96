"""A compact image restores to the same guest, and is no larger than it has to be."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

import libxlsr
from libxlsr.formats.hvm_params import HvmParams
from libxlsr.formats.libxc import PAGE_SIZE, RecordType
from libxlsr.formats.libxc_pv import X86PvP2mFrames
from libxlsr.formats.page_types import (
    XEN_DOMCTL_PFINFO_L1TAB,
    XEN_DOMCTL_PFINFO_XALLOC,
    XEN_DOMCTL_PFINFO_XTAB,
)
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.pages import PageBatch, stamped_page
from libxlsr.testing.parts import record_part, split
from libxlsr.testing.restored import restored_state
from libxlsr.tools.convert.operation import convert
from libxlsr.tools.extract.operation import extract
from libxlsr.tools.extract.request import Request
from libxlsr.tools.verify.operation import verify

from ..verify.restored_digest import restored_digest

XENSTORE = [("physmap/1/start_addr", "0xf0000000")]
TYPES = {3: XEN_DOMCTL_PFINFO_XTAB, 7: XEN_DOMCTL_PFINFO_L1TAB}

STREAMS = {
    "hvm": lambda: StreamBuilder("hvm", pages=50, xenstore=XENSTORE),
    "live": lambda: StreamBuilder("hvm", pages=50, dirtied=[range(40), [5, 6, 9], [6]], batch=16),
    "pvh": lambda: StreamBuilder("pvh", pages=2500, types={9: XEN_DOMCTL_PFINFO_XTAB}),
    "pv": lambda: StreamBuilder("pv", pages=50, types=TYPES, vcpus=3, dirtied=[[7, 8]]),
    "pv32": lambda: StreamBuilder("pv", pages=50, types=TYPES, guest_width=4),
    "verified": lambda: StreamBuilder("pv", pages=50, verify=True),
    "remus": lambda: StreamBuilder("hvm", pages=50, checkpoints=[[1], [1, 2], [3]]),
    "v2": lambda: StreamBuilder("hvm", pages=50, version=2, xen_version=(4, 8)),
    "bare libxl": lambda: StreamBuilder("hvm", pages=50, xl_header=False),
}


def restored(image: Path, output: Path) -> dict[str, bytes]:
    libxlsr.restore(image, target="image", output=output)
    return restored_state(output)


@pytest.mark.parametrize("name", STREAMS)
def test_the_same_guest(name: str, tmp_path: Path) -> None:
    stream = STREAMS[name]()
    (tmp_path / "image").write_bytes(stream.build())
    written = convert(tmp_path / "image", tmp_path / "compact", compact=True)
    before = restored(tmp_path / "image", tmp_path / "before")
    assert restored(tmp_path / "compact", tmp_path / "after") == before
    assert written.size == (tmp_path / "compact").stat().st_size
    assert written.details["frames"] == stream.pages
    data = (tmp_path / "compact").read_bytes()
    pages = [part for part in split(data) if part.is_page_data]
    assert len(pages) == -(-stream.pages // 1024)
    assert len(data) <= (tmp_path / "image").stat().st_size
    verified = verify(tmp_path / "compact", digest=True)
    assert verified.digest == verify(tmp_path / "image", digest=True).digest
    findings = verified.findings
    assert [str(finding) for finding in findings if finding.severity.value != "note"] == []


def test_compacting_twice_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(STREAMS["live"]().build())
    convert(tmp_path / "image", tmp_path / "once", compact=True)
    convert(tmp_path / "once", tmp_path / "twice", compact=True)
    assert (tmp_path / "once").read_bytes() == (tmp_path / "twice").read_bytes()


def test_an_image_without_superfluous_records_stays_as_it_is(tmp_path: Path) -> None:
    for name in ("hvm", "pv32", "pvh", "v2", "bare libxl"):
        data = STREAMS[name]().build()
        (tmp_path / name).write_bytes(data)
        convert(tmp_path / name, tmp_path / f"{name}.compact", compact=True)
        assert (tmp_path / f"{name}.compact").read_bytes() == data


def test_a_frame_that_went_away_loses_its_contents(tmp_path: Path) -> None:
    stream = StreamBuilder("pvh", pages=8)
    stream._types = {7: XEN_DOMCTL_PFINFO_XTAB}
    stream.memory([7], 1)
    stream.insert_before(stream.find(RecordType.X86_TSC_INFO), stream.parts.pop())
    (tmp_path / "image").write_bytes(stream.build())
    convert(tmp_path / "image", tmp_path / "compact", compact=True)
    (pages,) = [part for part in split((tmp_path / "compact").read_bytes()) if part.is_page_data]
    assert len(pages.body) == 8 + 8 * 8 + 7 * PAGE_SIZE


def test_a_frame_that_is_only_to_be_allocated_in_the_end_keeps_its_contents(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", pages=8)
    named_again = PageBatch([(5, XEN_DOMCTL_PFINFO_XALLOC)])
    tsc = stream.find(RecordType.X86_TSC_INFO)
    stream.insert_before(tsc, record_part(RecordType.PAGE_DATA, named_again))
    after = restored_from_compact(stream, tmp_path)
    assert after["memory"][5 * PAGE_SIZE : 6 * PAGE_SIZE] == stamped_page(5)
    extract(tmp_path / "image", tmp_path / "page", Request("raw", frames=(5, 5)))
    assert (tmp_path / "page").read_bytes() == stamped_page(5)
    libxlsr.restore(tmp_path / "image", target="image", output=tmp_path / "guest")
    extract(tmp_path / "guest", tmp_path / "page of it", Request("raw", frames=(5, 5)))
    assert (tmp_path / "page of it").read_bytes() == stamped_page(5)
    assert restored_digest(tmp_path / "guest") == verify(tmp_path / "image", digest=True).digest


def test_frames_with_contents_in_a_verify_pass_only_are_zeros(tmp_path: Path) -> None:
    absent = {10: XEN_DOMCTL_PFINFO_XTAB, 15: XEN_DOMCTL_PFINFO_XTAB}
    stream = StreamBuilder("pvh", pages=16, types=absent)
    tsc = stream.find(RecordType.X86_TSC_INFO)
    stream.insert_before(tsc, record_part(RecordType.VERIFY))
    compared = PageBatch([(10, 0), (15, 0)], stamped_page)
    stream.insert_before(tsc, record_part(RecordType.PAGE_DATA, compared))
    after = restored_from_compact(stream, tmp_path)
    assert after == restored(tmp_path / "image", tmp_path / "before")
    for gfn in absent:
        assert after["memory"][gfn * PAGE_SIZE : (gfn + 1) * PAGE_SIZE] == bytes(PAGE_SIZE)
    assert restored_digest(tmp_path / "before") == verify(tmp_path / "image", digest=True).digest


def test_hvm_parameters_in_two_records_are_both_kept(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", pages=8)
    more = record_part(RecordType.HVM_PARAMS, HvmParams(((12, 0x1000),)).encode())
    stream.insert_after(stream.find(RecordType.HVM_PARAMS), more)
    (tmp_path / "image").write_bytes(stream.build())
    convert(tmp_path / "image", tmp_path / "compact", compact=True)
    after = restored(tmp_path / "compact", tmp_path / "after")
    assert after == restored(tmp_path / "image", tmp_path / "before")
    params = {param["index"] for param in json.loads(after["hvm_params.json"])}
    assert params == {1, 5, 6, 12, 17}


def insert_more(stream: StreamBuilder, bodies: list[bytes], record_type: RecordType) -> None:
    """Let further records of a type follow the one that is there."""
    first = stream.find(record_type)
    for body in reversed(bodies):
        stream.insert_after(first, record_part(record_type, body))


def restored_from_compact(stream: StreamBuilder, directory: Path) -> dict[str, bytes]:
    """What the compact image restores to, which has the digest of the image."""
    image, small = directory / "image", directory / "compact"
    image.write_bytes(stream.build())
    convert(image, small, compact=True)
    assert verify(small, digest=True).digest == verify(image, digest=True).digest is not None
    return restored(small, directory / "after")


def test_an_older_hvm_parameter_does_not_come_back(tmp_path: Path) -> None:
    """The third record has the same parameters as the first, one of which the second has too."""
    stream = StreamBuilder("hvm", pages=8)
    whole = stream.find(RecordType.HVM_PARAMS)
    others = HvmParams.decode(whole.body_bytes()).params
    viridian = 9
    whole.body = HvmParams((*others, (viridian, 1))).encode()
    alone, again = HvmParams(((viridian, 2),)), HvmParams((*others, (viridian, 3)))
    insert_more(stream, [alone.encode(), again.encode()], RecordType.HVM_PARAMS)
    after = restored_from_compact(stream, tmp_path)
    values = {param["index"]: param["value"] for param in json.loads(after["hvm_params.json"])}
    assert values[viridian] == 3


def test_an_older_part_of_the_p2m_does_not_come_back(tmp_path: Path) -> None:
    """A record of all, one of its first frame, one of its second, then again of all."""
    stream = StreamBuilder("pv", pages=1024)
    all_of_it = stream.find(RecordType.X86_PV_P2M_FRAMES).body_bytes()
    second = X86PvP2mFrames.decode(all_of_it).p2m_pfns[1]
    bodies = [X86PvP2mFrames(0, 511, (3,)), X86PvP2mFrames(512, 1023, (4,))]
    more = [*(body.encode() for body in bodies), all_of_it, bodies[0].encode()]
    insert_more(stream, more, RecordType.X86_PV_P2M_FRAMES)
    after = restored_from_compact(stream, tmp_path)
    assert after["p2m_frames"] == struct.pack("<QQ", 3, second)


def test_a_bare_libxc_stream(tmp_path: Path) -> None:
    stream = StreamBuilder("pvh", pages=8, dirtied=[[3]])
    chunks = [c for part in stream.parts if part.layer == "libxc" for c in part.chunks()]
    (tmp_path / "image").write_bytes(b"".join(chunks))
    convert(tmp_path / "image", tmp_path / "compact", compact=True)
    before = restored(tmp_path / "image", tmp_path / "before")
    assert restored(tmp_path / "compact", tmp_path / "after") == before


@pytest.mark.parametrize("codec", ["gzip", "xz", "zstd"])
@pytest.mark.parametrize("compact", [True, False])
def test_compression(codec: str, compact: bool, tmp_path: Path) -> None:
    plain = STREAMS["hvm"]().build()
    (tmp_path / "image").write_bytes(plain)
    convert(tmp_path / "image", tmp_path / "small", compact=compact, codec=codec)
    data = (tmp_path / "small").read_bytes()
    unpackers: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.decompress,
        "xz": lzma.decompress,
        "zstd": lambda packed: (
            zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read()
        ),
    }
    unpacked = unpackers[codec](data)
    assert unpacked == plain
    assert len(data) < len(plain) // 10
    convert(tmp_path / "small", tmp_path / "plain", compact=True)
    assert (tmp_path / "plain").read_bytes() == plain
    convert(tmp_path / "image", tmp_path / "again", compact=compact, codec=codec)
    assert (tmp_path / "again").read_bytes() == data


def test_what_can_not_be_written_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(gzip.compress(STREAMS["hvm"]().build()))
    with pytest.raises(libxlsr.UsageError, match="--compact"):
        convert(tmp_path / "image", tmp_path / "out", codec="xz")
    with pytest.raises(libxlsr.UsageError, match="no compression 'zip'"):
        convert(tmp_path / "image", tmp_path / "out", codec="zip")
    assert os.listdir(tmp_path) == ["image"]


@pytest.mark.parametrize("keep", [3000, 100_000, -1])
def test_a_damaged_image_leaves_nothing(keep: int, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(STREAMS["hvm"]().build()[:keep])
    with pytest.raises(libxlsr.StreamError):
        convert(tmp_path / "image", tmp_path / "out", compact=True, codec="gzip")
    assert os.listdir(tmp_path) == ["image"]
