"""A damaged image is refused, and the host is as before. Among them those that xl itself takes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from libxlsr.errors import StreamError, TargetError
from libxlsr.formats import libxc, libxl

from .guests import saved_guest
from .images import Image, Parts, write_changed
from .points import KINDS, each_image_with
from .restoring import restore_file
from .tiny_guests import TinyGuest, saved_tiny_pvh


@pytest.fixture
def image(request: pytest.FixtureRequest) -> Path:
    """The PV guest's, or the tiny PVH guest's."""
    return (saved_guest("pv") if request.param == "pv" else saved_tiny_pvh()).image


OPTIONAL_UNKNOWN = struct.pack("<II", 0x80000001, 4) + b"what" + bytes(4)
LIBXL_END = struct.pack("<II", libxl.RecordType.END, 0)
EMULATOR_CONTEXT = struct.pack("<IIII", libxl.RecordType.EMULATOR_CONTEXT, 16, 1, 0) + b"QEVM" * 2


DAMAGE: dict[str, Callable[[Image], Parts]] = {
    "libxl END cut off": lambda image: image.upto(-8),
    "half of END's header cut off": lambda image: image.upto(-4),
    "one byte cut off": lambda image: image.upto(-1),
    "cut in libxc's END": lambda image: image.upto(-12),
    "cut in the memory": lambda image: image.upto(len(image.data) // 2),
    "cut in the first pages": lambda image: image.upto(100_000),
    "cut in the configuration": lambda image: image.upto(200),
    "nothing after the xl header": lambda image: image.upto(image.libxl_start),
    "empty": lambda image: image.upto(0),
    "rubbish after END": lambda image: [image.data, b"\xa5" * 32],
    "an EMULATOR_CONTEXT": lambda image: image.upto(-8, EMULATOR_CONTEXT, LIBXL_END),
    "wrong ident": lambda image: image.patched(image.libxl_start, b"LibxlFmT"),
    "version 3": lambda image: image.patched(image.libxl_start + 8, struct.pack(">I", 3)),
    "big-endian": lambda image: image.patched(image.libxl_start + 12, struct.pack(">I", 1)),
    "reserved option bit": lambda image: image.patched(
        image.libxl_start + 12, struct.pack(">I", 1 << 20)
    ),
    "END with a body": lambda image: image.upto(
        -8, struct.pack("<II", libxl.RecordType.END, 8), bytes(8)
    ),
    "a record of 4 GiB": lambda image: image.upto(-8, struct.pack("<II", 2, 0xFFFFFFFF), LIBXL_END),
    "an unknown record": lambda image: image.upto(-8, struct.pack("<II", 0x77, 0), LIBXL_END),
    "a second LIBXC_CONTEXT": lambda image: image.upto(-8, struct.pack("<II", 1, 0), LIBXL_END),
    "CHECKPOINT_END without Remus": lambda image: image.upto(-8, struct.pack("<II", 4, 0)),
    "a libxc record of 4 GiB": lambda image: image.patched(
        image.first_libxc_record + 4, struct.pack("<I", 0xFFFFFFFF)
    ),
    "an unknown libxc record": lambda image: image.patched(
        image.first_libxc_record, struct.pack("<I", 0x7FFF)
    ),
    "a page shift of 63": lambda image: image.patched(
        image.libxc_start + libxc.IMAGE_HEADER_SIZE + 4, struct.pack("<H", 63)
    ),
}


# Of the PV guest, which is larger, each run tries those that end in different places: before there
# is a domain, in libxenguest, and behind it.
EACH_RUN = {
    *(
        ("pv", what)
        for what in (
            "libxl END cut off",
            "cut in libxc's END",
            "cut in the memory",
            "cut in the configuration",
            "rubbish after END",
            "an EMULATOR_CONTEXT",
            "wrong ident",
            "a record of 4 GiB",
            "CHECKPOINT_END without Remus",
            "a libxc record of 4 GiB",
            "a page shift of 63",
        )
    ),
    *(("pvh", what) for what in DAMAGE),
}


@pytest.mark.usefixtures("unchanged_host")
@each_image_with("what", DAMAGE, EACH_RUN)
def test_it_is_refused(image: Path, tmp_path: Path, what: str) -> None:
    damaged = tmp_path / "damaged.save"
    write_changed(image, damaged, DAMAGE[what])
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
@each_image_with("what", REMUS, {("pvh", what) for what in REMUS})
def test_a_checkpointed_stream_is_for_the_offline_target(
    image: Path, tmp_path: Path, what: str
) -> None:
    remus = tmp_path / "remus.save"
    write_changed(image, remus, lambda whole: whole.upto(-16, REMUS[what]))
    with pytest.raises(TargetError, match=r"checkpointed streams .* offline \(--target image\)"):
        restore_file(remus)


def test_an_optional_record_is_skipped(tiny: TinyGuest, tmp_path: Path) -> None:
    odd = tmp_path / "odd.save"
    write_changed(tiny.image, odd, lambda image: image.upto(-8, OPTIONAL_UNKNOWN, LIBXL_END))
    restore_file(odd)
    tiny.wait_until_it_goes_on()


def with_more_leaves(image: Image) -> Parts:
    (policy,) = [
        start
        for kind, start, _end in image.libxc_records()
        if kind == libxc.RecordType.X86_CPUID_POLICY
    ]
    # Leaf 0: the largest leaf.
    return image.patched(policy + 8 + 8, struct.pack("<I", 0xFFFF))


@pytest.mark.usefixtures("unchanged_host")
@pytest.mark.parametrize("image", KINDS, indirect=True)
def test_a_cpu_that_the_host_can_not_give(image: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.save"
    write_changed(image, foreign, with_more_leaves)
    with pytest.raises(TargetError, match="CPUID leaf 0x0 does not fit"):
        restore_file(foreign)
