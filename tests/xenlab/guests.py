"""Guests for tests: what xl is told to start, and how a running one is looked at from outside.

Linux guests tick: once a second their console gets ``tick NUMBER DIGEST``, DIGEST being the MD5 sum
of 2 MiB of random data in their memory. After a restore the ticks go on and the digest is the same.
The kernel and the initramfs are in the image, see recipe.py. The tiny guest is in tiny_guest.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .host import Host
from .image import LabError
from .recipe import CONSOLE_LOG_DIR, GUEST_DIR
from .tiny_guest import tiny_guest

TINY_GUEST_PATH = f"{GUEST_DIR}/tiny"
IMAGE_DIR = "/var/tmp/libxlsr-images"

# MiB. Less does not boot; 16 for a PVH guest fails in libxenguest with EBUSY.
MEMORY = {"pv": 96, "pvh": 128}
TINY_MEMORY = 32
BOOT_ATTEMPTS = 3
BOOT_SECONDS = 300

Settings = Mapping[str, object]

# A guest that dies stays dead, and nothing is tried twice behind a test's back.
_ONCE: Settings = {"on_poweroff": "destroy", "on_reboot": "destroy", "on_crash": "destroy"}
_NO_DISPLAY: Settings = {"vga": "none", "nographic": 1}


class GuestDied(LabError):
    """A guest went away while it was waited for."""


@dataclass(frozen=True)
class Tick:
    number: int
    digest: str


def linux_config(name: str, kind: str, **settings: object) -> str:
    """xl's configuration of a ticking guest; `kind` is "pv" or "pvh"."""
    boot = {
        # Not the bzImage: unpacking it would take most of the boot's time under emulation.
        "kernel": f"{GUEST_DIR}/vmlinux",
        "ramdisk": f"{GUEST_DIR}/initrd",
        "extra": "console=hvc0 quiet",
        "memory": MEMORY[kind],
    }
    return _config(name, kind, {**boot, **settings})


def tiny_config(name: str, kind: str, **settings: object) -> str:
    """xl's configuration of the tiny guest; `kind` is "pvh" or "hvm" (in hvmloader's place)."""
    loaded_as = {"pvh": "kernel", "hvm": "firmware_override"}[kind]
    return _config(name, kind, {loaded_as: TINY_GUEST_PATH, "memory": TINY_MEMORY, **settings})


def _config(name: str, kind: str, settings: Settings) -> str:
    display = _NO_DISPLAY if kind == "hvm" else {}
    all_settings = {"name": name, "type": kind, **_ONCE, **display, **settings}
    # repr() of str, int and lists of them is what xl reads.
    return "".join(f"{key} = {value!r}\n" for key, value in all_settings.items())


@dataclass(frozen=True)
class Guest:
    """A domain in the lab, by its name."""

    host: Host
    name: str
    first_name: str | None = None
    """The name that it had when xenconsoled first heard it, where that was another."""

    @property
    def console_log(self) -> str:
        """The path in dom0 of all that xenconsoled has heard from guests of this name."""
        return f"{CONSOLE_LOG_DIR}/guest-{self.first_name or self.name}.log"

    def create(self, config: str) -> None:
        path = f"/run/{self.name}.cfg"
        self.host.put_bytes(config.encode(), path)
        self.host.run(f"rm -f {self.console_log}; xl create -q {path}")

    def restore(self, image: str) -> None:
        self.host.run(f"rm -f {self.console_log}; xl restore {image}")

    def save(self, image: str) -> None:
        """Save it with xl into a file on dom0's disk; the domain is gone afterwards."""
        self.host.run(f"mkdir -p $(dirname {image}) && xl save {self.name} {image}")

    def destroy(self) -> None:
        """Destroy it if it is there."""
        self.host.run(f"! xl domid {self.name} 2>/dev/null || xl destroy {self.name}")

    def domid(self) -> int | None:
        found = self.host.run(f"xl domid {self.name}", check=False)
        return int(found.stdout) if found.returncode == 0 else None

    def ticks(self) -> list[Tick]:
        """What a Linux guest has ticked since it was created or restored."""
        console = self.host.run(f"cat {self.console_log}", check=False).stdout
        found = re.findall(r"^tick (\d+) ([0-9a-f]{32})\r?$", console, re.MULTILINE)
        return [Tick(int(number), digest) for number, digest in found]

    def wait_for_tick(self, number: int) -> Tick:
        """Wait for tick `number`. Raises GuestDied when the domain goes away before it comes."""
        done = self.host.run(
            f"for i in $(seq {BOOT_SECONDS * 2}); do"
            f" grep -q '^tick {number} ' {self.console_log} && exit 0;"
            f" xl domid {self.name} >/dev/null 2>&1 || exit 3;"
            " sleep 0.5; done; exit 4",
            check=False,
            timeout=BOOT_SECONDS * 3,
        )
        if done.returncode != 0:
            last_words = self.host.run(f"tail {self.console_log}; xl dmesg | tail -20", check=False)
            what = "died before" if done.returncode == 3 else "never came to"
            raise GuestDied(f"{self.name} {what} tick {number}:\n{last_words.stdout}")
        return next(tick for tick in self.ticks() if tick.number == number)

    def wait_for_tiny_count(self, number: int) -> int:
        """Wait until the tiny guest has printed `number` or more; what it printed last."""
        domid = self.domid()
        done = self.host.run(
            f"for i in $(seq {BOOT_SECONDS * 2}); do"
            f" xl dmesg | grep -a '^(d{domid}) tick ' | tail -1 | cut -d' ' -f3 >/run/count;"
            f" [ $((0x0$(cat /run/count))) -ge {number} ] && cat /run/count && exit 0;"
            f" xl domid {self.name} >/dev/null 2>&1 || exit 3;"
            " sleep 0.5; done; exit 4",
            check=False,
            timeout=BOOT_SECONDS * 3,
        )
        if done.returncode != 0:
            raise GuestDied(f"{self.name} did not count to {number}: {done.returncode}")
        return int(done.stdout, 16)


def booted_linux(host: Host, name: str, kind: str) -> Guest:
    """A Linux guest that has ticked twice.

    QEMU's emulation of nested SVM now and then turns a VM entry of a PVH or HVM guest into a triple
    fault. That says nothing about the lab or the project, so such a guest is started again.
    """
    guest = Guest(host, name)
    for attempt in range(1, BOOT_ATTEMPTS + 1):
        try:
            guest.create(linux_config(name, kind))
            guest.wait_for_tick(2)
        except GuestDied:
            if attempt == BOOT_ATTEMPTS or not _triple_faulted(host):
                raise
        else:
            break
    return guest


def _triple_faulted(host: Host) -> bool:
    return "Triple fault" in host.run("xl dmesg | tail -40", check=False).stdout


@dataclass(frozen=True)
class SavedGuest:
    """What ``xl save`` wrote of a Linux guest; `image` is a path in dom0."""

    host: Host
    kind: str
    name: str
    image: str
    last_tick: Tick


def saved_linux(host: Host, kind: str) -> SavedGuest:
    """The saved guest of this kind that is in the host's snapshot (in_dom0/save_guests.py)."""
    image = f"{IMAGE_DIR}/{kind}.save"
    number, digest = host.run(f"ls {image} >&2 && cat {IMAGE_DIR}/{kind}.tick").stdout.split()
    return SavedGuest(host, kind, f"lab-{kind}", image, Tick(int(number), digest))


def provide_tiny_guest(host: Host) -> None:
    """Put the tiny guest where `tiny_config` says that it is."""
    host.put_bytes(tiny_guest(), TINY_GUEST_PATH)
