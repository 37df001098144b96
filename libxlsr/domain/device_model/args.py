"""QEMU's arguments and environment, as libxl gives them for a restored domain.

Source: libxl__build_device_model_args_new (libxl_dm.c). The order is libxl's: QEMU gives devices
their places in the order of its arguments, and a guest's state fits one machine only.

A value inside an option's list is separated from the next by a comma; one that has a comma itself
is written with two, as QEMU reads it. libxl leaves it as it is, and QEMU refuses it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from libxlsr.domain.config import DomainConfig
from libxlsr.domain.config.devices import Disk, DiskPlace, Vnc
from libxlsr.domain.config.hvm import Hvm
from libxlsr.errors import UsageError

log = logging.getLogger(__name__)

BELOW_4G_MMIO_START = 0xF0000000
"""HVM_BELOW_4G_MMIO_START (xen/include/public/hvm/e820.h)."""

IDE_DISKS, AHCI_DISKS, CDROMS = 4, 6, 4

_FORMATS = {"qcow": "qcow", "qcow2": "qcow2", "vhd": "vpc", "raw": "raw", "qed": "qed"}


@dataclass(frozen=True)
class Sockets:
    """The two sockets on which a device model speaks QMP."""

    toolstack: str
    """libxl's, and ours."""

    statistics: str
    """xentop's and others' (libxenstat)."""

    @classmethod
    def of(cls, domid: int, run_dir: Path) -> Sockets:
        return cls(f"{run_dir}/qmp-libxl-{domid}", f"{run_dir}/qmp-libxenstat-{domid}")


def arguments(
    program: str,
    config: DomainConfig,
    domid: int,
    *,
    sockets: Sockets,
    state_fd: int | None,
    script_paths: Mapping[str, str] | None = None,
) -> list[str]:
    """The whole argument vector.

    ``state_fd`` is where an HVM guest's device model is read from. ``script_paths`` are where the
    scripts of disks, by their vdev, have put them.
    """
    hvm, screen = config.hvm, config.screen
    args = [program, "-xen-domid", str(domid), "-no-shutdown"]
    for name, path in (("libxl-cmd", sockets.toolstack), ("libxenstat-cmd", sockets.statistics)):
        args += ["-chardev", f"socket,id={name},path={_value(path)},server=on,wait=off"]
        args += ["-mon", f"chardev={name},mode=control"]
    args += ["-nodefaults", "-no-user-config"]
    if hvm is None:
        args += ["-xen-attach"]
    args += ["-name", _value(config.name)]
    args += ["-vnc", "none" if screen.vnc is None else _vnc(screen.vnc)]
    args += ["-display", "none"]
    if screen.sdl is not None:
        args += ["-display", "sdl"]
    if screen.keymap is not None:
        args += ["-k", screen.keymap]
    no_screen = screen.sdl is None and screen.vnc is None
    if hvm is not None:
        args += _hvm_devices(config, hvm, domid, no_screen=no_screen)
    elif no_screen:
        args += ["-nographic"]
    if state_fd is not None:
        args += ["-incoming", f"fd:{state_fd}"]
    args += config.device_model_args
    args += ["-machine", "xenpv" if hvm is None else _machine(hvm)]
    args += config.device_model_args_of_type
    args += ["-m", str(_mib(config.max_memkb - config.video_memkb))]
    if hvm is not None:
        args += _disks(config, hvm, script_paths or {})
        if hvm.xenserver_device:
            args += ["-device", "xen-pvdevice,device-id=0xc000"]
    return args


def environment(config: DomainConfig, domid: int) -> dict[str, str]:
    """What the device model's environment has besides ours."""
    # XSA-180: Xen's own QEMU writes no more than that to its log.
    env = {"XEN_QEMU_CONSOLE_LIMIT": "1048576"}
    sdl = config.screen.sdl
    if sdl is not None and sdl.display is not None:
        env["DISPLAY"] = sdl.display
    if sdl is not None and sdl.xauthority is not None:
        env["XAUTHORITY"] = sdl.xauthority
    if config.hvm is not None:
        env["XEN_DOMAIN_ID"] = str(domid)
    return env


def _value(text: str) -> str:
    """A value in an option's list."""
    return text.replace(",", ",,")


def _mib(kib: int) -> int:
    """libxl__sizekb_to_mb: rounded up."""
    return -(-kib // 1024)


def _vnc(vnc: Vnc) -> str:
    if ":" in vnc.listen:
        if vnc.display:
            raise UsageError("the VNC address names a display, and another is set")
        text = _value(vnc.listen)
    else:
        text = f"{_value(vnc.listen)}:{vnc.display}"
    if vnc.password is not None:
        text += ",password=on"
    if vnc.find_unused:
        text += ",to=99"
    return text


def _hvm_devices(config: DomainConfig, hvm: Hvm, domid: int, *, no_screen: bool) -> Iterator[str]:
    for option, value in (
        ("-kernel", hvm.kernel),
        ("-initrd", hvm.ramdisk),
        ("-append", hvm.cmdline),
    ):
        if value is not None:
            yield from (option, value)
    # Ahead of the other cards, so that it keeps its PCI slot.
    if any(disk.vdev.startswith("sd") and not disk.cdrom for disk in config.disks):
        yield from ("-device", "lsi53c895a")
    for line in hvm.serial:
        yield from ("-serial", line)
    if hvm.nographic and no_screen:
        yield "-nographic"
    yield from _vga(config, hvm)
    yield from ("-boot", f"order={_value(hvm.boot)}")
    yield from _usb(hvm)
    if hvm.sound == "hda":
        yield from ("-device", "intel-hda", "-device", "hda-duplex")
    elif hvm.sound is not None:
        yield from ("-device", hvm.sound)
    if not hvm.acpi:
        yield "-no-acpi"
    if config.max_vcpus > 1:
        yield from ("-smp", f"{len(config.avail_vcpus)},maxcpus={config.max_vcpus}")
    emulated = [nic for nic in config.nics if nic.emulated]
    for nic in emulated:
        if nic.mac is None:
            raise UsageError(f"network card {nic.devid} has no MAC address")
        number = nic.devid
        yield from (
            "-device",
            f"{_value(nic.model)},id=nic{number},netdev=net{number},mac={nic.mac}",
        )
        yield from (
            "-netdev",
            f"type=tap,id=net{number},ifname=vif{domid}.{number}-emu,br={_value(nic.bridge)},"
            "script=no,downscript=no",
        )
    if not emulated:
        yield from ("-net", "none")


def _vga(config: DomainConfig, hvm: Hvm) -> Iterator[str]:
    if hvm.vga == "qxl":
        half = config.video_memkb // 2 // 1024
        yield from ("-device", f"qxl-vga,vram_size_mb={half},ram_size_mb={half}")
    elif hvm.vga != "none":
        card = {"std": "VGA", "cirrus": "cirrus-vga"}[hvm.vga]
        yield from ("-device", f"{card},vgamem_mb={_mib(config.video_memkb)}")


def _usb(hvm: Hvm) -> Iterator[str]:
    if hvm.usb or hvm.usb_devices:
        yield "-usb"
        for device in hvm.usb_devices:
            yield from ("-usbdevice", device)
    elif hvm.usb_version == 1:
        yield from ("-device", "piix3-usb-uhci,id=usb")
    elif hvm.usb_version == 2:
        yield from ("-device", "ich9-usb-ehci1,id=usb,addr=0x1d.0x7,multifunction=on")
        for number in (1, 2, 3):
            yield from (
                "-device",
                f"ich9-usb-uhci{number},masterbus=usb.0,firstport={2 * (number - 1)},"
                f"addr=0x1d.{number - 1:#x},multifunction=on",
            )
    elif hvm.usb_version == 3:
        yield from ("-device", "nec-usb-xhci,id=usb")


def _machine(hvm: Hvm) -> str:
    machine = "xenfv" if hvm.platform_pci else "pc,accel=xen"
    machine += ",suppress-vmdesc=on"
    if hvm.mmio_hole_memkb:
        below = (1 << 32) - (hvm.mmio_hole_memkb << 10)
        if below <= BELOW_4G_MMIO_START:
            machine += f",max-ram-below-4g={below}"
    return machine


def _disks(config: DomainConfig, hvm: Hvm, script_paths: Mapping[str, str]) -> Iterator[str]:
    if hvm.ahci:
        yield from ("-device", "ahci,id=ahci0")
    for disk in config.disks:
        place = disk.place
        if place is None:
            log.warning("the device model has no drive for %s: its number is not known", disk.vdev)
        else:
            path = disk.path if disk.script is None else script_paths.get(disk.vdev)
            yield from _drive(disk, place, hvm, path)


def _drive(disk: Disk, place: DiskPlace, hvm: Hvm, path: str | None) -> Iterator[str]:
    number = place.disk
    image = _FORMATS.get(disk.format, "raw")
    local = path is not None and disk.format != "empty" and disk.backend_domain is None
    path = _value(path or "")
    if disk.cdrom:
        if number > CDROMS:
            return
        name = f"ide-{place.number}"
        drive = f"if=none,readonly=on,id={name}"
        if local:
            drive += f",file={path},format={image}"
        bus = f"bus=ide.{number // 2},unit={number % 2}"
        yield from ("-drive", drive, "-device", f"ide-cd,id={name},drive={name},{bus}")
        return
    # Others are the guest's through its own drivers only.
    if not local or disk.virtio:
        return
    if disk.vdev.startswith("sd"):
        name = f"scsi0-hd{number}"
        access = "off" if disk.readwrite else "on"
        yield from (
            "-drive",
            f"file={path},id={name},format={image},if=none,readonly={access},cache=writeback",
            "-device",
            f"scsi-hd,drive={name},scsi-id={number}",
        )
        return
    if number >= (AHCI_DISKS if hvm.ahci else IDE_DISKS):
        return
    if not disk.readwrite:
        kind = "AHCI" if hvm.ahci else "IDE"
        raise UsageError(
            f"disk {disk.vdev} is read-only, and QEMU has no read-only {kind} disks",
        )
    if hvm.ahci:
        name = f"ahcidisk-{number}"
        yield from (
            "-drive",
            f"file={path},if=none,id={name},format={image},cache=writeback",
            "-device",
            f"ide-hd,bus=ahci0.{number},unit=0,drive={name}",
        )
    else:
        yield from (
            "-drive",
            f"file={path},if=ide,index={number},media=disk,format={image},cache=writeback",
        )
