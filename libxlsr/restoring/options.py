"""What the caller of a restore may ask for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from libxlsr.domain.save_helper.spare import SpareHelper
from libxlsr.events.seconds import check_deadline
from libxlsr.formats import xl
from libxlsr.restoring.helper_limit import HelperLimit
from libxlsr.restoring.timeouts import Timeouts
from libxlsr.stream.reader_machine import Trace

TargetName = Literal["auto", "image", "xen"]
"""Where a guest may be restored: "image" is offline, into files; "xen" is a domain; "auto" is a
domain where this is a Xen host, and files elsewhere."""


@dataclass(frozen=True)
class RestoreOptions:
    """How an image is to be restored; the same for the blocking call, an ao and asyncio.

    Raises UsageError for a deadline that is not a number of seconds.
    """

    target: TargetName = "auto"
    output: str | os.PathLike[str] | None = None
    """For "image": the directory to make, which must not exist."""

    # The domain.

    config: xl.Config | None = None
    """Stands in for the configuration of an image that has none."""
    overrides: Sequence[tuple[str, str]] = ()
    """For "xen": (key, value) pairs of `libxlsr.domain.config.overrides.apply_overrides`."""
    paused: bool = False
    """For "xen": leave the domain paused."""
    balloon: bool = False
    """For "xen": let dom0 give up memory where the host lacks it, for one restore at a time."""

    # The image.

    legacy: bool = False
    """An image that is not recognised is one of Xen 4.5 or older."""
    to_eof: bool | None = None
    """Refuse anything that follows the image: right for a file, wrong for a migration's connection.
    None: refuse it after a path, not on an fd. A compressed image is always read to its end, where
    its checksum is."""

    # The operation.

    deadline: float | None = None
    """For the whole, in seconds from its start."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    """For each wait within it."""
    limit: HelperLimit | None = None
    """Shared with other restores whose helpers are not to run all at the same time."""
    spare_helper: SpareHelper | None = None
    """For "xen": has a helper ready, on the context of the restore."""
    trace: Trace | None = None
    """Told of each transition of the stream's machine."""
    name: str | None = None
    """The restore's name in log records (default: its path, or the fd's number)."""

    def __post_init__(self) -> None:
        check_deadline(self.deadline)
