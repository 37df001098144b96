"""Which backend a disk gets where libxl chooses it."""

from __future__ import annotations

import os
import stat

from libxlsr.domain.config.devices import Disk


def in_qemu(disk: Disk) -> bool:
    """Whether QEMU is its backend, where libxl chooses by what the path is now
    (libxl__device_disk_set_backend, libxl_device.c)."""
    if disk.backend != "unknown":
        return disk.backend == "qdisk"
    if disk.script is not None or disk.virtio:
        return False
    return disk.format != "raw" or not _is_file_or_device(disk.path)


def _is_file_or_device(path: str | None) -> bool:
    """What the block script takes: a file gets a loop device (libxl__try_phy_backend, Linux)."""
    try:
        mode = os.stat(path).st_mode if path is not None else 0
    except OSError:
        return False
    return stat.S_ISBLK(mode) or stat.S_ISREG(mode)
