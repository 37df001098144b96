"""Images as Xen 4.6 to 4.13 wrote them: libxc's version 2, without CPUID and MSR policies."""

from __future__ import annotations

from pathlib import Path

from libxlsr.formats import libxc
from libxlsr.formats.libxc import RecordType

from .guests import Guest
from .images import Image, Parts, write_changed
from .points import every_run_with
from .restoring import restore_file

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


@every_run_with("pvh")
def test_a_cpu_policy_is_made_for_the_guest(guest: Guest, tmp_path: Path) -> None:
    ticks = len(guest.ticks())
    older = tmp_path / "older.save"
    write_changed(guest.image, older, as_version_2)
    assert older.stat().st_size < guest.image.stat().st_size
    restore_file(older)
    guest.check_goes_on_after(ticks)
