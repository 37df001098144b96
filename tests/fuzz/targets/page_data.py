"""Invariant: any entries of PAGE_DATA are refused, or mean what a slow loop over them says; a run
is as long as can be. Bytes 0 to 3 are the record's length, or choose the right one."""

from __future__ import annotations

from collections.abc import Mapping

from libxlsr.formats.page_data import GFN_LIMIT, HEADER_SIZE, PageData, decode_pfns
from libxlsr.formats.page_types import PAGE_TYPE_NAMES, WITHOUT_DATA

from ..invariants import decoded


def check(data: bytes) -> None:
    if len(data) < 4 + HEADER_SIZE:
        return
    length, prefix = int.from_bytes(data[:4], "little"), data[4:]
    # A record is as long as its header says: what comes from the fd is cut there.
    prefix = prefix[:length] if length >= HEADER_SIZE else prefix
    words = [
        int.from_bytes(prefix[start : start + 8], "little")
        for start in range(HEADER_SIZE, len(prefix) - 7, 8)
    ]
    frames = [(word & (1 << 52) - 1, word >> 60) for word in words]
    with_data = [gfn for gfn, page_type in frames if page_type not in WITHOUT_DATA]
    right = HEADER_SIZE + 8 * len(words) + 4096 * len(with_data)
    length = length or right

    batch = decoded(lambda taken, offset: decode_pfns(taken, offset, length), prefix)
    valid = (
        prefix[:4] == len(words).to_bytes(4, "little")
        and prefix[4:8] == bytes(4)
        and bool(words)
        and len(prefix) == HEADER_SIZE + 8 * len(words)
        and length == right
        and all(
            page_type in PAGE_TYPE_NAMES and gfn < GFN_LIMIT and not word >> 52 & 0xFF
            for word, (gfn, page_type) in zip(words, frames)
        )
    )
    assert (batch is not None) == valid
    if batch is not None:
        _check_batch(batch, frames, with_data)
        assert batch.encode() == prefix


def _check_batch(batch: PageData, frames: list[tuple[int, int]], with_data: list[int]) -> None:
    assert list(zip(batch.gfns, batch.types)) == frames
    assert batch.count == len(frames)
    assert batch.data_pages == len(with_data)
    runs = list(batch.data_runs())
    assert [first + step for first, number in runs for step in range(number)] == with_data
    assert all(a + n != b for (a, n), (b, _) in zip(runs, runs[1:]))


def seeds() -> Mapping[str, bytes]:
    batches = {
        "run": [(gfn, 0) for gfn in range(4)],
        "types": list(enumerate(PAGE_TYPE_NAMES)),
        "scattered": [(7, 0), (3, 0xF), (4, 0), (1 << 39, 0)],
    }
    return {name: bytes(4) + PageData.of(frames).encode() for name, frames in batches.items()}
