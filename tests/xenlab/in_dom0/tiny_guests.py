"""The tiny guest (tiny_guest.py) as a PVH guest, as xl saved it: for all where it does not matter
what runs in the guest. A restore of it reads 4 MiB.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from libxlsr.formats.framing import padded_length
from libxlsr.formats.libxc import PAGE_SIZE, RECORD_HEADER_SIZE, RecordType
from tests.xenlab.tiny_guest import tiny_guest

from . import dom0
from .guests import BOOT_SECONDS, IMAGES, STAYS_DOWN, Guest, boot, xl
from .images import Image, Parts, write_changed
from .waiting import GOES_ON_SECONDS, wait_until

TINY = IMAGES / "tiny.elf"
MEMORY = 32
"""MiB. With less, libxenguest does not build it."""

_CONFIG = f"""\
{STAYS_DOWN}\
type="pvh"
kernel="{TINY}"
memory={MEMORY}
"""
_SHUTDOWN_SUSPEND = 2  # xen/include/public/sched.h
_KEPT_FRAMES = (4 << 20) // PAGE_SIZE
_TYPE_SHIFT = 60  # of an entry of PAGE_DATA; 0 is a page with content
_PFN_MASK = (1 << 52) - 1


class TinyGuest(Guest):
    """A tiny guest, PVH or HVM."""

    @property
    def domid(self) -> int:
        return dom0.domid_of(self.name)

    def counts(self) -> list[int]:
        """The numbers that the tiny guest has said since it has this domain id."""
        # That of the example in the tree calls itself a ticker.
        said = rf"^\(d{self.domid}\) tick(?:er)? ([0-9a-f]{{8}})"
        return [int(number, 16) for number in re.findall(said, xl("dmesg"), re.MULTILINE)]

    def count(self) -> int:
        """The last of them; 0 where it has said none."""
        return max(self.counts(), default=0)

    def wait_until_it_goes_on(self, seconds: float = GOES_ON_SECONDS) -> None:
        """Wait for a sign of life that only a guest that runs gives."""
        counted = self.count()
        self.wait_until(lambda: self.count() > counted, "count", seconds)


def write_tiny_elf() -> None:
    """Put the guest's file where configurations say it is."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    TINY.write_bytes(tiny_guest())


def saved_tiny_pvh() -> TinyGuest:
    """The guest, saved by xl when it counted; made once a boot of dom0."""
    guest = TinyGuest("pvh", "lab-tiny-pvh", IMAGES / "tiny-pvh.save")
    if not guest.image.exists():
        write_tiny_elf()
        config = IMAGES / "tiny-pvh.cfg"
        config.write_text(f'name="{guest.name}"\n{_CONFIG}')
        boot(guest, config, lambda: guest.wait_until_it_goes_on(BOOT_SECONDS))
        whole, unfinished = guest.image.with_suffix(".whole"), guest.image.with_suffix(".part")
        try:
            _save(guest, whole)
        except BaseException:
            guest.destroy()
            raise
        write_changed(whole, unfinished, _compact)
        whole.unlink()
        unfinished.rename(guest.image)
    return guest


def _save(guest: TinyGuest, image: Path) -> None:
    """Have xl save it, and do what a guest does that is asked to suspend: this one knows nothing of
    xenstore."""
    request = f"/local/domain/{guest.domid}/control/shutdown"
    with subprocess.Popen(["xl", "save", guest.name, str(image)]) as saving:
        wait_until(
            lambda: dom0.xenstore().read(request) == "suspend" or saving.poll() is not None,
            "xl to have the guest suspended",
        )
        dom0.xenstore().write(request, "")
        dom0.xenctrl().domain_shutdown(guest.domid, _SHUTDOWN_SUSPEND)
    assert saving.returncode == 0


def _compact(image: Image) -> Parts:
    """The image without the frames that are not there, as xl lists them, and without the empty
    pages above the first few MiB: the guest uses 20 KiB."""
    parts = image.upto(image.first_libxc_record)
    end = image.first_libxc_record
    for kind, start, end in image.libxc_records():
        if kind == RecordType.PAGE_DATA:
            pages = list(_pages(image.data[start + RECORD_HEADER_SIZE : end]))
            if pages:
                parts.append(_page_data(pages))
        else:
            parts.append(image.data[start:end])
    return [*parts, image.data[end:]]


def _pages(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The pages of a PAGE_DATA record that are kept, with their frame numbers."""
    (count,) = struct.unpack_from("<I", body)
    position = 8 + 8 * count
    for (entry,) in struct.iter_unpack("<Q", body[8:position]):
        if entry >> _TYPE_SHIFT == 0:
            page = body[position : position + PAGE_SIZE]
            position += PAGE_SIZE
            frame = entry & _PFN_MASK
            is_ram = frame < (MEMORY << 20) // PAGE_SIZE
            if not is_ram or frame < _KEPT_FRAMES or any(page):
                yield frame, page


def _page_data(pages: list[tuple[int, memoryview]]) -> bytes:
    frames = b"".join(struct.pack("<Q", frame) for frame, _ in pages)
    body = struct.pack("<II", len(pages), 0) + frames + b"".join(page for _, page in pages)
    assert len(body) == padded_length(len(body))
    return struct.pack("<II", RecordType.PAGE_DATA, len(body)) + body
