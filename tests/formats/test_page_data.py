"""PAGE_DATA: the checks on whole arrays, the runs, and what a huge count may not do."""

from __future__ import annotations

import struct

import pytest

from libxlsr.errors import StreamError
from libxlsr.formats.page_data import (
    GFN_LIMIT,
    PageData,
    decode_pfns,
    prefix_length,
)
from libxlsr.formats.page_types import PAGE_TYPE_NAMES, has_data

BASE = 0x2000


def refused(words: list[int], record_length: int, count: int | None = None) -> StreamError:
    number = len(words) if count is None else count
    prefix = struct.pack(f"<II{len(words)}Q", number, 0, *words)
    with pytest.raises(StreamError) as caught:
        decode_pfns(prefix, BASE, record_length)
    return caught.value


def test_the_prefix_is_known_from_the_count() -> None:
    assert prefix_length(struct.pack("<II", 3, 0), BASE, 32 + 4096) == 32


def test_a_count_of_zero_is_refused() -> None:
    error = refused([], 8)
    assert error.offset == BASE
    assert "at least 1" in str(error)


@pytest.mark.parametrize("count", [3, 0x1FFFFFFF, 0x20000000, 0xFFFFFFFF])
def test_a_count_that_the_record_can_not_hold_is_refused_before_anything_is_read(
    count: int,
) -> None:
    with pytest.raises(StreamError, match="count is") as caught:
        prefix_length(struct.pack("<II", count, 0), BASE, 24)
    assert caught.value.offset == BASE


def test_the_reserved_word_after_the_count_must_be_zero() -> None:
    with pytest.raises(StreamError, match="reserved") as caught:
        prefix_length(struct.pack("<II", 1, 1), BASE, 4112)
    assert caught.value.offset == BASE + 4


@pytest.mark.parametrize("page_type", [5, 6, 7, 8])
def test_reserved_page_types_are_refused_where_they_stand(page_type: int) -> None:
    error = refused([1, 2, page_type << 60 | 3, 4], 8 + 32 + 4 * 4096)
    assert error.offset == BASE + 8 + 16
    assert f"page type is {page_type:#x}" in str(error)
    assert "entry 2 of 4" in str(error)


@pytest.mark.parametrize("bit", range(52, 60))
def test_reserved_bits_are_refused(bit: int) -> None:
    error = refused([7, 1 << bit | 3], 8 + 16 + 2 * 4096)
    assert error.offset == BASE + 8 + 8
    assert "reserved bits" in str(error)


@pytest.mark.parametrize("gfn", [GFN_LIMIT, 1 << 45, (1 << 52) - 1])
def test_a_frame_that_no_x86_machine_has_is_refused(gfn: int) -> None:
    error = refused([gfn], 8 + 8 + 4096)
    assert error.offset == BASE + 8
    assert f"{gfn:#x}" in str(error)


def test_the_highest_frame_is_taken() -> None:
    made = PageData.of([(GFN_LIMIT - 1, 0)])
    assert list(decode_pfns(made.encode(), 0, made.record_length).gfns) == [GFN_LIMIT - 1]


@pytest.mark.parametrize("wrong_by", [-4096, -8, -1, 1, 8, 4096])
def test_a_record_must_be_as_long_as_its_entries_say(wrong_by: int) -> None:
    words = [1, 2, 0xF << 60 | 3]
    error = refused(words, 8 + 24 + 2 * 4096 + wrong_by)
    assert error.offset == BASE
    assert "2 of them with contents" in str(error)


def test_a_prefix_of_another_length_is_refused() -> None:
    assert "24 bytes" in str(refused([1], 8 + 16 + 8192, count=2))


@pytest.mark.parametrize("page_type", PAGE_TYPE_NAMES)
def test_types_with_data_are_followed_by_it(page_type: int) -> None:
    made = PageData.of([(1, page_type)])
    assert made.data_pages == (page_type not in (0xD, 0xE, 0xF)) == has_data(page_type)
    assert decode_pfns(made.encode(), 0, made.record_length).types == bytes([page_type])


def test_runs() -> None:
    made = PageData.of([(0, 0), (1, 0), (2, 1), (3, 0xF), (4, 0xF), (9, 0), (3, 0), (4, 0), (4, 0)])
    assert not made.is_consecutive
    assert list(made.data_runs()) == [(0, 3), (9, 1), (3, 2), (4, 1)]


def test_a_whole_batch_is_one_run() -> None:
    made = PageData.of([(gfn, 0) for gfn in range(4096, 5120)])
    assert made.is_consecutive
    assert list(made.data_runs()) == [(4096, 1024)]
    holes = PageData.of([(gfn, 0xF) for gfn in range(1024)])
    assert list(holes.data_runs()) == []
    assert holes.data_pages == 0


def test_data_is_one_run_across_a_hole_in_the_list() -> None:
    """A page without contents takes no room in the stream, so the run goes on after it."""
    made = PageData.of([(5, 0), (100, 0xF), (6, 0)])
    assert list(made.data_runs()) == [(5, 2)]
