"""The converter by itself: each wrong field is refused, where it is."""

from __future__ import annotations

import contextlib
import os
import random
import struct
from pathlib import Path

import pytest

from libxlsr.errors import StreamError
from libxlsr.source.exact_reader import ExactReader
from libxlsr.source.legacy import format as legacy
from libxlsr.source.legacy.format import LegacyKind, recognise_legacy
from libxlsr.source.legacy.stream import LegacyStream
from libxlsr.testing.legacy import LegacyImage


def converted(data: bytes, kind: LegacyKind, tmp_path: Path) -> bytes:
    path = tmp_path / "image"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return b"".join(LegacyStream(ExactReader(fd), kind).pieces())
    finally:
        os.close(fd)


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("guest", ["pv", "hvm"])
@pytest.mark.parametrize("first_batch", [3, 1000])
def test_kinds_are_told_apart(width: int, guest: str, first_batch: int) -> None:
    image = LegacyImage(guest, width=width, pages=first_batch, xl_header=None)
    assert recognise_legacy(image.build()[:16]) == LegacyKind(width, guest == "pv")


@pytest.mark.parametrize(
    "head",
    [
        bytes(16),
        b"\xff" * 16,
        b"Xen saved domain",
        struct.pack("<IIII", 0x10000000, 0, 0xFFFFFFFF, 0xFFFFFFFF),
        struct.pack("<IIII", 0x1000, 0, 0, 0),
        struct.pack("<IiII", 0x1000, -99, 0, 0),
        struct.pack("<IIII", 0x1000, 5000, 0, 0),
    ],
)
def test_what_is_none(head: bytes) -> None:
    assert recognise_legacy(head) is None


PV, HVM = LegacyKind(8, True), LegacyKind(8, False)


def chunk(data: bytes) -> LegacyImage:
    image = LegacyImage("hvm", xl_header=None)
    image.extra_chunks = data
    return image


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (struct.pack("<i", -5), r"TMEM\): a chunk that can't be converted"),
        (struct.pack("<i", -12), r"COMPRESSED_DATA\): a chunk that can't be converted"),
        (struct.pack("<i", -77), "chunk -77: a chunk that can't be converted"),
        (struct.pack("<i", 1025), "a batch of 1025 pages"),
        (struct.pack("<i", 2**31 - 1), "a batch of 2147483647 pages"),
        (struct.pack("<iQ", 1, 1 << 32), "frame 0x100000000"),
        (struct.pack("<iQQ", 2, 5, 5), "a frame comes twice"),
        (struct.pack("<ii", -2, 4096), "vCPU 4096"),
        (struct.pack("<iIQII", -7, 4, 0, 0, 0), r"TSC_INFO\): TSC mode is 0x4"),
        (struct.pack("<iI", -18, 0xFFFFFFFF), "the toolstack's data has a length of 4294967295"),
        (struct.pack("<iII", -18, 4, 1), "it is 4 bytes long"),
        (struct.pack("<iIII", -18, 8, 2, 0), "version is 2"),
        (struct.pack("<iIII", -18, 8, 1, 0xFFFFFFFF), "0 bytes are left"),
        (
            struct.pack("<iIIIQQQI", -18, 36, 1, 1, 1, 2, 3, 99),
            "the name's length is 99",
        ),
        (
            struct.pack("<iIIIQQQI8s", -18, 44, 1, 1, 1, 2, 3, 4, b"a\x1bb\0"),
            "the name is",
        ),
        (
            struct.pack("<iI", -18, 4168)
            + struct.pack("<IIQQQI", 1, 1, 1, 2, 3, 4128)
            + b"a" * 4128
            + bytes(4),
            "the name's length is 4128",
        ),
        (
            struct.pack("<iIII", -18, 72, 1, 2) + 2 * struct.pack("<QQQI4x", 1, 2, 3, 0),
            "physmap entry 0x1 comes twice",
        ),
    ],
)
def test_wrong_chunks(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=message):
        converted(chunk(data).build(), HVM, tmp_path)


def refused_at(data: bytes, kind: LegacyKind, tmp_path: Path) -> tuple[int | None, str]:
    with pytest.raises(StreamError) as caught:
        converted(data, kind, tmp_path)
    return caught.value.offset, str(caught.value)


@pytest.mark.parametrize("kind", [LegacyKind(4, True), PV, LegacyKind(4, False), HVM])
@pytest.mark.parametrize("page_type", [5, 8])
def test_a_frame_of_a_reserved_type(kind: LegacyKind, page_type: int, tmp_path: Path) -> None:
    guest = "pv" if kind.is_pv else "hvm"
    data = LegacyImage(guest, width=kind.width, xl_header=None, types={5: page_type}).build()
    word = struct.pack(f"<{kind.word}", page_type << 28 | 5)
    offset, message = refused_at(data, kind, tmp_path)
    assert offset == data.index(word)
    assert f"the type of frame 0x5 is {page_type:#x}" in message


def test_a_frame_beyond_the_p2m(tmp_path: Path) -> None:
    data = LegacyImage("pv", xl_header=None, pages=16).build()
    at = data.index(struct.pack("<3Q", 4, 5, 6)) + 8
    wrong = data[:at] + struct.pack("<Q", 16) + data[at + 8 :]
    offset, message = refused_at(wrong, PV, tmp_path)
    assert offset == at
    assert "frame 0x10 of a PV guest, expected less than the p2m size, 0x10" in message


def test_a_p2m_that_lies_beyond_itself(tmp_path: Path) -> None:
    data = LegacyImage("pv", xl_header=None, pages=1024).build()
    at = data.index(struct.pack("<2Q", 1022, 1023)) + 8
    wrong = data[:at] + struct.pack("<Q", 1024) + data[at + 8 :]
    offset, message = refused_at(wrong, PV, tmp_path)
    assert offset == at
    assert "frame 1 of the p2m is at pfn 0x400" in message


@pytest.mark.parametrize("xsave", [1, 15])
def test_xsave_data_without_its_first_words(xsave: int, tmp_path: Path) -> None:
    data = LegacyImage("pv", xl_header=None, xsave=xsave).build()
    offset, message = refused_at(data, PV, tmp_path)
    assert offset == data.index(struct.pack("<4sII", b"xcnt", 4, xsave + 16)) + 12
    assert f"the size of the XSAVE data is {xsave + 16}" in message


def test_a_pv_guest_without_its_first_vcpu(tmp_path: Path) -> None:
    data = LegacyImage("pv", xl_header=None, vcpus=[1, 2]).build()
    offset, message = refused_at(data, PV, tmp_path)
    assert offset == data.index(struct.pack("<iiQ", -2, 2, 0b110)) + 8
    assert "vCPU 0 is missing" in message


def test_no_pages(tmp_path: Path) -> None:
    data = struct.pack("<Qi12xi", 16, -3, 0)
    offset, message = refused_at(data, HVM, tmp_path)
    assert offset == 24
    assert "the chunks end without any pages" in message
    data = struct.pack("<Qi", 16, -1)
    offset, message = refused_at(data, HVM, tmp_path)
    assert offset == 8
    assert "it comes before any pages" in message


def test_an_hvm_context_that_is_none(tmp_path: Path) -> None:
    image = LegacyImage("hvm", xl_header=None)
    data = image.build()
    context = image.hvm_context()
    at = data.index(context)
    # The length of the second entry, behind the first one's and its state.
    length_at = at + 8 + struct.unpack_from("<I", context, 4)[0] + 4
    wrong = data[:length_at] + b"\xff" * 4 + data[length_at + 4 :]
    offset, message = refused_at(wrong, HVM, tmp_path)
    assert offset == length_at
    assert "has a length of 4294967295" in message


def test_more_keys_than_a_xenstore_record_has(tmp_path: Path) -> None:
    physmap = [(number << 40, 1 << 60, 1 << 60, "vram") for number in range(10_000)]
    data = LegacyImage("hvm", xl_header=None, physmap=physmap).build()
    offset, message = refused_at(data, HVM, tmp_path)
    assert offset == data.index(struct.pack("<II", 1, 10_000))
    assert "bytes of xenstore keys" in message


def test_a_wrong_signature_of_the_device_model(tmp_path: Path) -> None:
    image = LegacyImage("hvm", xl_header=None, qemu_signature=b"DeviceModelRecord0003")
    with pytest.raises(StreamError, match="DeviceModelRecord0003"):
        converted(image.build(), HVM, tmp_path)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, struct.pack("<Q", 0), "the p2m size is 0x0"),
        (0, struct.pack("<Q", 1 << 28), "the p2m size is 0x10000000"),
        (16, struct.pack("<I", 0xFFFFFFFF), "the extended info has a length"),
        (16, struct.pack("<I", 7), "7 bytes are left of the extended info"),
        (24, struct.pack("<I", 0xFFFFFFFF), "a block of the extended info has a length"),
        (20, b"vCPU", "the size of a vCPU's context is None"),
    ],
)
def test_wrong_heads(position: int, value: bytes, message: str, tmp_path: Path) -> None:
    data = bytearray(LegacyImage("pv", xl_header=None).build())
    data[position : position + len(value)] = value
    with pytest.raises(StreamError, match=message):
        converted(bytes(data), PV, tmp_path)


def test_xsave_data_of_another_size_than_announced(tmp_path: Path) -> None:
    image = LegacyImage("pv", xl_header=None)
    data = image.build().replace(struct.pack("<QQ", 7, 576), struct.pack("<QQ", 7, 1 << 40))
    with pytest.raises(StreamError, match="XSAVE data is 1099511627776"):
        converted(data, PV, tmp_path)


@pytest.mark.parametrize("kind", [PV, HVM])
def test_damage_is_refused_or_harmless(kind: LegacyKind, tmp_path: Path) -> None:
    good = LegacyImage("pv" if kind.is_pv else "hvm", xl_header=None, pages=4).build()
    page_bytes = range(6000 if kind.is_pv else 60, len(good) - 9000)
    choose = random.Random(1)
    for _ in range(300):
        data = bytearray(good)
        for _ in range(choose.randint(1, 4)):
            position = choose.randrange(len(data))
            if position not in page_bytes or choose.random() < 0.2:
                data[position] = choose.choice([0, 1, 0x7F, 0x80, 0xFF, choose.randrange(256)])
        with contextlib.suppress(StreamError):
            converted(bytes(data), kind, tmp_path)


def test_legacy_constants_have_names() -> None:
    assert legacy.chunk_name(-18) == "chunk -18 (TOOLSTACK)"
    assert legacy.chunk_name(-3) == "chunk -3 (an HVM parameter)"
    assert legacy.chunk_name(-99) == "chunk -99"
