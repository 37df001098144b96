"""What only a guest of the type "hvm" has: libxl_domain_build_info.u.hvm, and what loads it.

Sources: libxl_types.idl; libxl__domain_build_info_setdefault (libxl_create.c). Its screen is among
the ``devices``.
"""

from __future__ import annotations

from dataclasses import dataclass

from libxlsr.domain.config.reader import Reader
from libxlsr.formats.text import printable

VGA_KINDS = ("unknown", "cirrus", "std", "none", "qxl")
BIOSES = ("unknown", "rombios", "seabios", "ovmf")
SOUND_CARDS = ("ac97", "adlib", "cs4231a", "es1370", "gus", "hda", "sb16")

_VIDEO_MEMKB = {"cirrus": 8 << 10, "std": 16 << 10, "qxl": 128 << 10, "none": 0}


@dataclass(frozen=True)
class Hvm:
    """The hardware and firmware of an HVM guest."""

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
    pae: bool
    pirq: bool
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

    @property
    def default_video_memkb(self) -> int:
        """What libxl gives its card where the configuration does not say, KiB."""
        return _VIDEO_MEMKB[self.vga]


def read_hvm(b_info: Reader, own: Reader) -> Hvm:
    """``b_info``'s HVM half, ``own`` being its ``type.hvm``. Raises StreamError.

    ``pirq`` is on unless the image says otherwise, as it was before an image could say so
    (libxl_domain_create_restore).
    """
    vga = own.choice(VGA_KINDS, "vga", "kind")
    bios = own.choice(BIOSES, "bios")
    serial = own.text("serial")
    usb_device = own.text("usbdevice")
    sound = own.text("soundhw")
    if sound is not None and sound not in SOUND_CARDS:
        raise own.wrong(("soundhw",), f"is '{printable(sound, 40)}'", ", ".join(SOUND_CARDS))
    generation_id = own.numbers("ms_vm_genid", maximum=255)
    if len(generation_id) not in (0, 16):
        raise own.wrong(("ms_vm_genid",), f"has {len(generation_id)} bytes", "16")
    return Hvm(
        bios="seabios" if bios == "unknown" else bios,
        vga="cirrus" if vga == "unknown" else vga,
        boot=own.text("boot") or "cda",
        serial=own.texts("serial_list") if serial is None else (serial,),
        nographic=own.flag("nographic", default=False),
        usb=own.flag("usb", default=False),
        usb_devices=own.texts("usbdevice_list") if usb_device is None else (usb_device,),
        usb_version=own.number("usbversion", default=0, maximum=3),
        sound=sound,
        acpi=b_info.flag("acpi", default=own.flag("acpi", default=True)),
        pae=own.flag("pae", default=True),
        pirq=own.flag("pirq", default=True),
        platform_pci=own.flag("xen_platform_pci", default=True),
        mmio_hole_memkb=own.number("mmio_hole_memkb", default=0, maximum=4 << 20),
        ahci=own.choice(("ide", "ahci"), "hdtype") == "ahci",
        xenserver_device=own.choice(("none", "xenserver"), "vendor_device") == "xenserver",
        vkb=own.flag("vkb_device", default=True),
        hpet=own.flag("hpet", default=True),
        vpt_align=own.flag("vpt_align", default=True),
        mca_caps=own.number("mca_caps", default=0),
        timeoffset=own.text("timeoffset") or "",
        generation_id=bytes(generation_id) if any(generation_id) else None,
        kernel=b_info.text("kernel"),
        ramdisk=b_info.text("ramdisk"),
        cmdline=b_info.text("cmdline"),
    )
