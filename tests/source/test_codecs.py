"""What the decompressors give: the plain bytes, however the compressed ones come."""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from libxlsr.source.codecs import Decompression
from libxlsr.testing.pages import random_page, stamped_page

PAGES = {
    "full": b"".join(random_page(gfn) for gfn in range(100)),
    "plain": b"".join(stamped_page(gfn) for gfn in range(100)),
    "empty": bytes(100 * 4096),
}


def pzstd(data: bytes) -> bytes:
    """As that program does it: before each frame a skippable one, which says its length."""
    frame = zstandard.ZstdCompressor().compress(data)
    return b"\x50\x2a\x4d\x18\4\0\0\0" + len(frame).to_bytes(4, "little") + frame


@pytest.mark.parametrize("pages", PAGES)
@pytest.mark.parametrize(
    ("codec", "compress"),
    [
        ("gzip", gzip.compress),
        ("xz", lzma.compress),
        ("zstd", zstandard.ZstdCompressor(write_checksum=True).compress),
        ("zstd", pzstd),
    ],
    ids=["gzip", "xz", "zstd", "pzstd"],
)
def test_no_chunk_is_empty(
    codec: str, compress: Callable[[bytes], bytes], pages: str, tmp_path: Path
) -> None:
    path = tmp_path / "packed"
    path.write_bytes(compress(PAGES[pages]) + compress(b"and another stream"))
    fd = os.open(path, os.O_RDONLY)
    try:
        chunks = list(Decompression(codec, fd).chunks())
    finally:
        os.close(fd)
    assert b"".join(chunks) == PAGES[pages] + b"and another stream"
    assert all(chunks)
