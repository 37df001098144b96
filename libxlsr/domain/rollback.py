"""Undoing a restore once its tasks have stopped.

In this order, because Xen keeps a domain for as long as somebody has its memory mapped: the helper,
the device model, the devices, then what the target did itself, the domain last. What can't be
undone does not stop the rest.

Xen takes a domain's memory back within the hypercall that destroys it, a tenth of a second and more
for each GiB. That of a large domain is made in a child, as libxl makes it for any.
"""

from __future__ import annotations

import logging
from typing import Callable

from libxlsr.domain.device_model.model import DeviceModel
from libxlsr.domain.devices.attaching import Attaching
from libxlsr.domain.devices.destruction import destroy
from libxlsr.domain.host import XenHost
from libxlsr.domain.save_helper.parent import RestoreHelper
from libxlsr.domain.undo import Undo
from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import Context
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


class Rollback:
    """One rollback. ``on_done`` gets what could not be undone, each error logged already.

    ``info`` is what Xen knows of the domain, None where it has none (any more); it raises
    LibxlsrError where Xen doesn't tell. ``on_log`` gets what the children log.
    """

    def __init__(
        self,
        ctx: Context,
        host: XenHost,
        undo: Undo,
        *,
        helper: RestoreHelper | None,
        model: DeviceModel | None,
        attaching: Attaching | None,
        info: Callable[[], DomainInfo | None],
        on_log: LogCallback,
        on_done: Callable[[list[LibxlsrError]], object],
    ) -> None:
        self._ctx = ctx
        self._host = host
        self._undo = undo
        self._helper = helper
        self._model = model
        self._attaching = attaching
        self._info = info
        self._on_log = on_log
        self._on_done = on_done
        self._errors: list[LibxlsrError] = []

    def start(self) -> None:
        """Start; it can't be stopped."""
        if self._helper is not None:
            self._helper.retire(self._helper_ended)
        else:
            self._helper_ended(None)

    def _helper_ended(self, error: LibxlsrError | None) -> None:
        self._note(error)
        if self._model is not None:
            self._model.stop(self._device_model_stopped)
        else:
            self._device_model_stopped(None)

    def _device_model_stopped(self, error: LibxlsrError | None) -> None:
        self._note(error)
        if self._attaching is not None:
            self._attaching.undo(self._detached)
        else:
            self._detached(None)

    def _detached(self, error: LibxlsrError | None) -> None:
        self._note(error)
        large = self._large_domain()
        if large is None:
            self._undo_the_rest()
            return
        destroy(
            self._ctx,
            self._host,
            large.domid,
            self._large_domain_destroyed,
            timeout=LARGE_DESTROY_TIMEOUT,
            on_log=self._on_log,
        )

    def _large_domain(self) -> DomainInfo | None:
        try:
            info = self._info()
        except LibxlsrError as error:
            log.warning("%s", error)
            return None
        return info if info is not None and info.total_bytes >= LARGE_DOMAIN else None

    def _large_domain_destroyed(self, error: LibxlsrError | None) -> None:
        if error is not None:  # what is left of it is destroyed with the rest
            log.warning("%s", error)
        self._undo_the_rest()

    def _undo_the_rest(self) -> None:
        self._errors += self._undo.run()
        self._await_gone(self._ctx.now() + DESTROY_TIMEOUT)

    def _await_gone(self, deadline: float) -> None:
        """Xen lets a destroyed domain go when the last page of it has been unmapped."""
        error: LibxlsrError | None = None
        try:
            info = self._info()
            if info is not None:
                error = TargetError(f"domain {info.domid} does not go away")
        except LibxlsrError as failure:
            error = failure
        if error is not None:
            if self._ctx.now() < deadline:
                self._ctx.call_later(DESTROY_POLL, self._await_gone, deadline)
                return
            log.error("%s", error)
        self._note(error)
        self._on_done(self._errors)

    def _note(self, error: LibxlsrError | None) -> None:
        if error is not None:
            self._errors.append(error)
