"""The Xen host that a domain is restored on: how it is reached, and where its files are."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Callable

from libxlsr.domain.device_model.process import Process
from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import Context
from libxlsr.helper.parent import (
    CallCallback,
    Helper,
    HelperDone,
    LogCallback,
    ProgressCallback,
)
from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenstore import Xenstore

DEVICE_MODELS = (
    "usr/libexec/xen-qemu-system-i386",
    "usr/lib/xen/bin/qemu-system-i386",
    "usr/libexec/xen/bin/qemu-system-i386",
    "usr/local/lib/xen/bin/qemu-system-i386",
    "usr/bin/qemu-system-i386",
    "usr/local/bin/qemu-system-i386",
    "usr/bin/qemu-system-x86_64",
)
"""Where Xen's QEMU is: Debian, Xen's own build, distributions with one QEMU for all. libxl has the
path compiled in, and tells it to nobody."""


class XenHost:
    """The machine that this program runs on. `libxlsr.testing.fake_xen` has one without a Xen.

    Its files are below ``root``, where distributions have them: they build Xen with
    localstatedir=/var and sysconfdir=/etc.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.run_dir = root / "var/run/xen"
        """XEN_RUN_DIR."""
        self.lib_dir = root / "var/lib/xen"
        """XEN_LIB_DIR."""
        self.log_dir = root / "var/log/xen"
        """XEN_LOG_DIR."""
        self.script_dir = root / "etc/xen/scripts"
        """XEN_SCRIPT_DIR, of the hotplug scripts."""
        self.lock_file = root / "var/lock/xl"
        """XL_LOCK_FILE. xl.conf's ``lockfile`` is not looked at."""
        self.proc = root / "proc"
        self.sys = root / "sys"
        self.device_models = [root / path for path in DEVICE_MODELS]
        """The device models to choose from, the first that is there."""

    def require_root(self) -> None:
        """Raises TargetError: Xen's devices and xenstore are root's."""
        if os.geteuid() != 0:
            raise TargetError(
                "restoring a domain takes root",
                remedy="run it with sudo, or restore into files (--target image)",
            )

    def cpu_vendor(self) -> str | None:
        """What CPUID leaf 0 says of the CPUs ("GenuineIntel"); None where Linux doesn't tell."""
        try:
            cpus = (self.proc / "cpuinfo").read_text(errors="replace")
        except OSError:
            return None
        found = re.search(r"^vendor_id\s*: (.*)$", cpus, re.MULTILINE)
        return None if found is None else found[1].ljust(12)

    def open_xenctrl(self) -> Xenctrl:
        """A handle on the hypervisor. Raises as `Xenctrl` does."""
        return Xenctrl()

    def open_xenstore(self) -> Xenstore:
        """A connection to xenstored. Raises as `Xenstore` does."""
        return Xenstore()

    def helper(
        self,
        ctx: Context,
        worker: str,
        *,
        on_done: HelperDone,
        on_log: LogCallback | None = None,
        on_progress: ProgressCallback | None = None,
        on_call: CallCallback | None = None,
    ) -> Helper:
        """A child, not started yet, for a worker that reaches this host."""
        return Helper(
            ctx, worker, on_done=on_done, on_log=on_log, on_progress=on_progress, on_call=on_call
        )

    def device_model_process(
        self, ctx: Context, on_failure: Callable[[LibxlsrError], object]
    ) -> Process:
        """The process of a device model, not started yet."""
        return Process(ctx, on_failure)
