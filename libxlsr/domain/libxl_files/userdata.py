"""What libxl keeps beside a domain in files: its configuration, for xl and others.

The names are libxl's (libxl_dom.c, libxl__userdata_path): userdata-<kind>.<domid>.<uuid>.<what>,
kind "d" for data, "n" for a file that is being written, "l" for a lock.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from libxlsr.domain.libxl_files.locks import lock_file
from libxlsr.domain.libxl_files.replaced_file import replace_file
from libxlsr.formats import xl


def _path(kind: str, domid: int, handle: uuid.UUID, what: str, lib_dir: Path) -> Path:
    return lib_dir / f"userdata-{kind}.{domid}.{handle}.{what}"


NOTED_BY_LIBXL = {"disks": "vdev", "nics": "devid"}
"""The lists of devices in which libxl notes what it attaches, and by what it tells them apart."""

TAKE_DEVICE_MODEL = ("vfbs", "vkbs")
"""The other lists with which libxl attaches nothing while no device model runs."""


def without_attached(tree: Mapping[str, Any]) -> bytes:
    """The configuration as it is before libxl attaches devices and notes each.

    With anything in it that takes a device model libxl would attach no device before that runs.
    """
    left_out = (*NOTED_BY_LIBXL, *TAKE_DEVICE_MODEL)
    kept = {name: value for name, value in tree.items() if name not in left_out}
    return xl.Config.from_json(kept).raw


def with_attached(tree: Mapping[str, Any], attached: Mapping[str, Any]) -> bytes:
    """The configuration with the devices as libxl has noted them, in the order of ``tree``."""
    lists = {}
    for name, key in NOTED_BY_LIBXL.items():
        if name in tree or name in attached:
            order = [item.get(key) for item in tree.get(name, ())]
            found = list(attached.get(name, ()))
            if all(item.get(key) in order for item in found):
                found.sort(key=lambda item: order.index(item.get(key)))
            lists[name] = found
    return xl.Config.from_json({**tree, **lists}).raw


def load_config(domid: int, handle: uuid.UUID, lib_dir: Path) -> dict[str, Any]:
    """The stored configuration. Raises OSError, StreamError where it is none."""
    return xl.Config.decode(_path("d", domid, handle, "libxl-json", lib_dir).read_bytes()).json


def store_config(domid: int, handle: uuid.UUID, data: bytes, lib_dir: Path) -> None:
    """Store the domain's configuration (JSON and a NUL) where libxl looks for it.

    Raises OSError; then there is no file, or the one that was there before.
    """
    new = _path("n", domid, handle, "libxl-json", lib_dir)
    with lock_file(_path("l", domid, handle, "domain-userdata-lock", lib_dir)):
        replace_file(_path("d", domid, handle, "libxl-json", lib_dir), new, data, 0o600)


def remove_all(domid: int, handle: uuid.UUID, lib_dir: Path) -> None:
    """Remove every file that libxl keeps for the domain (libxl__userdata_destroyall).

    Raises OSError.
    """
    for path in lib_dir.glob(f"userdata-[dn].{domid}.{handle}.*"):
        path.unlink(missing_ok=True)
