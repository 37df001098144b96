"""What libxl keeps beside a domain in files: its configuration, for xl and others.

The names are libxl's (libxl_dom.c, libxl__userdata_path): userdata-<kind>.<domid>.<uuid>.<what>,
kind "d" for data, "n" for a file that is being written, "l" for a lock.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from libxlsr.targets.xen.locks import lock_file
from libxlsr.targets.xen.replaced_file import replace_file

LIB_DIR = Path("/var/lib/xen")
"""XEN_LIB_DIR. Distributions build Xen with localstatedir=/var."""


def _path(kind: str, domid: int, handle: uuid.UUID, what: str, lib_dir: Path) -> Path:
    return lib_dir / f"userdata-{kind}.{domid}.{handle}.{what}"


def store_config(domid: int, handle: uuid.UUID, data: bytes, lib_dir: Path = LIB_DIR) -> None:
    """Store the domain's configuration (JSON and a NUL) where libxl looks for it.

    Raises OSError; then there is no file, or the one that was there before.
    """
    new = _path("n", domid, handle, "libxl-json", lib_dir)
    with lock_file(_path("l", domid, handle, "domain-userdata-lock", lib_dir)):
        replace_file(_path("d", domid, handle, "libxl-json", lib_dir), new, data, 0o600)


def remove_all(domid: int, handle: uuid.UUID, lib_dir: Path = LIB_DIR) -> None:
    """Remove every file that libxl keeps for the domain (libxl__userdata_destroyall).

    Raises OSError.
    """
    for path in lib_dir.glob(f"userdata-[dn].{domid}.{handle}.*"):
        path.unlink(missing_ok=True)
