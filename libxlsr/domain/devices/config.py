"""What the configuration says of devices and of the device model, typed, with libxl's defaults.

Sources: libxl_types.idl; libxl__domain_build_info_setdefault (libxl_create.c);
libxl__device_disk_setdefault and libxl__device_disk_dev_number (libxl_disk.c, libxl_device.c);
libxl__device_nic_setdefault (libxl_nic.c).

A configuration names programs, files and scripts that run and are opened as root, as xl does it:
an image is to be trusted like the configuration file of a domain. What is checked here is that each
value is of its type and that a string is printable, so that it can be an argument of a program.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from libxlsr.errors import StreamError
from libxlsr.formats import xl
from libxlsr.formats.text import printable

DEVICES_MAX = 1024
"""Of one kind. libxl has no limit; a domain has 1023 event channels for all of them."""

DISK_FORMATS = ("unknown", "qcow", "qcow2", "vhd", "raw", "empty", "qed")
DISK_BACKENDS = ("unknown", "phy", "tap", "qdisk", "standalone")
NIC_TYPES = ("unknown", "vif_ioemu", "vif")
VGA_KINDS = ("unknown", "cirrus", "std", "none", "qxl")
BIOSES = ("unknown", "rombios", "seabios", "ovmf")
SOUND_CARDS = ("ac97", "adlib", "cs4231a", "es1370", "gus", "hda", "sb16")

_VIDEO_MEMKB = {"cirrus": 8 << 10, "std": 16 << 10, "qxl": 128 << 10, "none": 0}

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

    def in_qemu(self) -> bool:
        """Whether QEMU is its backend, where libxl chooses by what the path is now."""
        if self.backend != "unknown":
            return self.backend == "qdisk"
        if self.script is not None or self.virtio:
            return False
        return self.format != "raw" or not _is_file_or_device(self.path)


def _is_file_or_device(path: str | None) -> bool:
    """What the block script takes: a file gets a loop device (libxl__try_phy_backend, Linux)."""
    try:
        mode = os.stat(path).st_mode if path is not None else 0
    except OSError:
        return False
    return stat.S_ISBLK(mode) or stat.S_ISREG(mode)


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
class Hvm:
    """What only an HVM guest has."""

    bios: str
    vga: str
    boot: str
    serial: tuple[str, ...]
    nographic: bool
    usb: bool
    usb_devices: tuple[str, ...]
    usb_version: int
    sound: str | None
    acpi: bool
    platform_pci: bool
    mmio_hole_memkb: int
    ahci: bool
    xenserver_device: bool
    vkb: bool
    hpet: bool
    vpt_align: bool
    mca_caps: int
    timeoffset: str
    generation_id: bytes | None
    kernel: str | None
    ramdisk: str | None
    cmdline: str | None


@dataclass(frozen=True)
class DeviceConfig:
    """Devices and device model of a domain."""

    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    hvm: Hvm | None
    vnc: Vnc | None
    """The HVM guest's screen, or the first framebuffer of another; so with the next two."""

    sdl: Sdl | None
    keymap: str | None
    program: str | None
    """The device model; None for the one that Xen came with."""

    extra: tuple[str, ...]
    extra_of_type: tuple[str, ...]
    unsupported: tuple[str, ...]
    """What the configuration asks for that can't be done here, in words."""


def read_devices(config: xl.Config) -> DeviceConfig:
    """The typed devices. Raises StreamError for what is of a wrong type or range."""
    reader = _Reader(config)
    kind = config.domain_type
    own = ("b_info", f"type.{kind}")
    graphics: dict[str, Any] = {}
    if kind == "hvm":
        graphics = reader.object(*own)
    else:
        framebuffers = reader.objects("vfbs")
        if framebuffers:
            graphics = framebuffers[0]
    screen = _Reader(xl.Config(b"", graphics, config.offset), at="graphics.")
    return DeviceConfig(
        disks=tuple(
            _disk(_Reader(xl.Config(b"", item, config.offset), at="disks."))
            for item in reader.objects("disks")
        ),
        nics=_nics(reader, kind),
        hvm=_hvm(reader, own) if kind == "hvm" else None,
        vnc=_vnc(screen, default=kind == "hvm"),
        sdl=_sdl(screen),
        keymap=screen.text("keymap"),
        program=reader.text("b_info", "device_model"),
        extra=reader.texts("b_info", "extra"),
        extra_of_type=reader.texts("b_info", "extra_hvm" if kind == "hvm" else "extra_pv"),
        unsupported=tuple(_unsupported(reader, own, kind)),
    )


def default_video_memkb(config: xl.Config) -> int:
    """What libxl gives an HVM guest's card where the configuration does not say, KiB."""
    kind = _Reader(config).choice(VGA_KINDS, "b_info", "type.hvm", "vga", "kind")
    return _VIDEO_MEMKB["cirrus" if kind == "unknown" else kind]


def _disk(reader: _Reader) -> Disk:
    return Disk(
        vdev=reader.text("vdev") or "",
        path=reader.text("pdev_path"),
        format=reader.choice(DISK_FORMATS, "format"),
        backend=reader.choice(DISK_BACKENDS, "backend"),
        script=reader.text("script"),
        readwrite=bool(reader.number("readwrite", default=0)),
        cdrom=bool(reader.number("is_cdrom", default=0)),
        backend_domain=reader.text("backend_domname"),
        virtio=reader.text("specification") == "virtio",
    )


def _nics(config: _Reader, kind: str) -> tuple[Nic, ...]:
    nics = []
    used: set[int] = set()
    for item in config.objects("nics"):
        reader = _Reader(xl.Config(b"", item, config.offset), at="nics.")
        devid = reader.number("devid", default=-1, minimum=-1, maximum=0xFFFF)
        if devid < 0:
            # libxl__device_nic_set_devids: the lowest that none has so far.
            devid = next(number for number in range(DEVICES_MAX + 1) if number not in used)
        used.add(devid)
        mac = reader.text("mac")
        if mac is not None and not _MAC.match(mac):
            raise reader.wrong(("mac",), f"is '{printable(mac, 40)}'", "six hexadecimal bytes")
        nictype = reader.choice(NIC_TYPES, "nictype")
        nics.append(
            Nic(
                devid=devid,
                model=reader.text("model") or "rtl8139",
                mac=None if mac in (None, _NO_MAC) else mac,
                bridge=reader.text("bridge") or "xenbr0",
                emulated=kind == "hvm" and nictype != "vif",
            )
        )
    return tuple(nics)


def _vnc(reader: _Reader, *, default: bool) -> Vnc | None:
    if not reader.flag("vnc", "enable", default=default):
        return None
    return Vnc(
        listen=reader.text("vnc", "listen") or "127.0.0.1",
        display=reader.number("vnc", "display", default=0, maximum=59635),
        password=reader.text("vnc", "passwd") or None,
        find_unused=reader.flag("vnc", "findunused", default=True),
    )


def _sdl(reader: _Reader) -> Sdl | None:
    if not reader.flag("sdl", "enable", default=False):
        return None
    return Sdl(reader.text("sdl", "display"), reader.text("sdl", "xauthority"))


def _hvm(reader: _Reader, own: tuple[str, ...]) -> Hvm:
    vga = reader.choice(VGA_KINDS, *own, "vga", "kind")
    bios = reader.choice(BIOSES, *own, "bios")
    serial = reader.text(*own, "serial")
    usb_device = reader.text(*own, "usbdevice")
    sound = reader.text(*own, "soundhw")
    if sound is not None and sound not in SOUND_CARDS:
        raise reader.wrong(
            (*own, "soundhw"), f"is '{printable(sound, 40)}'", ", ".join(SOUND_CARDS)
        )
    acpi = reader.flag("b_info", "acpi", default=reader.flag(*own, "acpi", default=True))
    generation_id = reader.numbers(*own, "ms_vm_genid", maximum=255)
    if len(generation_id) not in (0, 16):
        raise reader.wrong((*own, "ms_vm_genid"), f"has {len(generation_id)} bytes", "16")
    return Hvm(
        bios="seabios" if bios == "unknown" else bios,
        vga="cirrus" if vga == "unknown" else vga,
        boot=reader.text(*own, "boot") or "cda",
        serial=reader.texts(*own, "serial_list") if serial is None else (serial,),
        nographic=reader.flag(*own, "nographic", default=False),
        usb=reader.flag(*own, "usb", default=False),
        usb_devices=(reader.texts(*own, "usbdevice_list") if usb_device is None else (usb_device,)),
        usb_version=reader.number(*own, "usbversion", default=0, maximum=3),
        sound=sound,
        acpi=acpi,
        platform_pci=reader.flag(*own, "xen_platform_pci", default=True),
        mmio_hole_memkb=reader.number(*own, "mmio_hole_memkb", default=0, maximum=4 << 20),
        ahci=reader.choice(("ide", "ahci"), *own, "hdtype") == "ahci",
        xenserver_device=reader.choice(("none", "xenserver"), *own, "vendor_device") == "xenserver",
        vkb=reader.flag(*own, "vkb_device", default=True),
        hpet=reader.flag(*own, "hpet", default=True),
        vpt_align=reader.flag(*own, "vpt_align", default=True),
        mca_caps=reader.number(*own, "mca_caps", default=0),
        timeoffset=reader.text(*own, "timeoffset") or "",
        generation_id=bytes(generation_id) if any(generation_id) else None,
        kernel=reader.text("b_info", "kernel"),
        ramdisk=reader.text("b_info", "ramdisk"),
        cmdline=reader.text("b_info", "cmdline"),
    )


def _unsupported(reader: _Reader, own: tuple[str, ...], kind: str) -> list[str]:
    found = []
    version = reader.text("b_info", "device_model_version")
    if version not in (None, "unknown", "qemu_xen"):
        found.append(f"its device model is {printable(version or '', 40)}, which no Xen runs today")
    if reader.flag("b_info", "device_model_stubdomain", default=False):
        found.append("its device model runs in a stub domain, which can't be restored")
    if reader.flag("b_info", "dm_restrict", default=False):
        found.append("its device model is restricted (dm_restrict), which can't be restored")
    for member, what in (("ioports", "I/O ports"), ("irqs", "IRQs"), ("iomem", "I/O memory")):
        if reader.config.value("b_info", member):
            found.append(f"it has {what} of the host, which can't be restored")
    if kind != "hvm":  # libxl, too, runs the device model of others as root
        return found
    user = reader.text("b_info", "device_model_user")
    if user is not None:
        found.append(
            f"its device model runs as the user {printable(user, 40)}, which can't be restored "
            "(let it be root with --config-override b_info.device_model_user=null)"
        )
    if reader.choice(BIOSES, *own, "bios") == "rombios":
        found.append("its BIOS is rombios, which no device model has today")
    if reader.flag(*own, "spice", "enable", default=False):
        found.append("it has a SPICE display, which can't be restored")
    if reader.flag(*own, "gfx_passthru", default=False):
        found.append("it has a graphics card passed through, which can't be restored")
    return found


class _Reader:
    """Reads members, each checked for its type."""

    def __init__(self, config: xl.Config, at: str = "") -> None:
        self.config = config
        self.offset = config.offset
        self._at = at

    def flag(self, *path: str, default: bool) -> bool:
        value = self.config.defbool(*path)
        return default if value is None else value

    def number(self, *path: str, default: int, minimum: int = 0, maximum: int = 2**64 - 1) -> int:
        value = self.config.integer(*path, minimum=minimum, maximum=maximum)
        return default if value is None else value

    def text(self, *path: str) -> str | None:
        """A printable string, None where there is none or it is empty."""
        return self._printable(self.config.string(*path), path) or None

    def choice(self, names: Sequence[str], *path: str) -> str:
        """One of the names, the first where the configuration has none."""
        value = self.config.string(*path)
        if value is None:
            return names[0]
        if value not in names:
            raise self.wrong(path, f"is '{printable(value, 40)}'", ", ".join(names))
        return value

    def texts(self, *path: str) -> tuple[str, ...]:
        items = self._list(*path)
        if not all(isinstance(item, str) for item in items):
            raise self.wrong(path, "is no list of strings", None)
        return tuple(self._printable(item, path) or "" for item in items)

    def numbers(self, *path: str, maximum: int) -> list[int]:
        items = self._list(*path)
        if not all(
            isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= maximum
            for item in items
        ):
            raise self.wrong(path, "is no list of numbers", f"0 to {maximum}")
        return items

    def object(self, *path: str) -> dict[str, Any]:
        value = self.config.value(*path)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.wrong(path, "is no object", None)
        return value

    def objects(self, *path: str) -> list[dict[str, Any]]:
        items = self._list(*path)
        if not all(isinstance(item, dict) for item in items):
            raise self.wrong(path, "is no list of objects", None)
        return items

    def _list(self, *path: str) -> list[Any]:
        value = self.config.value(*path)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > DEVICES_MAX:
            raise self.wrong(path, "is no list of that many", f"at most {DEVICES_MAX}")
        return value

    def _printable(self, untrusted: str | None, path: tuple[str, ...]) -> str | None:
        if untrusted is not None and not untrusted.isprintable():
            raise self.wrong(path, f"is '{printable(untrusted, 60)}'", "printable characters")
        return untrusted

    def wrong(self, path: tuple[str, ...], what: str, expected: str | None) -> StreamError:
        return StreamError(
            f"{self._at}{'.'.join(path)} {what}",
            offset=self.offset,
            record="xl domain configuration",
            expected=expected,
        )
