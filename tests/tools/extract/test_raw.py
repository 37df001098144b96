"""Memory as it lies: what a guest held in the end, from wherever the image comes."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest

import libxlsr
from libxlsr.formats.libxc import PAGE_SIZE, RecordType
from libxlsr.formats.page_types import (
    XEN_DOMCTL_PFINFO_BROKEN,
    XEN_DOMCTL_PFINFO_XALLOC,
    XEN_DOMCTL_PFINFO_XTAB,
)
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.pages import PageBatch, stamped_page
from libxlsr.testing.paging import save
from libxlsr.tools.extract.operation import extract
from libxlsr.tools.extract.request import FORMATS, Request

RAW = Request("raw")


def memory_of(stream: StreamBuilder) -> bytes:
    return b"".join(stream.page(gfn) for gfn in range(stream.pages))


def move_to_memory(stream: StreamBuilder) -> None:
    """Put what was appended behind END where memory belongs."""
    stream.insert_before(stream.find(RecordType.X86_TSC_INFO), stream.parts.pop())


@pytest.mark.parametrize("guest", ["pv", "pvh", "hvm"])
def test_what_was_sent_last_counts(guest: str, tmp_path: Path) -> None:
    stream = StreamBuilder(guest, pages=40, dirtied=[range(3, 20), [5, 39], [5]], batch=7)
    image = save(stream, tmp_path / "image")
    written = extract(image, tmp_path / "raw", RAW)
    assert (tmp_path / "raw").read_bytes() == memory_of(stream)
    assert written.size == written.details["copied"] == 40 * PAGE_SIZE


def test_frames_in_any_order(tmp_path: Path) -> None:
    stream = StreamBuilder("pvh", pages=64)
    stream.memory([63, 5, 6, 7, 1, 0, 9, 9, 8], 1)
    move_to_memory(stream)
    extract(save(stream, tmp_path / "image"), tmp_path / "raw", RAW)
    assert (tmp_path / "raw").read_bytes() == memory_of(stream)


def test_a_verify_pass_changes_nothing(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", pages=20, dirtied=[[3]], verify=True)
    extract(save(stream, tmp_path / "image"), tmp_path / "raw", RAW)
    assert (tmp_path / "raw").read_bytes() == memory_of(stream)


@pytest.mark.parametrize("source", ["file", "compressed", "restored"])
def test_frames_with_contents_in_a_verify_pass_only_are_zeros(source: str, tmp_path: Path) -> None:
    """One among others, and the last."""
    absent = {10: XEN_DOMCTL_PFINFO_XTAB, 15: XEN_DOMCTL_PFINFO_XTAB}
    stream = StreamBuilder("pvh", pages=16, types=absent)
    stream.record(RecordType.VERIFY)
    move_to_memory(stream)
    stream.record(RecordType.PAGE_DATA, PageBatch([(9, 0), (10, 0), (15, 0)], stamped_page))
    move_to_memory(stream)
    image = save(stream, tmp_path / "image")
    if source == "compressed":
        (tmp_path / "image").write_bytes(gzip.compress(stream.build()))
    elif source == "restored":
        image = tmp_path / "guest"
        libxlsr.restore(tmp_path / "image", target="image", output=image)
    extract(image, tmp_path / "raw", Request("raw", frames=(9, 15)))
    expected = [bytes(PAGE_SIZE) if gfn in absent else stream.page(gfn) for gfn in range(9, 16)]
    assert (tmp_path / "raw").read_bytes() == b"".join(expected)


def test_checkpoints(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", pages=20, checkpoints=[[1, 2], [2, 3], [19]])
    extract(save(stream, tmp_path / "image"), tmp_path / "raw", RAW)
    assert (tmp_path / "raw").read_bytes() == memory_of(stream)


def test_frames_without_contents_and_pages_of_zeros_are_holes(tmp_path: Path) -> None:
    types = {
        2: XEN_DOMCTL_PFINFO_XTAB,
        3: XEN_DOMCTL_PFINFO_XALLOC,
        4: XEN_DOMCTL_PFINFO_BROKEN,
    }
    stream = StreamBuilder(
        "pvh",
        pages=600,
        types=types,
        content=lambda gfn, _: b"\xaa" * PAGE_SIZE if gfn in (0, 599) else bytes(PAGE_SIZE),
    )
    written = extract(save(stream, tmp_path / "image"), tmp_path / "raw", RAW)
    data = (tmp_path / "raw").read_bytes()
    assert data[:PAGE_SIZE] == data[-PAGE_SIZE:] == b"\xaa" * PAGE_SIZE
    assert data.count(0) == 598 * PAGE_SIZE
    assert written.details["copied"] == 597 * PAGE_SIZE
    assert (tmp_path / "raw").stat().st_blocks * 512 < 20 * PAGE_SIZE


def test_a_frame_that_went_away_has_no_contents(tmp_path: Path) -> None:
    stream = StreamBuilder("pvh", pages=8)
    types, stream._types = stream._types, {7: XEN_DOMCTL_PFINFO_XTAB}
    stream.memory([7], 1)
    stream._types = types
    move_to_memory(stream)
    extract(save(stream, tmp_path / "image"), tmp_path / "raw", RAW)
    assert (tmp_path / "raw").stat().st_size == 7 * PAGE_SIZE


def test_a_range_of_frames_begins_with_its_first(tmp_path: Path) -> None:
    stream = StreamBuilder("pv", pages=32)
    image = save(stream, tmp_path / "image")
    extract(image, tmp_path / "raw", Request("raw", frames=(10, 12)))
    expected = b"".join(stream.page(gfn) for gfn in (10, 11, 12))
    assert (tmp_path / "raw").read_bytes() == expected
    extract(image, tmp_path / "tail", Request("raw", frames=(30, 1000)))
    assert (tmp_path / "tail").read_bytes() == stream.page(30) + stream.page(31)


def test_a_range_of_which_the_image_has_nothing(tmp_path: Path) -> None:
    image = save(StreamBuilder("pv", pages=32), tmp_path / "image")
    for name in FORMATS:
        with pytest.raises(
            libxlsr.UsageError, match=r"frames 0x20 to 0x30; the highest .* is 0x1f"
        ):
            extract(image, tmp_path / "raw", Request(name, frames=(0x20, 0x30)))
    assert os.listdir(tmp_path) == ["image"]


def test_a_range_within_a_hole_of_a_converted_image(tmp_path: Path) -> None:
    """Images of Xen 4.5 and older don't name the frames that are absent."""
    image = save(legacy_with_hole(), tmp_path / "image")
    with pytest.raises(libxlsr.UsageError, match="no contents for the frames 0x8000 to 0x9000"):
        extract(image, tmp_path / "raw", Request("raw", frames=(0x8000, 0x9000)))
    assert os.listdir(tmp_path) == ["image"]


def test_a_range_that_ends_in_a_hole_of_a_converted_image(tmp_path: Path) -> None:
    stream = legacy_with_hole()
    image = save(stream, tmp_path / "image")
    extract(image, tmp_path / "raw", Request("raw", frames=(6, 0x18000)))
    assert (tmp_path / "raw").read_bytes() == stream.page(6) + stream.page(7)


def legacy_with_hole() -> StreamBuilder:
    """A guest with the frames 0 to 7 and 0x20000, as it is converted."""
    stream = StreamBuilder("hvm", pages=8, xen_version=(0, 1))
    stream.memory([0x20000], 0)
    move_to_memory(stream)
    return stream


def test_from_a_pipe_compressed_or_not(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", pages=40, dirtied=[[3, 7]])
    for name, data in (("plain", stream.build()), ("gzip", gzip.compress(stream.build()))):
        read_end, write_end = os.pipe()

        def feed(data: bytes = data, fd: int = write_end) -> None:
            with open(fd, "wb") as pipe:
                pipe.write(data)

        thread = threading.Thread(target=feed)
        thread.start()
        try:
            extract(read_end, tmp_path / name, RAW)
        finally:
            os.close(read_end)
            thread.join()
        assert (tmp_path / name).read_bytes() == memory_of(stream)


def test_from_the_middle_of_a_file(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", pages=8)
    path = tmp_path / "image"
    path.write_bytes(b"x" * 1001 + stream.build() + b"what follows")
    with open(path, "rb", buffering=0) as file:
        file.seek(1001)
        extract(file.fileno(), tmp_path / "raw", RAW)
        assert file.read() == b"what follows"
    assert (tmp_path / "raw").read_bytes() == memory_of(stream)


def test_from_a_bare_libxc_stream(tmp_path: Path) -> None:
    stream = StreamBuilder("pvh", pages=8)
    libxc = b"".join(
        chunk for part in stream.parts if part.layer == "libxc" for chunk in part.chunks()
    )
    (tmp_path / "image").write_bytes(libxc)
    extract(tmp_path / "image", tmp_path / "raw", RAW)
    assert (tmp_path / "raw").read_bytes() == memory_of(stream)


def test_from_an_offline_restore(tmp_path: Path) -> None:
    stream = StreamBuilder("hvm", pages=40, dirtied=[[3, 7]])
    image = save(stream, tmp_path / "image")
    libxlsr.restore(image, target="image", output=tmp_path / "guest")
    extract(tmp_path / "guest", tmp_path / "raw", RAW)
    assert (tmp_path / "raw").read_bytes() == memory_of(stream)
    with pytest.raises(libxlsr.UsageError, match="not the directory of an offline restore"):
        extract(tmp_path, tmp_path / "other", RAW)
