"""Images as Xen 4.6 to 4.13 wrote them: libxc's version 2, without CPUID and MSR policies."""

from __future__ import annotations

from pathlib import Path

from libxlsr.formats import libxc
from libxlsr.formats.libxc import RecordType

from .images import Image, Parts, write_changed
from .restoring import restore_file
from .tiny_guests import TinyGuest

NEWER = {
    RecordType.STATIC_DATA_END,
    RecordType.X86_CPUID_POLICY,
    RecordType.X86_MSR_POLICY,
}


def as_version_2(image: Image) -> Parts:
    """The same guest's image without what version 3 brought."""
    header = libxc.ImageHeader(version=2).encode()
    end = image.first_libxc_record
    parts = image.upto(image.libxc_start, header)
    parts.append(image.data[image.libxc_start + len(header) : end])
    for kind, start, end in image.libxc_records():
        if kind not in NEWER:
            parts.append(image.data[start:end])
    return [*parts, image.data[end:]]


def test_a_cpu_policy_is_made_for_the_guest(tiny: TinyGuest, tmp_path: Path) -> None:
    older = tmp_path / "older.save"
    write_changed(tiny.image, older, as_version_2)
    assert older.stat().st_size < tiny.image.stat().st_size
    restore_file(older)
    tiny.wait_until_it_goes_on()
