"""Whether a domain has a device model, and which program it is."""

from __future__ import annotations

import os
import shutil

from libxlsr.domain.config import DomainConfig
from libxlsr.domain.devices.backend import in_qemu
from libxlsr.domain.host import XenHost
from libxlsr.errors import BackendUnavailable, TargetError
from libxlsr.formats.text import printable


def needs_device_model(config: DomainConfig) -> bool:
    """Whether the domain has one (libxl__need_xenpv_qemu).

    Asked before the disks are there: a disk whose backend libxl chooses has QEMU as its backend
    where its format is not raw.
    """
    if config.hvm is not None or "vfbs" in config.device_counts:
        return True
    keyboards = config.json.get("vkbs", ())
    if any(keyboard.get("backend_type") != "linux" for keyboard in keyboards):
        return True
    return any(in_qemu(disk) for disk in config.disks if disk.backend_domain is None)


def program_of(config: DomainConfig, host: XenHost) -> str:
    """The device model's path. Raises BackendUnavailable or TargetError where it can't be run.

    A name without a slash is looked for along PATH, as libxl does from Xen 4.21 on (f628129170).
    """
    chosen = config.device_model
    if chosen is None:
        for path in host.device_models:
            if os.access(path, os.X_OK):
                return str(path)
        raise BackendUnavailable(
            "Xen's QEMU is not installed", remedy="install it (Debian: qemu-system-xen)"
        )
    found = shutil.which(chosen)
    if found is None or not os.path.isabs(found):
        raise TargetError(
            f"the device model {printable(chosen, 200)} is not a program here",
            remedy="set b_info.device_model to one that is: its whole path, or a name along PATH",
        )
    return found
