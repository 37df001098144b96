"""HVM guests, as xl saved them, and how they are looked at from dom0.

``tiny`` counts in memory (tiny_guest.py); ``bios`` has a BIOS, disks and a network card, and most
of the devices that QEMU can have besides; ``linux`` ticks as those in guests.py do.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from . import dom0
from .guests import (
    BOOT_SECONDS,
    IMAGES,
    STAYS_DOWN,
    boot,
    output_of,
    save,
    xl,
)
from .tiny_guests import TINY, TinyGuest, write_tiny_elf
from .waiting import GOES_ON_SECONDS

_TINY = f"""\
firmware_override="{TINY}"
memory=32
vga="none"
nographic=1
"""
# noearly: Linux looks for an AGP bridge on each of 256 buses otherwise, which is 8,192 questions to
# the device model.
LINUX = """\
kernel="/srv/guest/vmlinuz"
ramdisk="/srv/guest/initrd"
extra="console=hvc0 quiet pci=noearly"
memory=160
vcpus=1
cpus="0"
"""
_LINUX = f"""\
{LINUX}
vga="none"
nographic=1
"""
_DISKS = {"raw": IMAGES / "hvm-disk.raw", "qcow2": IMAGES / "hvm-disk.qcow2"}
# The first is booted, into sti; hlt; jmp back to the hlt: a BIOS that finds nothing to boot reboots
# after a minute.
_BOOT_SECTOR = b"\xfb\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"
_BIOS = f"""\
memory=64
vcpus=2
vga="stdvga"
vnc=1
serial="pty"
usb=1
usbdevice="tablet"
keymap="de"
localtime=1
cpus="0"
disk=["format=raw,vdev=hda,access=rw,target={_DISKS["raw"]}",
      "format=qcow2,vdev=xvdb,access=rw,target={_DISKS["qcow2"]}"]
vif=["mac=00:16:3e:00:01:01,bridge=xenbr0"]
"""
CONFIGS = {"tiny": _TINY, "bios": _BIOS, "linux": _LINUX}
BIOS_TICKS = 0x46C
"""Where a BIOS counts the timer's interrupts, 18.2 a second (BIOS data area, 0x40:0x6c)."""


class HvmGuest(TinyGuest):
    """An HVM guest and the image that xl saved of it."""

    def wait_until_it_goes_on(self, seconds: float = GOES_ON_SECONDS) -> None:
        """Wait for a sign of life that only a guest that runs gives."""
        if self.kind == "tiny":
            super().wait_until_it_goes_on(seconds)
        elif self.kind == "linux":
            self.wait_for_ticks(1, seconds)
        else:
            self.wait_until(lambda: self.bios_ticks() != 0, "start its BIOS", seconds)
            ticks = self.bios_ticks()
            self.wait_until(lambda: self.bios_ticks() != ticks, "tick in its BIOS", seconds)

    def bios_ticks(self) -> int:
        """How many interrupts of the timer its BIOS has counted since midnight; 0 before it starts.

        The count stands still where a guest only spins: it takes the BIOS's handler, and the timer,
        the interrupt controller and the memory that a restore must bring back.
        """
        line = self.qmp("human-monitor-command", **{"command-line": f"xp /1wx {BIOS_TICKS:#x}"})
        return int(line.split()[1], 16)

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Ask the device model on the socket that libxl uses."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(f"/var/run/xen/qmp-libxl-{self.domid}")
            lines = sock.makefile("rwb", buffering=0)
            lines.readline()
            for request in (
                {"execute": "qmp_capabilities"},
                {"execute": command, "arguments": arguments},
            ):
                lines.write(json.dumps(request).encode() + b"\r\n")
                answer = json.loads(lines.readline())
                while "return" not in answer:
                    assert "error" not in answer, answer
                    answer = json.loads(lines.readline())
        return answer["return"]

    def model_pid(self) -> int:
        pid = dom0.xenstore().read(f"/local/domain/{self.domid}/image/device-model-pid")
        assert pid is not None
        return int(pid)


@contextmanager
def dom0_on_the_guest_s_processor() -> Iterator[None]:
    """For the boot of a guest that stays on processor 0.

    Firmware and kernel ask the device model some thousand things, and each waits for dom0: between
    two processors, which are threads of the QEMU outside, that takes ten times as long.
    """
    xl("vcpu-pin", "Domain-0", "all", "0")
    try:
        yield
    finally:
        xl("vcpu-pin", "Domain-0", "all", "all")


def saved_hvm_guest(kind: str) -> HvmGuest:
    """A guest of the kind, saved by xl when it ran; made once a boot of dom0."""
    guest = HvmGuest(kind, f"lab-hvm-{kind}", IMAGES / f"hvm-{kind}.save")
    if not guest.image.exists():
        write_tiny_elf()
        if kind == "bios":
            for image_format, disk in _DISKS.items():
                output_of("qemu-img", "create", "-f", image_format, str(disk), "16M")
            with _DISKS["raw"].open("r+b") as boots:
                boots.write(_BOOT_SECTOR)
        config = IMAGES / f"hvm-{kind}.cfg"
        config.write_text(f'name="{guest.name}"\ntype="hvm"\n{STAYS_DOWN}{CONFIGS[kind]}')
        # The tiny guest asks the device model nothing, and has no processor of its own.
        with nullcontext() if kind == "tiny" else dom0_on_the_guest_s_processor():
            boot(guest, config, lambda: guest.wait_until_it_goes_on(BOOT_SECONDS))
        unfinished = guest.image.with_suffix(".part")
        save(guest, unfinished)
        unfinished.rename(guest.image)
    return guest
