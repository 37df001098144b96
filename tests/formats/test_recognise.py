"""Streams are told apart by their first eight bytes, and only by them."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pytest

from libxlsr.formats import libxc, libxl, xl
from libxlsr.formats.recognise import recognise


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (xl.Header().encode(), "xl"),
        (libxl.Header().encode(), "libxl"),
        (libxc.ImageHeader().encode(), "libxc"),
        (gzip.compress(b"x", mtime=0), "gzip"),
        (lzma.compress(b"x"), "xz"),
        (b"\x28\xb5\x2f\xfd\x24\0\0\0", "zstd"),
        (b"\x50\x2a\x4d\x18\4\0\0\0", "zstd"),
        (b"\x5f\x2a\x4d\x18\4\0\0\0", "zstd"),
        (b"\x60\x2a\x4d\x18\4\0\0\0", None),
        (b"LinuxGuestRecord", "legacy"),
        ((262144).to_bytes(8, "little"), "legacy"),
        ((262144).to_bytes(4, "little") + b"\xff" * 4, "legacy"),
        (bz2.compress(b"x"), None),
        (b"\x7fELF\2\1\1\0", None),
        (bytes(8), None),
        (b"", None),
        (b"Xen sav", None),
        (b"\xff" * 7, None),
        (b"{}\0\0", None),
    ],
)
def test_recognise(data: bytes, kind: str | None) -> None:
    assert recognise(data[:8]) == kind
    assert recognise(memoryview(data)) == kind
