"""Targets: where a restore puts the guest.

A *target* is what a restore needs from below: prepare, run the libxc part on the fd, take the
emulator records, finish, or roll back. ``targets.image`` does it offline, into files;
``targets.xen`` does it on a Xen host. The conformance suite of ``libxlsr.testing`` runs against
both.
"""

from __future__ import annotations

from libxlsr.formats.checkpoint import CheckpointReply
from libxlsr.targets.base import (
    CheckpointDone,
    Done,
    FinishDone,
    ImageDescription,
    LibxcDone,
    LibxcOutcome,
    LibxcStream,
    Restored,
    Target,
    TargetHooks,
)

__all__ = [
    "CheckpointDone",
    "CheckpointReply",
    "Done",
    "FinishDone",
    "ImageDescription",
    "LibxcDone",
    "LibxcOutcome",
    "LibxcStream",
    "Restored",
    "Target",
    "TargetHooks",
]
