"""Which target a restore goes to, and why."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

CAPABILITIES = Path("/proc/xen/capabilities")
"""xenfs: holds "control_d" in the domain that may create others (drivers/xen/xenfs/super.c)."""


class Choice(NamedTuple):
    """A target's name and a sentence for a person that says why it was chosen."""

    target: str
    reason: str


def choose(wanted: str) -> Choice:
    """The target for ``wanted``: "xen", "image", or "auto" for what this machine is."""
    if wanted != "auto":
        return Choice(wanted, "as asked for")
    try:
        capabilities = CAPABILITIES.read_text()
    except OSError:
        return Choice("image", f"this is no Xen host: {CAPABILITIES} can't be read")
    if "control_d" in capabilities:
        return Choice("xen", "this is a Xen host")
    return Choice("image", f"this domain may not create others: {CAPABILITIES} lacks control_d")
