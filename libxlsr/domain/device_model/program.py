"""Whether a domain has a device model, and which program it is."""

from __future__ import annotations

import os

from libxlsr.domain.config import DomainConfig
from libxlsr.domain.host import XenHost
from libxlsr.errors import BackendUnavailable, TargetError
from libxlsr.formats.text import printable


def needs_device_model(config: DomainConfig) -> bool:
    """Whether the domain has one (libxl__need_xenpv_qemu).

    Asked before the disks are there: a disk whose backend libxl chooses has QEMU as its backend
    where its format is not raw.
    """
    devices = config.device_config
    if devices.hvm is not None or config.devices.get("vfbs"):
        return True
    keyboards = config.json.get("vkbs", ())
    if any(keyboard.get("backend_type") != "linux" for keyboard in keyboards):
        return True
    return any(disk.in_qemu() for disk in devices.disks if disk.backend_domain is None)


def program_of(config: DomainConfig, host: XenHost) -> str:
    """The device model's path. Raises BackendUnavailable or TargetError where it can't be run."""
    chosen = config.device_config.program
    if chosen is None:
        for path in host.device_models:
            if os.access(path, os.X_OK):
                return str(path)
        raise BackendUnavailable(
            "Xen's QEMU is not installed", remedy="install it (Debian: qemu-system-xen)"
        )
    if not (os.path.isabs(chosen) and os.path.isfile(chosen) and os.access(chosen, os.X_OK)):
        raise TargetError(
            f"the device model {printable(chosen, 200)} is no program here",
            remedy="set b_info.device_model to one that is, by its whole path",
        )
    return chosen
