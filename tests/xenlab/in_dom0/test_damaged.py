"""A damaged image is refused, and the host is as before. Among them those that xl itself takes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from libxlsr.errors import StreamError, TargetError
from libxlsr.formats import libxc, libxl

from .guests import Guest
from .restoring import restore_file

OPTIONAL_UNKNOWN = struct.pack("<II", 0x80000001, 4) + b"what" + bytes(4)
LIBXL_END = struct.pack("<II", libxl.RecordType.END, 0)
EMULATOR_CONTEXT = struct.pack("<IIII", libxl.RecordType.EMULATOR_CONTEXT, 16, 1, 0) + b"QEVM" * 2


def libxc_start(image: bytes) -> int:
    """Where the libxc stream starts: at its marker."""
    return image.index(b"\xff" * 8 + b"XENF")


def libxl_start(image: bytes) -> int:
    """Where the libxl stream starts: in front of the LIBXC_CONTEXT record's header."""
    return libxc_start(image) - libxl.RECORD_HEADER_SIZE - libxl.HEADER_SIZE


def first_libxc_record(image: bytes) -> int:
    return libxc_start(image) + 24 + 16


def patched(image: bytes, offset: int, data: bytes) -> bytes:
    return image[:offset] + data + image[offset + len(data) :]


def libxc_record(image: bytes, wanted: int) -> int:
    """Where the first record of a type in the libxc stream starts."""
    record = first_libxc_record(image)
    while True:
        kind, length = struct.unpack_from("<II", image, record)
        if kind == wanted:
            return record
        record += 8 + -(-length // 8) * 8


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "libxl END cut off": lambda image: image[:-8],
    "half of END's header cut off": lambda image: image[:-4],
    "one byte cut off": lambda image: image[:-1],
    "cut in libxc's END": lambda image: image[:-12],
    "cut in the memory": lambda image: image[: len(image) // 2],
    "cut in the first pages": lambda image: image[:100_000],
    "cut in the configuration": lambda image: image[:200],
    "nothing after the xl header": lambda image: image[: libxl_start(image)],
    "empty": lambda _: b"",
    "rubbish after END": lambda image: image + b"\xa5" * 32,
    "an EMULATOR_CONTEXT": lambda image: image[:-8] + EMULATOR_CONTEXT + LIBXL_END,
    "wrong ident": lambda image: patched(image, libxl_start(image), b"LibxlFmT"),
    "version 3": lambda image: patched(image, libxl_start(image) + 8, struct.pack(">I", 3)),
    "big-endian": lambda image: patched(image, libxl_start(image) + 12, struct.pack(">I", 1)),
    "reserved option bit": lambda image: patched(
        image, libxl_start(image) + 12, struct.pack(">I", 1 << 20)
    ),
    "END with a body": lambda image: (
        image[:-8] + struct.pack("<II", libxl.RecordType.END, 8) + bytes(8)
    ),
    "a record of 4 GiB": lambda image: image[:-8] + struct.pack("<II", 2, 0xFFFFFFFF) + LIBXL_END,
    "an unknown record": lambda image: image[:-8] + struct.pack("<II", 0x77, 0) + LIBXL_END,
    "a second LIBXC_CONTEXT": lambda image: image[:-8] + struct.pack("<II", 1, 0) + LIBXL_END,
    "CHECKPOINT_END without Remus": lambda image: image[:-8] + struct.pack("<II", 4, 0),
    "a libxc record of 4 GiB": lambda image: patched(
        image, first_libxc_record(image) + 4, struct.pack("<I", 0xFFFFFFFF)
    ),
    "an unknown libxc record": lambda image: patched(
        image, first_libxc_record(image), struct.pack("<I", 0x7FFF)
    ),
    "a page shift of 63": lambda image: patched(
        image, libxc_start(image) + 24 + 4, struct.pack("<H", 63)
    ),
}


# Of a PVH guest each run tries those that get as far as libxenguest; the rest takes minutes.
FOR_PVH = {"libxl END cut off", "cut in the memory", "an unknown libxc record"}
CASES = [
    pytest.param(kind, what, marks=() if kind == "pv" or what in FOR_PVH else pytest.mark.slow)
    for kind in ("pv", "pvh")
    for what in DAMAGE
]


@pytest.mark.usefixtures("unchanged_host")
@pytest.mark.parametrize(("guest", "what"), CASES, indirect=["guest"])
def test_it_is_refused(guest: Guest, tmp_path: Path, what: str) -> None:
    damaged = tmp_path / "damaged.save"
    damaged.write_bytes(DAMAGE[what](guest.image.read_bytes()))
    with pytest.raises((StreamError, TargetError)):
        restore_file(damaged)


# What Remus sends instead of both END records. xl fails over after the first of these, and spins at
# full CPU after the second.
CHECKPOINT = struct.pack("<II", libxc.RecordType.CHECKPOINT, 0)
CHECKPOINT_END = struct.pack("<II", libxl.RecordType.CHECKPOINT_END, 0)
REMUS = {
    "the sender died after CHECKPOINT_END": CHECKPOINT + CHECKPOINT_END,
    "the sender died before CHECKPOINT_END": CHECKPOINT,
    "a failover by hand": CHECKPOINT + CHECKPOINT_END + bytes(8) + LIBXL_END,
}


@pytest.mark.usefixtures("unchanged_host")
@pytest.mark.parametrize("what", REMUS)
def test_a_checkpointed_stream_is_for_the_offline_target(
    guest: Guest, tmp_path: Path, what: str
) -> None:
    remus = tmp_path / "remus.save"
    remus.write_bytes(guest.image.read_bytes()[:-16] + REMUS[what])
    with pytest.raises(TargetError, match=r"checkpointed streams .* offline \(--target image\)"):
        restore_file(remus)


def test_an_optional_record_is_skipped(guest: Guest, tmp_path: Path) -> None:
    whole = guest.image.read_bytes()
    odd = tmp_path / "odd.save"
    odd.write_bytes(whole[:-8] + OPTIONAL_UNKNOWN + LIBXL_END)
    restore_file(odd)
    guest.wait_for_ticks(1)


@pytest.mark.usefixtures("unchanged_host")
def test_a_cpu_that_the_host_can_not_give(guest: Guest, tmp_path: Path) -> None:
    whole = guest.image.read_bytes()
    policy = libxc_record(whole, libxc.RecordType.X86_CPUID_POLICY)
    foreign = tmp_path / "foreign.save"
    # Leaf 0: the largest leaf.
    foreign.write_bytes(patched(whole, policy + 8 + 8, struct.pack("<I", 0xFFFF)))
    with pytest.raises(TargetError, match="CPUID leaf 0x0 does not fit"):
        restore_file(foreign)
