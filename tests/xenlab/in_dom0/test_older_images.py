"""Images as Xen 4.6 to 4.13 wrote them: libxc's version 2, without CPUID and MSR policies."""

from __future__ import annotations

import struct
from pathlib import Path

from libxlsr.formats import libxc
from libxlsr.formats.libxc import RecordType

from .guests import Guest
from .images import Image, Parts, image_of, write
from .points import every_run_with
from .restoring import restore_file

NEWER = {
    RecordType.STATIC_DATA_END,
    RecordType.X86_CPUID_POLICY,
    RecordType.X86_MSR_POLICY,
}


def as_version_2(image: Image) -> Parts:
    """The same guest's image without what version 3 brought."""
    position = image.first_libxc_record
    older = image.upto(image.libxc, libxc.ImageHeader(version=2).encode())
    older.append(image.data[image.libxc + libxc.IMAGE_HEADER_SIZE : position])
    kind = -1
    while kind != RecordType.END:
        kind, length = struct.unpack_from("<II", image.data, position)
        end = position + libxc.RECORD_HEADER_SIZE + -(-length // 8) * 8
        if kind not in NEWER:
            older.append(image.data[position:end])
        position = end
    return [*older, image.data[position:]]


@every_run_with("pvh")
def test_a_cpu_policy_is_made_for_the_guest(guest: Guest, tmp_path: Path) -> None:
    ticks = len(guest.ticks())
    older = tmp_path / "older.save"
    with image_of(guest.image) as image:
        write(older, as_version_2(image))
    assert older.stat().st_size < guest.image.stat().st_size
    restore_file(older)
    guest.check_goes_on_after(ticks)
