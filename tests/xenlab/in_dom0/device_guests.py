"""Guests with a disk that they write to and a network card, as xl saved them.

The disk goes on from where the guest was saved, so that each restore needs it as it was then: a
guest's ``reset`` brings it back.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from .guests import BOOT_SECONDS, IMAGES, MEMORY, STAYS_DOWN, Guest, boot, save
from .hvm_guests import LINUX, dom0_on_the_guest_s_processor

ADDRESS = "10.1.0.2"
DISK_SIZE = 16 << 20
CONFIG = f"""\
{STAYS_DOWN}\
name="{{name}}"
type="{{kind}}"
{{boot}}
disk=["vdev=xvda,access=rw,{{disk}}"]
vif=["mac=00:16:3e:00:00:{{number:02x}},bridge=xenbr0"]
"""

_BOOT = """\
kernel="/srv/guest/vmlinux"
ramdisk="/srv/guest/initrd"
extra="console=hvc0 quiet"
memory={memory}
vcpus=1"""
BOOT = {kind: _BOOT.format(memory=memory) for kind, memory in MEMORY.items()}
# With a screen: without one xl itself can't restore a guest with an emulated network card.
BOOT["hvm"] = f"""\
{LINUX}
vga="stdvga"
vnc=0"""

# How the disk gets to the guest: what the configuration says of it.
DISKS = {
    "device": "format=raw,target={device}",
    "loop": "format=raw,script=block,target={file}",
    "raw": "format=raw,target={file}",
    "qcow2": "format=qcow2,target={file}",
}


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@dataclass
class DeviceGuest(Guest):
    """A guest with a disk of a kind of `DISKS`, in ``file``."""

    disk: str
    file: Path

    def reset(self) -> None:
        """Destroy it, and give the disk the content that it had when the guest was saved."""
        self.destroy()
        saved = self.file.with_suffix(".saved")
        if self.disk == "device":
            # Through the device: what is behind it has a cache of its own.
            run("dd", f"if={saved}", f"of={self.device()}", "bs=1M", "conv=fsync")
        else:
            shutil.copyfile(saved, self.file)

    def device(self) -> str:
        """The block device over the file: a loop device, made where there is none."""
        found = run("losetup", "-n", "-O", "NAME", "-j", str(self.file)).split()
        return found[0] if found else run("losetup", "-f", "--show", str(self.file)).strip()

    def check_going_on(self) -> None:
        """It ticks, its writes reach the disk, and it answers on the network."""
        before = len(self.console)
        # Of this life: what it ticked before may be far more.
        last = self.wait_for_ticks(2)[-1][0]
        self.wait_until(lambda: self.written() > last, "write to its disk")
        self.wait_until(answers_ping, "answer a ping", seconds=60)
        said = self.console[before:]
        assert not re.search(r"failed|error|panic", said, re.IGNORECASE), said

    def written(self) -> int:
        """The last tick that is on the disk."""
        image = self.file
        if self.disk == "qcow2":
            image = self.file.with_suffix(".raw")
            run("qemu-img", "convert", "-U", "-O", "raw", str(self.file), str(image))
        found = subprocess.run(
            ["debugfs", "-R", "cat ticks", str(image)], capture_output=True, text=True, check=True
        ).stdout
        numbers = re.findall(r"^tick (\d+) [0-9a-f]{32}$", found, re.MULTILINE)
        return int(numbers[-1]) if numbers else 0


def answers_ping() -> bool:
    done = subprocess.run(
        ["busybox", "ping", "-c", "1", "-W", "2", ADDRESS], capture_output=True, check=False
    )
    return done.returncode == 0


def saved_device_guest(kind: str, disk: str) -> DeviceGuest:
    """A guest of the kind with such a disk, saved by xl after it has ticked; made once a boot."""
    name = f"lab-{kind}-{disk}"
    directory = IMAGES / name
    guest = DeviceGuest(kind, name, directory / "save", disk, directory / "disk")
    if guest.image.exists():
        return guest
    directory.mkdir(parents=True, exist_ok=True)
    _make_disk(guest)
    config = directory / "cfg"
    device = guest.device() if disk == "device" else ""
    config.write_text(
        CONFIG.format(
            name=name,
            kind=kind,
            boot=BOOT[kind],
            number=1 + sum(name.encode()) % 200,
            disk=DISKS[disk].format(device=device, file=guest.file),
        )
    )

    def until_it_answers() -> None:
        guest.wait_for_ticks(3, BOOT_SECONDS)
        guest.wait_until(answers_ping, "answer a ping", seconds=120)

    with dom0_on_the_guest_s_processor() if kind == "hvm" else nullcontext():
        boot(guest, config, until_it_answers)
    unfinished = directory / "part"
    save(guest, unfinished)
    saved = guest.file.with_suffix(".saved")
    if disk == "device":
        run("dd", f"if={guest.device()}", f"of={saved}", "bs=1M")
    else:
        shutil.copyfile(guest.file, saved)
    unfinished.rename(guest.image)
    return guest


def _make_disk(guest: DeviceGuest) -> None:
    raw = guest.file if guest.disk != "qcow2" else guest.file.with_suffix(".raw")
    with raw.open("wb") as file:
        file.truncate(DISK_SIZE)
    run("mke2fs", "-q", "-t", "ext4", str(raw))
    if guest.disk == "qcow2":
        run("qemu-img", "convert", "-O", "qcow2", str(raw), str(guest.file))
