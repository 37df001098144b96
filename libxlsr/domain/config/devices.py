"""Disks, network cards and screens of a domain, typed, with libxl's defaults.

Sources: libxl_types.idl; libxl__device_disk_setdefault and libxl__device_disk_dev_number
(libxl_disk.c, libxl_device.c); libxl__device_nic_setdefault (libxl_nic.c).

A configuration names programs, files and scripts that run and are opened as root, as xl does it:
an image is to be trusted like the configuration file of a domain. What is checked here is that each
value is of its type and that a string is printable, so that it can be an argument of a program.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from libxlsr.domain.config.reader import ITEMS_MAX, Reader
from libxlsr.formats.text import printable

DISK_FORMATS = ("unknown", "qcow", "qcow2", "vhd", "raw", "empty", "qed")
DISK_BACKENDS = ("unknown", "phy", "tap", "qdisk", "standalone")
NIC_TYPES = ("unknown", "vif_ioemu", "vif")

_LETTERED = re.compile(r"(?P<kind>xvd|hd|sd)(?P<letters>[a-z]{1,4})(?P<partition>[1-9]\d{0,2})?\Z")
_NUMBERED = re.compile(r"d(?P<disk>\d{1,7})p(?P<partition>\d{1,3})\Z")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}\Z")
_NO_MAC = "00:00:00:00:00:00"


@dataclass(frozen=True)
class DiskPlace:
    """What a virtual device's name stands for: "hdb" is disk 1 of kind "hd"."""

    kind: str
    """"xvd", "hd" or "sd"."""

    disk: int
    partition: int

    @classmethod
    def of(cls, vdev: str) -> DiskPlace | None:
        """None for a name that libxl finds no disk number for."""
        match = _NUMBERED.match(vdev)
        if match is not None:
            return cls._within("xvd", int(match["disk"]), int(match["partition"]))
        match = _LETTERED.match(vdev)
        if match is None:
            return None
        disk = -1
        for letter in match["letters"]:
            disk = (disk + 1) * 26 + ord(letter) - ord("a")
        return cls._within(match["kind"], disk, int(match["partition"] or 0))

    @classmethod
    def _within(cls, kind: str, disk: int, partition: int) -> DiskPlace | None:
        disks, partitions = {"xvd": (1 << 20, 256), "hd": (4, 64), "sd": (16, 16)}[kind]
        return cls(kind, disk, partition) if disk < disks and partition < partitions else None

    @property
    def number(self) -> int:
        """The device number in xenstore's paths (libxl__device_disk_dev_number)."""
        disk, partition = self.disk, self.partition
        if self.kind == "hd":
            return (3 if disk < 2 else 22) << 8 | (disk & 1) << 6 | partition
        if self.kind == "sd":
            return 8 << 8 | disk << 4 | partition
        if disk < 16 and partition < 16:
            return 202 << 8 | disk << 4 | partition
        return 1 << 28 | disk << 8 | partition


@dataclass(frozen=True)
class Disk:
    """A libxl_device_disk."""

    vdev: str
    path: str | None
    """pdev_path: the file or device; None for an empty drive."""

    format: str
    backend: str
    """"unknown" where libxl chooses by the file."""

    script: str | None
    readwrite: bool
    cdrom: bool
    backend_domain: str | None
    """The name of a driver domain."""

    virtio: bool

    @property
    def place(self) -> DiskPlace | None:
        """What its name stands for; None where libxl doesn't know either."""
        return DiskPlace.of(self.vdev)


@dataclass(frozen=True)
class Nic:
    """A libxl_device_nic."""

    devid: int
    model: str
    mac: str | None
    """None: libxl would make one up."""

    bridge: str
    emulated: bool
    """Whether the device model has a card for it, too."""


@dataclass(frozen=True)
class Vnc:
    """A libxl_vnc_info that is enabled."""

    listen: str
    display: int
    password: str | None
    find_unused: bool


@dataclass(frozen=True)
class Sdl:
    """A libxl_sdl_info that is enabled."""

    display: str | None
    xauthority: str | None


@dataclass(frozen=True)
class Screen:
    """An HVM guest's screen, or the first framebuffer of another; nothing where it has none."""

    vnc: Vnc | None = None
    sdl: Sdl | None = None
    keymap: str | None = None


def read_disks(config: Reader) -> tuple[Disk, ...]:
    """The disks. Raises StreamError."""
    return tuple(
        Disk(
            vdev=disk.text("vdev") or "",
            path=disk.text("pdev_path"),
            format=disk.choice(DISK_FORMATS, "format"),
            backend=disk.choice(DISK_BACKENDS, "backend"),
            script=disk.text("script"),
            readwrite=bool(disk.number("readwrite", default=0)),
            cdrom=bool(disk.number("is_cdrom", default=0)),
            backend_domain=disk.text("backend_domname"),
            virtio=disk.text("specification") == "virtio",
        )
        for disk in config.objects("disks")
    )


def read_nics(config: Reader, *, hvm: bool) -> tuple[Nic, ...]:
    """The network cards. Raises StreamError."""
    nics = []
    used: set[int] = set()
    for nic in config.objects("nics"):
        devid = nic.number("devid", default=-1, minimum=-1, maximum=0xFFFF)
        if devid < 0:
            # libxl__device_nic_set_devids: the lowest that none has so far.
            devid = next(number for number in range(ITEMS_MAX + 1) if number not in used)
        used.add(devid)
        mac = nic.text("mac")
        if mac is not None and not _MAC.match(mac):
            raise nic.wrong(("mac",), f"is '{printable(mac, 40)}'", "six hexadecimal bytes")
        nictype = nic.choice(NIC_TYPES, "nictype")
        nics.append(
            Nic(
                devid=devid,
                model=nic.text("model") or "rtl8139",
                mac=None if mac in (None, _NO_MAC) else mac,
                bridge=nic.text("bridge") or "xenbr0",
                emulated=hvm and nictype != "vif",
            )
        )
    return tuple(nics)


def read_screen(config: Reader, own: Reader, *, hvm: bool) -> Screen:
    """The screen, of which ``own``, b_info's part for the guest's type, tells for an HVM guest.
    Raises StreamError."""
    if hvm:
        place = own
    else:
        framebuffers = config.objects("vfbs")
        if not framebuffers:
            return Screen()
        place = framebuffers[0]
    return Screen(_vnc(place, default=hvm), _sdl(place), place.text("keymap"))


def _vnc(screen: Reader, *, default: bool) -> Vnc | None:
    if not screen.flag("vnc", "enable", default=default):
        return None
    return Vnc(
        listen=screen.text("vnc", "listen") or "127.0.0.1",
        display=screen.number("vnc", "display", default=0, maximum=59635),
        password=screen.text("vnc", "passwd") or None,
        find_unused=screen.flag("vnc", "findunused", default=True),
    )


def _sdl(screen: Reader) -> Sdl | None:
    if not screen.flag("sdl", "enable", default=False):
        return None
    return Sdl(screen.text("sdl", "display"), screen.text("sdl", "xauthority"))
