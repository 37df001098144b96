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


@pytest.mark.parametrize("pages", PAGES)
@pytest.mark.parametrize(
    ("codec", "compress"),
    [
        ("gzip", gzip.compress),
        ("xz", lzma.compress),
        ("zstd", zstandard.ZstdCompressor(write_checksum=True).compress),
    ],
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
