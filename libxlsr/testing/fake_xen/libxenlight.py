"""libxenlight: devices of a domain, and its destruction, as `libxlsr.xen.rawlib` lists them.

Of a device it makes the nodes that a restore and its undo look at, and notes it in the domain's
configuration. Sources: tools/libs/light/libxl_device.c, libxl_domain.c.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

from libxlsr.domain.host import XenHost
from libxlsr.domain.libxl_files import domid_history, userdata
from libxlsr.formats import xl
from libxlsr.testing.fake_xen.failure import XenFailure
from libxlsr.testing.fake_xen.libxenctrl import Calling

ERROR_FAIL, ERROR_DOMAIN_NOTFOUND = -3, -20
_LISTS = ("vfbs", "vkbs", "disks", "nics")
_KINDS = {"vfbs": "vfb", "vkbs": "vkbd", "disks": "vbd", "nics": "vif"}
_NOTED = ("disks", "nics")


class FakeXenlight(Calling):
    """libxenlight."""

    XLSR_VFB, XLSR_VKB, XLSR_DISK, XLSR_NIC = range(4)
    _attached = 0
    """How many devices, of all domains."""

    def xlsr_light_open(self, _logger: Any) -> Any:
        return self.attempt("libxl_ctx_alloc", "", lambda: Light(), None)

    def xlsr_light_close(self, _light: Light) -> None:
        pass

    def xlsr_light_read_devices(self, light: Light, text: bytes) -> int:
        light.devices = json.loads(text)
        return 0

    def xlsr_light_count(self, light: Light, kind: int) -> int:
        return len(light.devices.get(_LISTS[kind], ()))

    def xlsr_light_add(self, light: Light, domid: int, kind: int, number: int) -> int:
        name = _LISTS[kind]
        device = light.devices[name][number]
        call = f"libxl_device_{name[:-1]}_add"
        return int(self.attempt(call, domid, lambda: self._add(domid, name, device), ERROR_FAIL))

    def xlsr_light_destroy(self, _light: Light, domid: int) -> int:
        return int(
            self.attempt("libxl_domain_destroy", domid, lambda: self._destroy(domid), ERROR_FAIL)
        )

    def xlsr_light_error(self, rc: int) -> bytes:
        return {ERROR_FAIL: b"ERROR_FAIL", ERROR_DOMAIN_NOTFOUND: b"ERROR_DOMAIN_NOTFOUND"}[rc]

    def _add(self, domid: int, name: str, device: dict[str, Any]) -> int:
        fault = self.state.fault("device_fault")
        if fault is not None and fault[1] == self._attached:
            self._go_wrong(fault[0])
        self._attached += 1
        handle, kind = self._uuid(domid), _KINDS[name]
        lib_dir = self._host().lib_dir
        tree = userdata.load_config(domid, handle, lib_dir)  # libxl takes no domain without
        number = self._number(domid, name, device)
        backend = f"/local/domain/0/backend/{kind}/{domid}/{number}"
        frontend = f"/local/domain/{domid}/device/{kind}/{number}"
        libxl = f"/libxl/{domid}/device/{kind}/{number}"
        values = {
            f"{libxl}/frontend": frontend,
            f"{libxl}/backend": backend,
            f"{frontend}/backend": backend,
            f"{backend}/frontend": frontend,
            f"{backend}/physical-device-path": f"/dev/fake{number}",
        }
        if name == "disks":
            values[f"{libxl}/params"] = device.get("pdev_path") or ""
            values[f"{libxl}/mode"] = "w" if device.get("readwrite") else "r"
        store = self.state.xenstored
        for path, value in values.items():
            store.write(0, 0, path, value)
        if name in _NOTED:
            tree.setdefault(name, []).append(device)
            userdata.store_config(domid, handle, xl.Config.from_json(tree).raw, lib_dir)
        return 0

    def _number(self, domid: int, name: str, device: dict[str, Any]) -> int:
        if name == "nics":
            return int(device["devid"])
        try:
            others = self.state.xenstored.directory(0, 0, f"/libxl/{domid}/device/{_KINDS[name]}")
        except XenFailure:
            others = []
        return 51712 + 16 * len(others) if name == "disks" else len(others)

    def _destroy(self, domid: int) -> int:
        try:
            handle = self._uuid(domid)
        except XenFailure:
            return ERROR_DOMAIN_NOTFOUND
        store, host = self.state.xenstored, self._host()
        backends = "/local/domain/0/backend"
        for kind in self._names(backends):
            self._remove(f"{backends}/{kind}/{domid}")
            for path in (f"{backends}/{kind}", backends):
                if self._names(path) == []:
                    self._remove(path)
        for path in (f"/local/domain/{domid}", f"/libxl/{domid}", f"/vm/{handle}"):
            self._remove(path)
        userdata.remove_all(domid, handle, host.lib_dir)
        domid_history.mark_recent(domid, host.run_dir)
        self.state.hypervisor.domain_destroy(domid)
        store.domain_gone(domid)
        return 0

    def _names(self, path: str) -> list[str]:
        try:
            return self.state.xenstored.directory(0, 0, path)
        except XenFailure:
            return []

    def _remove(self, path: str) -> None:
        with contextlib.suppress(XenFailure):
            self.state.xenstored.rm(0, 0, path)

    def _uuid(self, domid: int) -> uuid.UUID:
        return uuid.UUID(self.state.hypervisor.domain_info(domid)["handle"])

    def _host(self) -> XenHost:
        return XenHost(Path(self.state.directory()))

    def _go_wrong(self, way: str) -> None:
        if way == "hangs":
            while True:
                time.sleep(1000)
        if way == "is-killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise XenFailure(errno.EIO)


class Light:
    """A ``libxl_ctx`` with the devices that it was given."""

    def __init__(self) -> None:
        self.devices: dict[str, list[dict[str, Any]]] = {}
