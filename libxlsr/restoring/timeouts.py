"""How long a restore waits for others. What it waits for is there, or it fails with TimedOut."""

from __future__ import annotations

from dataclasses import dataclass, fields

from libxlsr.events.seconds import check_limit


@dataclass(frozen=True)
class Timeouts:
    """Seconds for each wait; None: for ever, or until the deadline of the whole. Raises UsageError
    for what is no time to wait.

    The defaults are libxl's (libxl_internal.h), which has none for `silence` and `helper`.
    """

    silence: float | None = None
    """For the sender, who sends nothing. It is noticed within 1.25 times the limit. With the target
    "xen" no shorter than 4 MiB need: libxenguest tells no smaller steps."""
    helper: float | None = None
    """For the helpers, who neither take any of their input, which is there, nor come any further
    with what they have. Noticed as `silence` is, and as coarse with the target "xen"."""
    device_model: float | None = 60.0
    """For a device model that has been started (LIBXL_DEVICE_MODEL_START_TIMEOUT)."""
    hotplug: float | None = 40.0
    """For a device and its hotplug script, on top of the 10 s that libxl gives its back end.
    libxl's own limit, LIBXL_HOTPLUG_TIMEOUT of 40 s, holds as well."""

    def __post_init__(self) -> None:
        for field in fields(self):
            check_limit(getattr(self, field.name), f"the timeout {field.name}")
