"""``FakeXenHost``: a Xen host that a test has made, to be given to `XenTarget`."""

from __future__ import annotations

import errno
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Callable

from libxlsr.domain.device_model.process import Process
from libxlsr.domain.host import XenHost
from libxlsr.errors import LibxlsrError
from libxlsr.events import Context
from libxlsr.helper.parent import CallCallback, Helper, HelperDone, LogCallback, ProgressCallback
from libxlsr.testing.fake_xen.hypervisor import Domain, Hypervisor
from libxlsr.testing.fake_xen.in_process import InProcessDeviceModel, InProcessHelper
from libxlsr.testing.fake_xen.libraries import libraries
from libxlsr.testing.fake_xen.processes import (
    ChildHelper,
    device_models,
    install_device_model,
    kill,
)
from libxlsr.testing.fake_xen.remote import StateServer
from libxlsr.testing.fake_xen.state import CallMade, Fault, HostState
from libxlsr.testing.fake_xen.xenstored import Xenstored
from libxlsr.xen.toollog import ToolLog
from libxlsr.xen.xenctrl import Xenctrl
from libxlsr.xen.xenstore import Xenstore

BRIDGE = "xenbr0"
SCRIPTS = ("block", "vif-bridge")
NODES = {
    "/tool/xenstored": "",
    "/local/domain/0/name": "Domain-0",
    "/local/domain/0/domid": "0",
    "/local/pool/0/name": "Pool-0",
    "/libxl": "",
    "/vm": "",
}
"""Those of a host that has no guest but has had some."""


class FakeXenHost(XenHost):
    """A host with a hypervisor, a xenstored, an xenconsoled and a QEMU, all of Python.

    ``processes`` says whether helpers and device models are real processes, as on a real host.
    Without, all happens in this process: fifty times as fast, but nothing can hang or be killed,
    and a stream has to be there before it is read.

    A context manager: at its end all of it goes, guests that were restored too.
    """

    def __init__(self, *, processes: bool = True) -> None:
        root = Path(tempfile.mkdtemp(prefix="xen-"))
        super().__init__(root)
        self.root = root
        self._models: list[InProcessDeviceModel] = []
        for directory in (self.run_dir, self.lib_dir, self.log_dir, self.script_dir, self.proc):
            directory.mkdir(parents=True)
        self.lock_file.parent.mkdir(parents=True)
        (self.sys / "class/net" / BRIDGE / "bridge").mkdir(parents=True)
        for script in SCRIPTS:
            (self.script_dir / script).touch(mode=0o755)
        install_device_model(self.device_models[0])
        self._server: StateServer | None = None
        self._boot()
        if processes:
            self._server = StateServer(self.state, root / "state")

    def __enter__(self) -> FakeXenHost:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End its processes, and remove its files."""
        self._shut_down()
        if self._server is not None:
            self._server.close()
        shutil.rmtree(self.root)

    def reboot(self) -> None:
        """Have it as it was at first: no guest is left, nothing fails."""
        self._shut_down()
        for directory in (self.run_dir, self.lib_dir, self.log_dir):
            for path in directory.iterdir():
                path.unlink()
        self._boot()
        if self._server is not None:
            self._server.state = self.state

    def _boot(self) -> None:
        self.state = HostState(self.root)
        self._libraries = libraries(self.state)
        self._expected: list[str] = []
        for path, value in NODES.items():
            self.xenstored.write(0, 0, path, value)
        self._before = set(self._holdings())

    def _shut_down(self) -> None:
        if self._server is not None:
            for pid in device_models(self.device_models[0]):
                kill(pid)
        for model in list(self._models):
            model.close()
        for connection in list(self.xenstored.connections):
            self.xenstored.close(connection)

    # What a test looks at and changes.

    @property
    def hypervisor(self) -> Hypervisor:
        """Its domains, and what it has and can do."""
        return self.state.hypervisor

    @property
    def xenstored(self) -> Xenstored:
        """Its nodes, watches and connections."""
        return self.state.xenstored

    @property
    def domains(self) -> list[Domain]:
        """Those beside dom0."""
        return [domain for domid, domain in self.hypervisor.domains.items() if domid]

    @property
    def calls(self) -> list[CallMade]:
        """The calls into Xen's libraries so far; those without processes start with "spawn", and
        "qmp" for what a device model is asked."""
        return self.state.calls

    @property
    def device_models_run(self) -> list[InProcessDeviceModel]:
        """The device models that run, where they are no processes."""
        return self._models

    def node(self, path: str) -> str | None:
        """A xenstore node's value, None where there is none."""
        node = self.xenstored.nodes.get(path)
        return None if node is None else node.value

    def fail(self, name: str, number: int = errno.EIO, *, about: str = "", nth: int = 1) -> None:
        """The ``nth`` call from now on of a function of Xen's libraries fails with this errno.

        ``about`` is a part of the path, or the id of the domain, that the call is about.
        """
        self.state.fail(name, number, about=about, nth=nth)

    def fail_in_restore(self, way: str, after: int = 0) -> None:
        """libxenguest "fails", "hangs", "is-killed" or "asserts" after so many records."""
        self.state.restore_fault = Fault(way, after)

    def fail_in_devices(self, way: str, after: int = 0) -> None:
        """libxenlight "fails", "hangs" or "is-killed" after so many devices."""
        self.state.device_fault = Fault(way, after)

    def add_domain(self, name: str, handle: uuid.UUID | None = None) -> int:
        """Another domain that is there already, and its id; `left_behind` doesn't count it."""
        before = set(self._holdings())
        handle = handle or uuid.uuid4()
        domid = self.hypervisor.domain_create(handle.hex, 0, 1, 0, 0)
        self.xenstored.write(0, 0, f"/local/domain/{domid}/name", name)
        self.xenstored.write(0, 0, f"/local/domain/{domid}/vm", f"/vm/{handle}")
        self._before |= set(self._holdings()) - before
        return domid

    def expect_left(self, path: str) -> None:
        """`left_behind` doesn't count the node, and those below and above it, from now on."""
        self._expected.append(path)

    def left_behind(self) -> list[str]:
        """What is there now and was not at the beginning: domains, nodes, files, processes, open
        handles and connections. Logs, and libxl's list of ids that were in use, are to stay."""
        return sorted(what for what in self._holdings() if what not in self._before)

    def _holdings(self) -> list[str]:
        held = [f"domain {domid}" for domid in self.hypervisor.domains]
        held += [f"node {path}" for path in self.xenstored.nodes if not self._is_expected(path)]
        held += [f"domain {domid} is introduced" for domid in self.xenstored.introduced]
        held += [f"connection {number}" for number in self.xenstored.connections]
        held += [f"handle {number}" for number in range(self.state.handles)]
        held += [f"device model {model.pid}" for model in self._models]
        if self._server is not None:
            held += [f"process {pid}" for pid in device_models(self.device_models[0])]
        for directory in (self.run_dir, self.lib_dir):
            held += [f"file {path}" for path in directory.iterdir()]
        return [what for what in held if not what.endswith("/domid-history")]

    def _is_expected(self, path: str) -> bool:
        return any(
            path == other or path.startswith(f"{other}/") or other.startswith(f"{path}/")
            for other in self._expected
        )

    # What a restore asks of it.

    def require_root(self) -> None:
        """Anybody is root here."""

    def open_xenctrl(self) -> Xenctrl:
        """A handle on its hypervisor."""
        return Xenctrl(ToolLog(backend=self._libraries.backend))

    def open_xenstore(self) -> Xenstore:
        """A connection to its xenstored."""
        return Xenstore(self._libraries.backend)

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
        """One whose worker reaches this host."""
        if self._server is None:
            return InProcessHelper(
                ctx,
                worker,
                state=self.state,
                xen=self._libraries,
                on_done=on_done,
                on_log=on_log,
                on_progress=on_progress,
                on_call=on_call,
            )
        helper = ChildHelper(
            ctx, worker, on_done=on_done, on_log=on_log, on_progress=on_progress, on_call=on_call
        )
        helper.address = str(self.root / "state")
        return helper

    def device_model_process(
        self, ctx: Context, on_failure: Callable[[LibxlsrError], object]
    ) -> Process:
        """A process of its own, or what stands for one."""
        if self._server is None:
            return InProcessDeviceModel(ctx, on_failure, state=self.state, kept=self._models)
        return Process(ctx, on_failure)
