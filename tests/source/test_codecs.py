"""What the decompressors give: the plain bytes, however the compressed ones come."""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from libxlsr.errors import StreamError
from libxlsr.source.codecs import CHUNK, Decompression
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
    packed = compress(PAGES[pages]) + compress(b"and another stream")
    chunks = list(decompressed(codec, packed, tmp_path))
    assert b"".join(chunks) == PAGES[pages] + b"and another stream"
    assert all(chunks)


def decompressed(codec: str, packed: bytes, directory: Path) -> Iterator[bytes]:
    (directory / "packed").write_bytes(packed)
    fd = os.open(directory / "packed", os.O_RDONLY)
    try:
        yield from Decompression(codec, fd).chunks()
    finally:
        os.close(fd)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}


@pytest.mark.parametrize("length", [4, CHUNK, 3 * CHUNK + 4])
@pytest.mark.parametrize("codec", ["gzip", "xz"])
def test_zeros_between_streams_and_after_them(codec: str, length: int, tmp_path: Path) -> None:
    zeros, compress = bytes(length), COMPRESS[codec]
    packed = compress(b"first, ") + zeros + compress(b"second") + zeros
    assert b"".join(decompressed(codec, packed, tmp_path)) == b"first, second"


@pytest.mark.parametrize("pages", PAGES)
@pytest.mark.parametrize("codec", COMPRESS)
def test_what_follows_is_damage_after_everything_was_given(
    codec: str, pages: str, tmp_path: Path
) -> None:
    packed = COMPRESS[codec](PAGES[pages]) + b"garbage!"
    taken: list[bytes] = []
    with pytest.raises(StreamError, match=f"the {codec} data is damaged"):
        taken.extend(decompressed(codec, packed, tmp_path))
    assert b"".join(taken) == PAGES[pages]


@pytest.mark.parametrize("pages", PAGES)
@pytest.mark.parametrize("codec", COMPRESS)
def test_damage(codec: str, pages: str, tmp_path: Path) -> None:
    """Cut off anywhere, or with a wrong checksum."""
    packed = COMPRESS[codec](PAGES[pages])
    for size in (1, 12, len(packed) // 2, len(packed) - 8, len(packed) - 1):
        with pytest.raises(StreamError, match="ends too early"):
            list(decompressed(codec, packed[:size], tmp_path))
    place = {"gzip": -8, "xz": -12, "zstd": -1}[codec]
    damaged = bytearray(packed)
    damaged[place] ^= 1
    with pytest.raises(StreamError, match=f"the {codec} data is damaged"):
        list(decompressed(codec, bytes(damaged), tmp_path))
