"""Invariant: whatever the bytes, a decoder returns a value that encodes to them, or StreamError."""

from __future__ import annotations

from functools import cache
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libxlsr.errors import StreamError
from libxlsr.formats import libxc, libxl, page_data, xl
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import VCPU_RECORDS
from libxlsr.formats.page_types import PAGE_TYPE_NAMES
from libxlsr.formats.recognise import recognise
from libxlsr.formats.records import decode_libxc_body, decode_libxc_header, decode_libxl_header
from libxlsr.formats.text import printable
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.parts import Part

BASE = 0x10_0000
untimed = settings(deadline=None)
Decoder = Callable[[bytes, int], Any]
WITH_WIDTH = {RecordType.X86_PV_P2M_FRAMES, *VCPU_RECORDS}
"""Records that depend on the guest's width."""


def libxc_body(record_type: RecordType, width: int) -> Decoder:
    return lambda data, offset: decode_libxc_body(record_type, data, offset, guest_width=width)


def page_data_prefix(data: bytes, offset: int) -> page_data.PageData:
    return page_data.decode_pfns(data, offset, len(data))


DECODERS: dict[str, Decoder] = {
    "xl header": xl.Header.decode,
    "xl optional data": xl.OptionalData.decode,
    "config": xl.Config.decode,
    "libxl header": libxl.Header.decode,
    "libxl record": decode_libxl_header,
    "EMULATOR_XENSTORE_DATA": libxl.EmulatorXenstoreData.decode,
    "EMULATOR_CONTEXT": libxl.EmulatorContext.decode,
    "CHECKPOINT_STATE": libxl.CheckpointState.decode,
    "libxc image header": libxc.ImageHeader.decode,
    "libxc domain header": libxc.DomainHeader.decode,
    "libxc record": decode_libxc_header,
    "PAGE_DATA": page_data_prefix,
}
for _type in RecordType:
    if _type in WITH_WIDTH:
        DECODERS[f"{_type.name} of 64 bits"] = libxc_body(_type, 8)
        DECODERS[f"{_type.name} of 32 bits"] = libxc_body(_type, 4)
    elif _type is not RecordType.PAGE_DATA:
        DECODERS[_type.name] = libxc_body(_type, 8)

_PARTS: dict[str, list[bytes]] = {}


def _collect(parts: list[Part]) -> None:
    for part in parts:
        _PARTS.setdefault(part.name, []).append(part.body_bytes())


for _guest in ("pv", "hvm"):
    for _width in (4, 8):
        _collect(
            StreamBuilder(
                _guest,
                pages=2,
                guest_width=_width,
                types={0: 0xF, 1: 0xE},
                xenstore=[("physmap/1/size", "2")],
                emulator=b"QEVM",
            ).parts
        )


def right_ones(name: str) -> list[bytes]:
    name = name.split(" of ")[0]
    if name == "config":
        return [data[4:] for data in _PARTS["xl optional data"]]
    return _PARTS.get(name, [b""])


@cache  # hypothesis examines each strategy that is made, which takes longer than a decoder
def spoiled(name: str) -> st.SearchStrategy[bytes]:
    """Right bytes with a few of them changed, cut or added."""

    @st.composite
    def draw_bytes(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(st.sampled_from(right_ones(name))))
        for _ in range(draw(st.integers(0, 3))):
            position = draw(st.integers(0, max(min(len(data), 64) - 1, 0)))
            data[position : position + 1] = draw(st.binary(max_size=4))
        return bytes(data)

    return draw_bytes()


def decode(name: str, data: bytes) -> tuple[Any, StreamError | None]:
    try:
        return DECODERS[name](data, BASE), None
    except StreamError as error:
        return None, error


def check(name: str, data: bytes) -> None:
    value, error = decode(name, data)
    if error is None:
        assert value.encode() == data
    else:
        assert error.offset is not None
        assert BASE <= error.offset <= BASE + len(data)
        assert str(error).isprintable()


@pytest.mark.parametrize("name", DECODERS)
@untimed
@given(data=st.binary(max_size=200))
def test_any_bytes_are_decoded_exactly_or_refused(name: str, data: bytes) -> None:
    check(name, data)


@pytest.mark.parametrize("name", DECODERS)
@untimed
@given(data=st.data())
def test_nearly_right_bytes_are_decoded_exactly_or_refused(name: str, data: st.DataObject) -> None:
    check(name, data.draw(spoiled(name)))


@untimed
@given(
    frames=st.lists(
        st.tuples(st.integers(0, page_data.GFN_LIMIT - 1), st.sampled_from(list(PAGE_TYPE_NAMES))),
        min_size=1,
        max_size=50,
    )
)
def test_any_frame_list_comes_back(frames: list[tuple[int, int]]) -> None:
    made = page_data.PageData.of(frames)
    decoded = page_data.decode_pfns(made.encode(), BASE, made.record_length)
    assert list(zip(decoded.gfns, decoded.types)) == frames
    assert decoded.encode() == made.encode()
    first = frames[0][0]
    in_line = [gfn for gfn, _ in frames] == list(range(first, first + len(frames)))
    assert decoded.is_consecutive == in_line
    with_data = [gfn for gfn, page_type in frames if page_type not in (0xD, 0xE, 0xF)]
    assert len(with_data) == decoded.data_pages
    runs = list(decoded.data_runs())
    assert [first + step for first, number in runs for step in range(number)] == with_data
    assert all(a + n != b for (a, n), (b, _) in zip(runs, runs[1:])), "a run could be longer"


@untimed
@given(
    pairs=st.dictionaries(
        st.from_regex(r"physmap/[a-zA-Z0-9@_-]{1,20}", fullmatch=True),
        st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    ),
    index=st.integers(0, 2**32 - 1),
)
def test_any_xenstore_pairs_come_back(pairs: dict[str, str], index: int) -> None:
    value = libxl.EmulatorXenstoreData(2, index, tuple(pairs.items()))
    assert libxl.EmulatorXenstoreData.decode(value.encode()) == value


@untimed
@given(st.text())
def test_printable_text_is_printable_and_not_ambiguous(text: str) -> None:
    shown = printable(text, limit=10_000)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert shown.encode("utf-8").decode("utf-8") == shown
    if text.isprintable() and "\\" not in text:
        assert shown == text


@untimed
@given(st.binary(max_size=12))
def test_recognising_takes_any_bytes(data: bytes) -> None:
    assert recognise(data) in {None, "xl", "libxl", "libxc", "legacy", "gzip", "xz", "zstd"}
