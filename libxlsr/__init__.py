"""libxlsr reads a Xen guest's saved or migrating image and brings the guest back to life.

The shortest way::

    import libxlsr

    result = libxlsr.restore("guest.save", target="image", output="guest")

On an event loop of your own: `Context`, `restore_ao` and a target. See docs/architecture.md.
"""

from __future__ import annotations

from libxlsr.errors import (
    Aborted,
    BackendUnavailable,
    LibxlsrError,
    StreamError,
    TargetError,
    TimedOut,
    UsageError,
)
from libxlsr.events import Ao, Context, run
from libxlsr.operations.blocking import restore
from libxlsr.operations.progress import Phase, Progress, RestoreResult
from libxlsr.operations.restore import restore_ao
from libxlsr.targets.base import Restored, Target
from libxlsr.targets.image import ImageTarget
from libxlsr.targets.xen.target import XenOptions, XenTarget

__version__ = "0.1.0"

__all__ = [
    "Aborted",
    "Ao",
    "BackendUnavailable",
    "Context",
    "ImageTarget",
    "LibxlsrError",
    "Phase",
    "Progress",
    "RestoreResult",
    "Restored",
    "StreamError",
    "Target",
    "TargetError",
    "TimedOut",
    "UsageError",
    "XenOptions",
    "XenTarget",
    "__version__",
    "restore",
    "restore_ao",
    "run",
]
