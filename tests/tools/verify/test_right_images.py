"""Right images are called good, whatever they are and however they come."""

from __future__ import annotations

import gzip
import lzma
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from libxlsr.errors import TargetError
from libxlsr.formats.hvm_context import HVM_SAVE_CODE_LAPIC, HvmContext
from libxlsr.formats.libxc import RecordType
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.pages import Content, random_page, stamped_page
from libxlsr.tools.verify.verifier import verify
from tests.paths import EXAMPLE

from .verify_images import KINDS, ids, verify_bytes, verify_stream, verify_through_pipe

#: What is worth a note in the images of KINDS.
NOTES = {"no-config", "verify-pass", "frames-without-data", "frames-broken"}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_is_built_is_good(kind: dict[str, Any], full: bool) -> None:
    verified = verify_stream(StreamBuilder(**kind), full=full)
    assert (verified.errors, verified.warnings) == (0, 0), verified.findings
    assert ids(verified) <= NOTES
    assert verified.full is full


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_pipe_is_read_whole_and_gives_the_same(kind: dict[str, Any]) -> None:
    data = StreamBuilder(**kind).build()
    verified = verify_through_pipe(data)
    assert verified.full
    assert verified == verify_bytes(data, full=True)


@pytest.mark.parametrize(
    "length", [16, 24, 32], ids=["4.0", "4.1 to 4.17", "4.18.5, 4.19.2, 4.20.1 and newer"]
)
def test_the_local_apic_of_each_xen(length: int) -> None:
    stream = StreamBuilder("hvm")
    part = stream.find(RecordType.HVM_CONTEXT)
    entries = [
        entry._replace(state=bytes(length)) if entry.typecode == HVM_SAVE_CODE_LAPIC else entry
        for entry in HvmContext.decode(part.body_bytes()).entries
    ]
    part.body = HvmContext(tuple(entries)).encode()
    verified = verify_stream(stream)
    assert (verified.errors, verified.warnings) == (0, 0), verified.findings


@pytest.mark.parametrize(
    ("codec", "compress"),
    [
        ("gzip", gzip.compress),
        ("xz", lzma.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
    ],
)
@pytest.mark.parametrize("content", [stamped_page, random_page])
def test_compressed_images(
    codec: str, compress: Callable[[bytes], bytes], content: Content
) -> None:
    packed = compress(StreamBuilder("pv", pages=100, content=content).build())
    for verified in (verify_bytes(packed), verify_through_pipe(packed)):
        assert verified.good
        assert verified.full
        assert (verified.kind, verified.compression) == ("xl", codec)


def test_the_example_image() -> None:
    verified = verify_bytes(lzma.decompress(EXAMPLE.read_bytes()))
    assert verified.findings == ()
    assert (verified.kind, verified.guest, verified.name) == ("xl", "hvm", "ticker")
    assert (verified.xen_version, verified.libxc_version) == ("4.17", 3)
    assert verified.frames == {"NOTAB": 752, "XTAB": 1043728}
    assert verified.records == {"libxl": 3, "libxc": 1027}


def test_what_is_said_of_an_image() -> None:
    stream = StreamBuilder("pv", pages=10, dirtied=[[1, 2], [2]], checkpoints=[[5]])
    verified = verify_stream(stream)
    assert verified.guest == "pv"
    assert verified.sent_again == 4
    assert verified.frames == {"NOTAB": 10}
    assert verified.checkpoints == 1
    assert verified.size == stream.size
    bare = verify_stream(StreamBuilder("pvh", xl_header=False))
    assert (bare.kind, bare.guest, bare.name) == ("libxl", "hvm or pvh", None)


def test_a_bare_libxc_image() -> None:
    stream = StreamBuilder("pvh", xl_header=False)
    parts = [part for part in stream.parts if part.layer == "libxc"]
    verified = verify_bytes(b"".join(chunk for part in parts for chunk in part.chunks()))
    assert verified.kind == "libxc"
    assert ids(verified) == {"no-config"}


def test_an_image_behind_the_fds_position(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"before" + StreamBuilder("pv").build())
    fd = os.open(path, os.O_RDONLY)
    try:
        os.lseek(fd, 6, os.SEEK_SET)
        assert verify(fd, full=True).good
    finally:
        os.close(fd)


def test_a_non_blocking_pipe() -> None:
    data = StreamBuilder("pv").build()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    def feed() -> None:
        os.write(writer, data[:60000])
        os.close(writer)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        assert ids(verify(reader)) == {"truncated"}
    finally:
        thread.join()
        os.close(reader)


def test_what_can_not_be_read_is_no_finding() -> None:
    fd = os.open("/", os.O_RDONLY)
    try:
        with pytest.raises(TargetError, match="Is a directory"):
            verify(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("expected", ["xl", "libxl", "libxc", "legacy"])
def test_the_format_that_is_asked_for(expected: str) -> None:
    verified = verify_stream(StreamBuilder("pv"), expected=expected)
    assert verified.good is (expected == "xl")
    assert ids(verified) == (set() if expected == "xl" else {"wrong-format"})
