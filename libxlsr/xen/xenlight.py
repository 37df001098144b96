"""libxenlight: devices of an existing domain, and the destruction of a domain with its devices.

Its calls block, fork hotplug scripts and wait for them, and end the process where an assertion
fails: only a helper's child uses this module. Devices go in as libxl's own JSON of a domain's
configuration, so that no layout of a struct is known here.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from typing import Any

from libxlsr.errors import TargetError
from libxlsr.xen.backend import XenlightBackend, load_xenlight
from libxlsr.xen.handle import Handle
from libxlsr.xen.rawlib import FFI, CData, XenlightLib
from libxlsr.xen.toollog import ToolLog
from libxlsr.xen.xenctrl import NO_XEN_REMEDY


class DeviceKind(enum.Enum):
    """The kinds that can be added: their lists in libxl's JSON, in the order of libxl's restore."""

    VFB = "vfbs"
    VKB = "vkbs"
    DISK = "disks"
    NIC = "nics"


class Xenlight(Handle):
    """A ``libxl_ctx``. A context manager; closing twice is harmless."""

    def __init__(self, log: ToolLog, libxenlight: XenlightBackend | None = None) -> None:
        """Open it. Raises ``BackendUnavailable`` where the module was not built, ``TargetError``
        where libxenlight can't be started."""
        loaded = libxenlight or load_xenlight()
        self._ffi: FFI = loaded.ffi
        self._lib: XenlightLib = loaded.lib
        self._log = log
        self._kinds = {
            DeviceKind.VFB: self._lib.XLSR_VFB,
            DeviceKind.VKB: self._lib.XLSR_VKB,
            DeviceKind.DISK: self._lib.XLSR_DISK,
            DeviceKind.NIC: self._lib.XLSR_NIC,
        }
        self._light: CData | None = self._lib.xlsr_light_open(log.pointer)
        if self._light == self._ffi.NULL:
            self._light = None
            raise TargetError(
                "libxenlight can't be started",
                call="libxl_ctx_alloc",
                last_log=log.take_last(),
                remedy=NO_XEN_REMEDY,
            )

    def close(self) -> None:
        """Close it."""
        light, self._light = self._light, None
        if light is not None:
            self._lib.xlsr_light_close(light)

    def read_devices(self, devices: Mapping[str, Sequence[Any]]) -> None:
        """Take devices in: lists of libxl's JSON by their names in a domain's configuration."""
        text = json.dumps(devices).encode()
        self._check(
            self._lib.xlsr_light_read_devices(self._light, text),
            "libxl_domain_config_from_json",
            "read the configuration of the devices",
        )
        for kind, number in self._kinds.items():
            if self._lib.xlsr_light_count(self._light, number) != len(devices.get(kind.value, ())):
                raise TargetError(f"libxenlight did not take all {kind.value} in")

    def add(self, domid: int, kind: DeviceKind, number: int, doing: str) -> None:
        """Add one of the devices to the domain, and wait until its backend and script are done.

        The domain's configuration must be among libxl's userdata. libxenlight gives up itself:
        after 10 s without a backend (LIBXL_INIT_TIMEOUT), 40 s in a script (LIBXL_HOTPLUG_TIMEOUT).
        Raises TargetError "could not DOING".
        """
        call = f"libxl_device_{kind.value[:-1]}_add"
        rc = self._lib.xlsr_light_add(self._light, domid, self._kinds[kind], number)
        self._check(rc, call, doing)

    def destroy_domain(self, domid: int) -> None:
        """Destroy the domain with all that belongs to it: device model, devices with their scripts,
        nodes, files."""
        self._check(
            self._lib.xlsr_light_destroy(self._light, domid),
            "libxl_domain_destroy",
            f"destroy domain {domid}",
        )

    def _check(self, rc: int, call: str, doing: str) -> None:
        self._log.raise_parked()
        if rc:
            name = self._ffi.string(self._lib.xlsr_light_error(rc)).decode()
            raise TargetError(
                f"could not {doing}",
                call=f"{call}: {name}" if name else call,
                last_log=self._log.take_last(),
            )
