"""Guests that tick, as xl saved them, and how they are looked at from dom0."""

from __future__ import annotations

import os
import re
import select
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import dom0
from .waiting import GOES_ON_SECONDS, wait_until

IMAGES = Path("/var/tmp/libxlsr-images")
CONSOLES = Path("/var/log/xen/console")
# xl makes no new guest of one that is lost (`GuestLost`).
STAYS_DOWN = """\
on_reboot="preserve"
on_crash="preserve"
"""
GUEST = f"""\
{STAYS_DOWN}\
name="{{name}}"
type="{{kind}}"
kernel="/srv/guest/vmlinux"
ramdisk="/srv/guest/initrd"
extra="console=hvc0 quiet"
memory={{memory}}
vcpus=1
"""
MEMORY = {"pv": 96, "pvh": 128}
BOOT_SECONDS = 300.0
BOOT_ATTEMPTS = 3
_LOST = (1, 3)  # SHUTDOWN_reboot and SHUTDOWN_crash of xen/include/public/sched.h


class GuestLost(AssertionError):
    """QEMU's emulation of nested SVM now and then turns a VM entry of a PVH or HVM guest into a
    triple fault, and such a guest never does anything again."""


def output_of(*argv: str) -> str:
    """Run a program and return what it printed; raises with that when it fails."""
    # Into files: an xl that stays in the background would keep pipes open.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        done = subprocess.run(argv, stdout=stdout, stderr=stderr, check=False)
        stdout.seek(0)
        stderr.seek(0)
        output = stdout.read().decode("utf-8", "replace")
        if done.returncode:
            said = stderr.read().decode("utf-8", "replace")
            raise AssertionError(f"{' '.join(argv)}: {output}{said}")
    return output


def xl(*arguments: str) -> str:
    """Run xl and return what it printed; raises with that when it fails."""
    return output_of("xl", *arguments)


@dataclass
class Guest:
    """A guest that ticks, and the image that xl saved of it."""

    kind: str
    name: str
    image: Path

    @property
    def console(self) -> str:
        """What it has said since it was first booted."""
        path = CONSOLES / f"guest-{self.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def ticks(self) -> list[tuple[int, str]]:
        """The numbers that it counted, each with the digest of its memory."""
        found = re.findall(r"^tick (\d+) ([0-9a-f]{32})\s*$", self.console, re.MULTILINE)
        return [(int(number), digest) for number, digest in found]

    def wait_for_ticks(self, count: int, seconds: float = GOES_ON_SECONDS) -> list[tuple[int, str]]:
        """Wait until it has ticked ``count`` times more; those ticks."""
        before = len(self.ticks())
        self._wait_for(before + count, seconds)
        return self.ticks()[before:]

    def _wait_for(self, count: int, seconds: float = GOES_ON_SECONDS) -> None:
        """Wait until it has ticked ``count`` times since it was first booted."""
        self.wait_until(lambda: len(self.ticks()) >= count, "tick", seconds)

    def wait_until(
        self, condition: Callable[[], bool], what: str, seconds: float = GOES_ON_SECONDS
    ) -> None:
        """Wait for ``what`` only a guest that runs does. Raises GuestLost when one is lost."""

        def done() -> bool:
            if condition():
                return True
            lost = lost_domains()
            if lost:
                raise GuestLost(f"domain {lost[0]} has gone down, and {self.name} was to {what}")
            return False

        wait_until(done, f"{self.name} to {what}", seconds)

    def wait_for_a_tick_on(self, terminal: int) -> bytes:
        """Read a pty's leader until the guest's tick is among what it gives; all of that."""
        heard = b""

        def ticked() -> bool:
            nonlocal heard
            if select.select([terminal], [], [], 0)[0]:
                heard += os.read(terminal, 4096)
            return b"tick " in heard

        self.wait_until(ticked, "tick on its console")
        return heard

    @property
    def saved_tick(self) -> tuple[int, str]:
        """The last tick that it had said when it was saved; of `saved_guest` only."""
        number, digest = self._saved_tick_file().read_text().split()
        return int(number), digest

    def check_goes_on_after(self, ticks: int) -> None:
        """What it says behind so many ticks follows what it said when it was saved."""
        self._wait_for(ticks + 2)
        number, digest = self.ticks()[ticks]
        last, saved_digest = self.saved_tick
        assert digest == saved_digest
        # One tick may have been in the console's ring, and gone with it, when the guest was saved.
        assert last < number <= last + 2

    def note_saved_tick(self) -> None:
        """Keep it for `saved_tick`."""
        number, digest = self.ticks()[-1]
        self._saved_tick_file().write_text(f"{number} {digest}\n")

    def _saved_tick_file(self) -> Path:
        return self.image.with_suffix(".tick")

    def destroy(self) -> None:
        """Destroy it where it runs, and wait until Xen has let it go."""
        domid = dom0.find_domid(self.name)
        if domid is not None:
            dom0.destroy(domid)


def lost_domains() -> list[int]:
    """The ids of those that went down as a guest that is lost does (`GuestLost`)."""
    return [info.domid for info in dom0.xenctrl().domains() if info.shutdown_reason in _LOST]


def boot(guest: Guest, config: Path, until: Callable[[], object]) -> None:
    """Start it, and wait ``until`` returns; anew, BOOT_ATTEMPTS times in all, when it is lost
    meanwhile. When it fails, nothing is left."""
    for attempt in range(1, BOOT_ATTEMPTS + 1):
        xl("create", "-q", str(config))
        try:
            until()
        except Exception as error:
            guest.destroy()
            if not isinstance(error, GuestLost) or attempt == BOOT_ATTEMPTS:
                raise
        else:
            return


def save(guest: Guest, image: Path) -> None:
    """Have xl save it. When that fails, nothing is left."""
    try:
        xl("save", guest.name, str(image))
    except AssertionError:
        guest.destroy()
        raise


def saved_guest(kind: str) -> Guest:
    """A guest of the kind, saved by xl after it has ticked; made once a boot of dom0."""
    guest = Guest(kind, f"lab-{kind}", IMAGES / f"{kind}.save")
    if not guest.image.exists():
        IMAGES.mkdir(parents=True, exist_ok=True)
        config = IMAGES / f"{kind}.cfg"
        config.write_text(GUEST.format(name=guest.name, kind=kind, memory=MEMORY[kind]))
        boot(guest, config, lambda: guest.wait_for_ticks(3, BOOT_SECONDS))
        unfinished = guest.image.with_suffix(".part")
        save(guest, unfinished)
        guest.note_saved_tick()
        unfinished.rename(guest.image)
    return guest
