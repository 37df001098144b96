"""The primary console: its nodes, and the wait until xenconsoled has given it a tty.

Sources: libxl__device_console_add (libxl_console.c), libxl__device_generic_add (libxl_device.c),
domcreate_attach_devices (libxl_create.c).
"""

from __future__ import annotations

from libxlsr.domain.create import BuildState
from libxlsr.domain.devices import nodes as device_nodes
from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import Context
from libxlsr.events.chain import Done
from libxlsr.xen.watches import Watches
from libxlsr.xen.xenstore import Transaction, Xenstore

XENCONSOLE_LIMIT = 1048576
"""LIBXL_XENCONSOLE_LIMIT, bytes that xenconsoled keeps."""

TTY_TIMEOUT = 10.0
"""LIBXL_INIT_TIMEOUT, seconds that xenconsoled has to open a tty."""


def add_nodes(nodes: Transaction, state: BuildState) -> None:
    """Make the console's nodes: frontend, backend and libxl's own; all but the ring's frame."""
    domid, backend_domid = state.domid, state.console_domid
    device_nodes.add(
        nodes,
        f"/local/domain/{domid}/console",
        f"/local/domain/{backend_domid}/backend/console/{domid}/0",
        f"/libxl/{domid}/device/console/0",
        domid=domid,
        backend_domid=backend_domid,
        of_frontend={"backend-id": str(backend_domid)},
        read_only={
            "limit": str(XENCONSOLE_LIMIT),
            "type": "xenconsoled",
            "output": "pty",
            "tty": "",
            "port": str(state.console_port),
        },
        # Of console 0 the guest writes nothing but backend-id: the directory holds what it must
        # not fiddle with.
        frontend_is_read_only=True,
        of_backend={
            "frontend-id": str(domid),
            "online": "1",
            "state": str(device_nodes.XENBUS_STATE_INITIALISING),
            "protocol": "vt100",
        },
    )


class TtyWait:
    """The step that waits until the console has a tty."""

    def __init__(self, ctx: Context, xenstore: Xenstore, watches: Watches, domid: int) -> None:
        self._ctx = ctx
        self._xenstore = xenstore
        self._watches = watches
        self._domid = domid
        self._path = f"/local/domain/{domid}/console/tty"

    def start(self, done: Done) -> None:
        """See `Step`."""
        self._done = done
        self._watch = self._watches.watch(self._path, self._changed)
        self._timer = self._ctx.call_later(TTY_TIMEOUT, self._timed_out)

    def stop(self) -> None:
        """See `Step`."""
        self._timer.deregister()
        self._watch.close()

    def _changed(self, _path: str) -> None:
        error: LibxlsrError | None = None
        try:
            if not self._xenstore.read(self._path):
                return
        except LibxlsrError as failure:
            error = failure
        self.stop()
        self._done(error)

    def _timed_out(self) -> None:
        self.stop()
        self._done(
            TargetError(
                f"xenconsoled gave domain {self._domid} no tty within {TTY_TIMEOUT:.0f} s",
                remedy="see whether xenconsoled runs, and its log",
            )
        )
