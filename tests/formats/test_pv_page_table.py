"""Which frame a page table points to at the most, and whether that is beyond an end."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libxlsr.errors import StreamError
from libxlsr.formats.pv_page_table import check_table, highest_frame, points_beyond

PRESENT = 1
NO_EXECUTE = 1 << 63
AVAILABLE = 0x7FF << 52
LAST_FRAME = (1 << 40) - 1


def table(entries: dict[int, int]) -> bytes:
    return struct.pack("<512Q", *(entries.get(index, 0) for index in range(512)))


@st.composite
def tables_and_ends(draw: st.DrawFn) -> tuple[bytes, int]:
    """Tables whose frames lie about an end, with any of the bits that say nothing of a frame."""
    end = draw(st.integers(0, 1 << 32) | st.sampled_from([0, 1, 512, 1 << 32]))
    near = st.integers(max(end - 2, 0), end + 2)
    frames = near | st.integers(0, LAST_FRAME)
    flags = st.integers(0, 0xFFF) | st.sampled_from([NO_EXECUTE, AVAILABLE | PRESENT])
    entry = st.tuples(frames, flags).map(lambda both: both[0] << 12 | both[1])
    return table(draw(st.dictionaries(st.integers(0, 511), entry, max_size=8))), end


@given(tables_and_ends())
def test_beyond_is_what_the_highest_frame_says(table_and_end: tuple[bytes, int]) -> None:
    page, end = table_and_end
    assert points_beyond(page, end) == (highest_frame(page) >= end)
    assert points_beyond(memoryview(page), end) == points_beyond(page, end)


@pytest.mark.parametrize("index", [0, 1, 255, 511])
def test_one_entry_that_points_beyond(index: int) -> None:
    page = table({index: 0x1000 << 12 | NO_EXECUTE | PRESENT, 7: 0xFFF << 12 | PRESENT})
    check_table(page, 5, 0x1001, None)
    with pytest.raises(StreamError, match="frame 0x5 points to frame 0x1000, expected less than"):
        check_table(page, 5, 0x1000, None)


def test_what_is_not_present_points_nowhere() -> None:
    check_table(table({3: LAST_FRAME << 12 | AVAILABLE}), 5, 1, None)
