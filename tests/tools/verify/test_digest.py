"""The digest is one of the guest's state, not of how it was written down."""

from __future__ import annotations

import errno
import gzip
import os
import re
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from libxlsr.formats.hvm_params import HvmParams
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import X86PvP2mFrames
from libxlsr.libxc.frame_map import CHUNK_FRAMES, CHUNKS_MAX
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.pages import PageBatch, stamped_page
from libxlsr.testing.parts import record_part
from libxlsr.tools.verify.digest import FRAME_DIGEST_SIZE, GuestDigest

from ...limits import file_size_limit
from .verify_images import KINDS, verify_bytes, verify_stream


def digest(stream: StreamBuilder) -> str:
    verified = verify_stream(stream, digest=True)
    assert verified.good, verified.findings
    assert verified.digest is not None
    return verified.digest


@pytest.mark.parametrize(
    ("guest", "record_type", "kind"),
    [
        ("hvm", RecordType.HVM_PARAMS, HvmParams),
        ("pv", RecordType.X86_PV_P2M_FRAMES, X86PvP2mFrames),
    ],
)
def test_what_many_records_add_up_to_is_put_together_once(
    guest: str, record_type: RecordType, kind: Any
) -> None:
    stream = StreamBuilder(guest)
    same = digest(stream)
    part = stream.find(record_type)
    for _ in range(20):
        stream.insert_after(part, record_part(record_type, part.body_bytes()))
    data = stream.build()
    with mock.patch.object(kind, "encode", autospec=True, side_effect=kind.encode) as encode:
        assert verify_bytes(data, digest=True).digest == same
    assert encode.call_count == 1


def last_copies(gfn: int, generation: int) -> bytes:
    """What frames hold in the end when 1, 2 and 3 were sent again with generation 1, 2 again."""
    return stamped_page(gfn, max(generation, {1: 1, 2: 2, 3: 1}.get(gfn, 0)))


@pytest.mark.parametrize("guest", ["pv", "pvh", "hvm"])
@pytest.mark.parametrize(
    "written",
    [
        {"dirtied": [[1, 2, 3], [2]]},
        {"dirtied": [[3, 1, 2], [2]], "batch": 3},
        {"content": last_copies},
        {"content": last_copies, "batch": 1},
        {"content": last_copies, "checkpoints": [[3, 1], []]},
        {"content": last_copies, "xl_header": False},
        {"dirtied": [[1, 2, 3], [2]], "verify": True},
    ],
    ids=range(7),
)
def test_the_same_state_written_differently(guest: str, written: dict[str, Any]) -> None:
    plain = StreamBuilder(guest, dirtied=[[1, 2, 3], [2]])
    assert digest(StreamBuilder(guest, **written)) == digest(plain)


@pytest.mark.parametrize(
    "other",
    [
        {"dirtied": [[1]]},
        {"pages": 17},
        {"types": {3: 0xF}},
        {"types": {3: 0xE}},
        {"vcpus": 2},
        {"version": 2},
        {"content": lambda gfn, generation: stamped_page(gfn + 1, generation)},
    ],
    ids=range(7),
)
@pytest.mark.parametrize("guest", ["pv", "hvm"])
def test_another_state(guest: str, other: dict[str, Any]) -> None:
    assert digest(StreamBuilder(guest, **other)) != digest(StreamBuilder(guest))


def test_page_types_are_state_in_pv_guests_only() -> None:
    assert digest(StreamBuilder("pv", types={3: 1})) != digest(StreamBuilder("pv"))
    assert digest(StreamBuilder("hvm", types={3: 1})) == digest(StreamBuilder("hvm"))


@pytest.mark.parametrize("guest", ["pv", "pvh"])
def test_zeros_need_not_be_sent(guest: str) -> None:
    def content(gfn: int, generation: int) -> bytes:
        return bytes(4096) if gfn in (3, 7) else stamped_page(gfn)

    elided = StreamBuilder(guest, types={3: 0xE, 7: 0xE})
    assert digest(StreamBuilder(guest, content=content)) == digest(elided)


def test_a_frame_that_was_taken_back_is_not_there() -> None:
    stream = StreamBuilder("pvh")
    last = stream.find(RecordType.PAGE_DATA, -1)
    stream.insert_after(last, StreamBuilder("pvh", types={3: 0xF}).find(RecordType.PAGE_DATA))
    assert digest(stream) == digest(StreamBuilder("pvh", types={3: 0xF}))


def test_across_the_chunks_of_the_frame_map() -> None:
    def stream(*batches: range) -> StreamBuilder:
        one = StreamBuilder("pvh", pages=4)
        part = one.find(RecordType.PAGE_DATA)
        for frames in reversed(batches):
            batch = PageBatch([(gfn, 0 if 65530 < gfn < 65545 else 0xF) for gfn in frames])
            one.insert_after(part, type(part)(part.name, part.layer, batch, part.type))
        return one

    end = 131000
    whole = digest(stream(range(4, 65540), range(65540, end)))
    assert whole == digest(stream(range(65520, end), range(4, 65532), range(65532, 65600)))


def test_the_order_of_parameters_does_not_matter() -> None:
    stream = StreamBuilder()
    part = stream.find(RecordType.HVM_PARAMS)
    params = HvmParams.decode(part.body_bytes()).params
    part.body = HvmParams(params[::-1]).encode()
    assert digest(stream) == digest(StreamBuilder())


def test_compression_does_not_matter() -> None:
    data = StreamBuilder("pv").build()
    assert verify_bytes(gzip.compress(data), digest=True).digest == digest(StreamBuilder("pv"))


def test_an_image_that_is_not_whole_has_none() -> None:
    data = StreamBuilder("pv", checkpoints=[[1]]).build()
    assert verify_bytes(data[:-8], digest=True).digest is None
    assert verify_bytes(b"", digest=True).digest is None


def test_a_p2m_that_begins_with_a_gap_has_none() -> None:
    stream = StreamBuilder("pv")
    part = stream.find(RecordType.X86_PV_P2M_FRAMES)
    part.body = b"\x08" + part.body_bytes()[1:]
    verified = verify_stream(stream, digest=True)
    assert verified.digest is None
    assert "p2m-frames" in {finding.id for finding in verified.findings}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_each_guest_has_one(kind: dict[str, Any]) -> None:
    assert digest(StreamBuilder(**kind)).startswith("libxlsr-1:")


def test_a_full_disk_is_an_error_and_no_other_digest() -> None:
    two_pages = stamped_page(0) + stamped_page(1)
    half_of_the_second = file_size_limit(FRAME_DIGEST_SIZE * 3 // 2)
    full = re.escape(os.strerror(errno.EFBIG))
    with closing(GuestDigest()) as taken, half_of_the_second, pytest.raises(OSError, match=full):
        taken.pages(0, two_pages)


def test_frames_in_too_many_places_are_not_all_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open(tmp_path / "digests", "w+b", buffering=0) as file:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: file)
        with closing(GuestDigest()) as taken:
            for number in range(CHUNKS_MAX + 100):
                taken.pages(number * CHUNK_FRAMES, stamped_page(number))
            assert os.fstat(file.fileno()).st_size <= CHUNKS_MAX * CHUNK_FRAMES * FRAME_DIGEST_SIZE
            last = CHUNKS_MAX - 1
            kept, over = last * CHUNK_FRAMES, CHUNKS_MAX * CHUNK_FRAMES
            assert taken.differing(kept, stamped_page(last)) == []
            assert taken.differing(kept, stamped_page(0)) == [kept]
            assert taken.differing(over, stamped_page(0)) == [], "nothing is known of it"
            across = taken.differing(over - 1, stamped_page(1) + stamped_page(0))
            assert across == [over - 1], "the first of them was not sent before"


def test_a_verify_pass_over_frames_in_too_many_places() -> None:
    stream = StreamBuilder("pvh", verify=True)
    far = [(number * CHUNK_FRAMES, 0) for number in range(1, CHUNKS_MAX + 100)]
    for place in (stream.find(RecordType.VERIFY), stream.find(RecordType.X86_TSC_INFO)):
        stream.insert_before(place, record_part(RecordType.PAGE_DATA, PageBatch(far, stamped_page)))
    verified = verify_stream(stream, digest=True)
    found = {finding.id for finding in verified.findings}
    assert "frames-untracked" in found
    assert "verify-mismatch" not in found
    assert verified.digest is None
