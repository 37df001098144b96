"""GuestMemory's two files: types and contents land where the frame numbers say."""

from __future__ import annotations

from pathlib import Path

import pytest

from libxlsr.formats.libxc import PAGE_SIZE
from libxlsr.formats.page_data import PageData
from libxlsr.restoring.image.layout import MEMORY, PAGE_TYPE_KEPT, PAGE_TYPE_SENT, PAGE_TYPES
from libxlsr.restoring.image.memory import GuestMemory

FAR = 5 << 30


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([(7, 0), (8, 1), (9, 0xF)], id="consecutive"),
        pytest.param([(9, 0), (7, 1), (8, 0xD)], id="out of order"),
        pytest.param([(7, 0), (5000, 1), (7, 2)], id="with gaps, the last of two wins"),
        pytest.param([(7, 0), (FAR, 1), (7, 2), (8, 3)], id="far apart, the last of two wins"),
    ],
)
def test_types_are_noted_frame_by_frame(tmp_path: Path, frames: list[tuple[int, int]]) -> None:
    memory = GuestMemory(tmp_path)
    memory.set_types(PageData.of([(6, 4), (10, 4)]))
    memory.set_types(PageData.of(frames))
    memory.finish()
    memory.close()
    expected = {6: 4, 10: 4, **dict(frames)}
    with (tmp_path / PAGE_TYPES).open("rb") as types:
        for gfn in {6, 7, 8, 9, 10, 11, 4999, 5000, FAR}:
            types.seek(gfn)
            noted = types.read(1)
            if gfn in expected:
                assert noted == bytes([PAGE_TYPE_SENT | expected[gfn]]), gfn
            else:
                assert noted in (b"\0", b""), gfn
    assert (tmp_path / PAGE_TYPES).stat().st_size == max(expected) + 1


@pytest.mark.parametrize("others", [[], [4999], [FAR]], ids=["consecutive", "with gaps", "far"])
def test_a_frame_that_has_contents_keeps_them(tmp_path: Path, others: list[int]) -> None:
    """Named NOTAB, then XTAB, then XALLOC; the next one only XALLOC, the one after that NOTAB."""
    memory = GuestMemory(tmp_path)
    memory.set_types(PageData.of([(7, 0)]))
    for page_type in (0xF, 0xE):
        frames = [(7, page_type), (8, 0xE), (9, 0)]
        memory.set_types(PageData.of(frames + [(gfn, 0) for gfn in others]))
    assert memory.finish() == {"NOTAB": 1 + len(others), "XALLOC": 2}
    memory.close()
    with (tmp_path / PAGE_TYPES).open("rb") as types:
        types.seek(7)
        assert types.read(3) == bytes([PAGE_TYPE_SENT | PAGE_TYPE_KEPT | 0xE, 0x8E, 0x80])


def test_types_far_apart_leave_a_hole_between_them(tmp_path: Path) -> None:
    memory = GuestMemory(tmp_path)
    memory.set_types(PageData.of([(0, 0), (FAR, 0)]))
    assert memory.finish() == {"NOTAB": 2}
    memory.close()
    assert (tmp_path / PAGE_TYPES).stat().st_blocks * 512 < 1 << 20


def test_later_pages_overwrite_and_frames_never_sent_are_holes(tmp_path: Path) -> None:
    memory = GuestMemory(tmp_path)
    memory.write_pages(1000, b"a" * 2 * PAGE_SIZE)
    memory.write_pages(1001, b"b" * PAGE_SIZE)
    memory.close()
    with (tmp_path / MEMORY).open("rb") as contents:
        contents.seek(1000 * PAGE_SIZE)
        assert contents.read() == b"a" * PAGE_SIZE + b"b" * PAGE_SIZE
    assert (tmp_path / MEMORY).stat().st_blocks * 512 < 1 << 20
