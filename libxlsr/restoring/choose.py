"""Which target a restore goes to, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from libxlsr.errors import UsageError
from libxlsr.events import Context
from libxlsr.restoring.options import RestoreOptions, TargetName
from libxlsr.restoring.target import Target

CAPABILITIES = Path("/proc/xen/capabilities")
"""xenfs: holds "control_d" in the domain that may create others (drivers/xen/xenfs/super.c)."""


class Choice(NamedTuple):
    """A target's name and a sentence for a person that says why it was chosen."""

    target: Literal["image", "xen"]
    reason: str


def choose(wanted: TargetName) -> Choice:
    """The target for ``wanted``. Raises UsageError where there is none of that name."""
    if wanted not in ("auto", "image", "xen"):
        raise UsageError(f"there is no target {wanted!r}", remedy="choose auto, xen or image")
    if wanted != "auto":
        return Choice(wanted, "as asked for")
    try:
        capabilities = CAPABILITIES.read_text()
    except OSError:
        return Choice("image", f"this is not a Xen host: {CAPABILITIES} can't be read")
    if "control_d" in capabilities:
        return Choice("xen", "this is a Xen host")
    return Choice("image", f"this domain may not create others: {CAPABILITIES} lacks control_d")


def make_target(ctx: Context, options: RestoreOptions) -> Target:
    """The target that the options name. Raises UsageError for options that don't fit it.

    Only that target is imported: each takes longer to import than a small guest to restore.
    """
    if choose(options.target).target == "xen":
        if options.output is not None:
            raise UsageError("an output directory is for offline restores (--target image) only")
        from libxlsr.restoring.xen_target import XenTarget

        return XenTarget(ctx, options)
    if options.output is None:
        raise UsageError(
            "an offline restore needs an output directory", remedy="name one with --output"
        )
    from libxlsr.restoring.image.target import ImageTarget

    return ImageTarget(ctx, Path(options.output))
