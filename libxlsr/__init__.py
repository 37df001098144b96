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

    from libxlsr import aio
    from libxlsr.domain.save_helper.spare import SpareHelper
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
    from libxlsr.restoring.blocking import restore
    from libxlsr.restoring.helper_limit import HelperLimit
    from libxlsr.restoring.image.target import ImageTarget
    from libxlsr.restoring.operation import restore_ao
    from libxlsr.restoring.options import RestoreOptions, TargetName
    from libxlsr.restoring.progress import Phase, Progress, RestoreResult
    from libxlsr.restoring.target import Restored, Target
    from libxlsr.restoring.timeouts import Timeouts
    from libxlsr.restoring.xen_target import XenTarget

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
    "RestoreOptions",
    "RestoreResult",
    "Restored",
    "SpareHelper",
    "StreamError",
    "Target",
    "TargetError",
    "TargetName",
    "TimedOut",
    "Timeouts",
    "UsageError",
    "XenTarget",
    "__version__",
    "aio",
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
    "HelperLimit": "libxlsr.restoring.helper_limit",
    "ImageTarget": "libxlsr.restoring.image.target",
    "LibxlsrError": "libxlsr.errors",
    "Phase": "libxlsr.restoring.progress",
    "Progress": "libxlsr.restoring.progress",
    "RestoreOptions": "libxlsr.restoring.options",
    "RestoreResult": "libxlsr.restoring.progress",
    "Restored": "libxlsr.restoring.target",
    "SpareHelper": "libxlsr.domain.save_helper.spare",
    "StreamError": "libxlsr.errors",
    "Target": "libxlsr.restoring.target",
    "TargetError": "libxlsr.errors",
    "TargetName": "libxlsr.restoring.options",
    "TimedOut": "libxlsr.errors",
    "Timeouts": "libxlsr.restoring.timeouts",
    "UsageError": "libxlsr.errors",
    "XenTarget": "libxlsr.restoring.xen_target",
    "restore": "libxlsr.restoring.blocking",
    "restore_ao": "libxlsr.restoring.operation",
    "run": "libxlsr.events",
}

_SUBPACKAGES = ("aio",)


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first asked for."""
    if name not in _HOMES and name not in _SUBPACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # here, for the command line to start soon

    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
