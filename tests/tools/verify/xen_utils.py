"""Xen's own Python tools, of Debian's package xen-utils-4.17, where there are any.

``apt-get install xen-utils-4.17``, or without installing it and all that it wants: ``apt-get
download xen-utils-4.17 && dpkg -x xen-utils-4.17_*.deb DIR``, and LIBXLSR_XEN_UTILS=DIR.
"""

from __future__ import annotations

import os
from pathlib import Path

_HOME = next(Path(os.environ.get("LIBXLSR_XEN_UTILS", "/"), "usr/lib").glob("xen-4.*/bin"), None)


def script(name: str) -> Path | None:
    """The path of a tool; None where it is not installed."""
    path = None if _HOME is None else _HOME / name
    return path if path is not None and path.exists() else None


def environment() -> dict[str, str]:
    """What a tool has to be run with: as packaged it does not find its own modules."""
    assert _HOME is not None
    return {**os.environ, "PYTHONPATH": str(_HOME.parent / "lib" / "python")}
