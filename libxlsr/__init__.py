"""libxlsr reads a Xen guest's saved or migrating image and brings the guest back to life.

The shortest way::

    import libxlsr

    result = libxlsr.restore("guest.save", target="image", output="guest")

On an event loop of your own: `Context`, `restore_ao` and a target. See docs/architecture.md.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, which takes long to import
if TYPE_CHECKING:
    from typing import Any

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
    from libxlsr.operations.helper_limit import HelperLimit
    from libxlsr.operations.progress import Phase, Progress, RestoreResult
    from libxlsr.operations.restore import restore_ao
    from libxlsr.targets.base import Restored, Target
    from libxlsr.targets.image.target import ImageTarget
    from libxlsr.targets.timeouts import Timeouts
    from libxlsr.targets.xen.restore_helper.spare import SpareHelper
    from libxlsr.targets.xen.target import XenOptions, XenTarget

__version__ = "0.1.0"

__all__ = [
    "Aborted",
    "Ao",
    "BackendUnavailable",
    "Context",
    "HelperLimit",
    "ImageTarget",
    "LibxlsrError",
    "Phase",
    "Progress",
    "RestoreResult",
    "Restored",
    "SpareHelper",
    "StreamError",
    "Target",
    "TargetError",
    "TimedOut",
    "Timeouts",
    "UsageError",
    "XenOptions",
    "XenTarget",
    "__version__",
    "restore",
    "restore_ao",
    "run",
]

# A helper's child imports this package too, and is there the sooner the less comes with it.
_HOMES = {
    "Aborted": "libxlsr.errors",
    "Ao": "libxlsr.events",
    "BackendUnavailable": "libxlsr.errors",
    "Context": "libxlsr.events",
    "HelperLimit": "libxlsr.operations.helper_limit",
    "ImageTarget": "libxlsr.targets.image.target",
    "LibxlsrError": "libxlsr.errors",
    "Phase": "libxlsr.operations.progress",
    "Progress": "libxlsr.operations.progress",
    "RestoreResult": "libxlsr.operations.progress",
    "Restored": "libxlsr.targets.base",
    "SpareHelper": "libxlsr.targets.xen.restore_helper.spare",
    "StreamError": "libxlsr.errors",
    "Target": "libxlsr.targets.base",
    "TargetError": "libxlsr.errors",
    "TimedOut": "libxlsr.errors",
    "Timeouts": "libxlsr.targets.timeouts",
    "UsageError": "libxlsr.errors",
    "XenOptions": "libxlsr.targets.xen.target",
    "XenTarget": "libxlsr.targets.xen.target",
    "restore": "libxlsr.operations.blocking",
    "restore_ao": "libxlsr.operations.restore",
    "run": "libxlsr.events",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # here, for the command line to start soon

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
