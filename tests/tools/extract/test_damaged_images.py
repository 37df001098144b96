"""Whatever the image: a whole file or one StreamError, and nothing left behind."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import pytest

import libxlsr
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.page_types import XEN_DOMCTL_PFINFO_L1TAB
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.damage import damage
from libxlsr.testing.pages import PageBatch
from libxlsr.testing.parts import record_part
from libxlsr.tools.extract.operation import extract
from libxlsr.tools.extract.request import LAST_ADDRESS, Request


@pytest.mark.parametrize("seed", range(24))
def test_damaged(seed: int, tmp_path: Path) -> None:
    guest = ("pv", "pvh", "hvm")[seed % 3]
    damaged = damage(StreamBuilder(guest, pages=24, dirtied=[[1, 2]]).parts, seed)
    (tmp_path / "image").write_bytes(damaged.data)
    request = (
        Request("elf", vaddr=(0, LAST_ADDRESS)),
        Request("elf"),
        Request("xen-core"),
        Request("lime"),
    )[seed % 4]
    failure: libxlsr.LibxlsrError | None = None
    try:
        extract(tmp_path / "image", tmp_path / "out", request)
    except libxlsr.LibxlsrError as error:
        failure = error
    # Where the page tables are damaged, nothing may be left of the range.
    assert not isinstance(failure, libxlsr.UsageError) or request.vaddr is not None, damaged.what
    # The machine may say no to a frame number that no file can hold.
    assert not isinstance(failure, libxlsr.TargetError) or failure.errno is not None, damaged.what
    expected = ["image", "out"] if failure is None else ["image"]
    assert sorted(os.listdir(tmp_path)) == expected, damaged.what


@pytest.mark.parametrize("source", ["file", "compressed"])
def test_a_page_table_beyond_the_p2m_in_a_verify_pass(source: str, tmp_path: Path) -> None:
    stream = StreamBuilder("pv", pages=16)
    beyond = struct.pack("<512Q", *([0] * 511), 16 << 12 | 1)
    tables = PageBatch([(2, 0), (3, XEN_DOMCTL_PFINFO_L1TAB)], lambda _gfn, _generation: beyond)
    record = record_part(RecordType.PAGE_DATA, tables)
    for part in (record_part(RecordType.VERIFY), record):
        stream.insert_before(stream.find(RecordType.X86_TSC_INFO), part)
    data = stream.build()
    image = tmp_path / "image"
    image.write_bytes(gzip.compress(data) if source == "compressed" else data)
    with pytest.raises(libxlsr.StreamError, match="page table in frame 0x3") as caught:
        extract(image, tmp_path / "raw", Request("raw"))
    assert caught.value.offset is not None
    assert caught.value.offset > stream.offset_of(record)
