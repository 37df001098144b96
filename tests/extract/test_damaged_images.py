"""Whatever the image: a whole file or one StreamError, and nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import libxlsr
from libxlsr.extract.request import LAST_ADDRESS, Request
from libxlsr.operations.extract import extract
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.damage import damage


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
