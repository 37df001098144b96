"""The end of a domain that this library has made: xc_domain_destroy, until Xen has let it go.

Xen takes a domain's memory back within the hypercall that destroys it, a tenth of a second and more
for each GiB. That of a large domain is made in a child, as libxl makes it for any.
"""

from __future__ import annotations

import logging

from libxlsr.domain.connections import Connections
from libxlsr.domain.devices.destruction import destroy
from libxlsr.domain.host import XenHost
from libxlsr.domain.libxl_files import domid_history
from libxlsr.domain.undo import summary
from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import Context
from libxlsr.events.chain import Done
from libxlsr.helper.parent import LogCallback
from libxlsr.xen.hostinfo import DomainInfo

log = logging.getLogger(__name__)

LARGE_DOMAIN = 1 << 30
"""Bytes of memory from which on a domain is destroyed in a child."""

LARGE_DESTROY_TIMEOUT = 600.0
"""Seconds that such a child has: a domain may have TiBs."""

DESTROY_POLL = 0.05
DESTROY_TIMEOUT = 10.0
"""LIBXL_DESTROY_TIMEOUT, seconds until a destroyed domain must have gone."""


class Destruction:
    """How one domain is destroyed. ``on_log`` gets what a child logs of it."""

    def __init__(
        self,
        ctx: Context,
        host: XenHost,
        connections: Connections,
        domid: int,
        on_log: LogCallback,
    ) -> None:
        self._ctx = ctx
        self._host = host
        self._xenctrl = connections.xenctrl
        self._xenstore = connections.xenstore
        self._domid = domid
        self._on_log = on_log
        self._error: LibxlsrError | None = None

    def destroy_large(self, done: Done) -> None:
        """Destroy it in a child where it has much memory, with all that libxl knows of it.

        *done* comes without an error, from the event loop: what is left is for `destroy`.
        """

        def destroyed(error: LibxlsrError | None) -> None:
            if error is not None:
                log.warning("%s", error)
            done(None)

        if not self._is_large():
            self._ctx.call_soon(done, None)
            return
        destroy(
            self._ctx,
            self._host,
            self._domid,
            destroyed,
            timeout=LARGE_DESTROY_TIMEOUT,
            on_log=self._on_log,
        )

    def destroy(self, done: Done) -> None:
        """Destroy it, unless libxl has with its devices, and wait until it has gone.

        ``done(error)`` comes from the event loop. Whoever has the domain's memory mapped must have
        ended: Xen keeps the domain for as long.
        """

        def destroy_the_rest(_error: LibxlsrError | None) -> None:
            try:
                self._destroy()
            except LibxlsrError as error:
                self._error = error
            self._await_gone(self._ctx.now() + DESTROY_TIMEOUT, done)

        self.destroy_large(destroy_the_rest)

    def _info(self) -> DomainInfo | None:
        """None where there is no such domain. Raises LibxlsrError where Xen doesn't tell."""
        return self._xenctrl.domain_info(self._domid)

    def _is_large(self) -> bool:
        try:
            info = self._info()
        except LibxlsrError as error:
            log.warning("%s", error)
            return False
        return info is not None and info.total_bytes >= LARGE_DOMAIN

    def _destroy(self) -> None:
        try:
            if self._info() is None:
                return
        except LibxlsrError as error:
            log.warning("%s; it is destroyed all the same", error)
        try:
            domid_history.mark_recent(self._domid, self._host.run_dir)
        except OSError as error:
            log.warning("domain id %d is not marked as recently used: %s", self._domid, error)
        self._xenctrl.domain_destroy(self._domid)

    def _await_gone(self, deadline: float, done: Done) -> None:
        """Xen lets a destroyed domain go when the last page of it has been unmapped."""
        error: LibxlsrError | None = None
        try:
            if self._info() is not None:
                error = TargetError(f"domain {self._domid} does not go away")
        except LibxlsrError as failure:
            error = failure
        if error is not None and self._ctx.now() < deadline:
            self._ctx.call_later(DESTROY_POLL, self._await_gone, deadline, done)
            return
        self._remove_late_nodes()
        done(summary([found for found in (self._error, error) if found is not None]))

    def _remove_late_nodes(self) -> None:
        """xenconsoled may have written a node between their removal and the domain's end."""
        try:
            self._xenstore.rm(f"/local/domain/{self._domid}")
        except LibxlsrError as error:
            log.warning("%s", error)
