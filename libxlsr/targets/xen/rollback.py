"""Undoing a restore once its tasks have stopped.

In this order, because Xen keeps a domain for as long as somebody has its memory mapped: the helper,
the device model, the devices, then what the target did itself, the domain last. What can't be
undone does not stop the rest.
"""

from __future__ import annotations

import logging
from typing import Callable

from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import Context
from libxlsr.targets.xen.device_model.model import DeviceModel
from libxlsr.targets.xen.devices.attaching import Attaching
from libxlsr.targets.xen.restore_helper.parent import RestoreHelper
from libxlsr.targets.xen.undo import Undo

log = logging.getLogger(__name__)

DESTROY_POLL = 0.05
DESTROY_TIMEOUT = 10.0
"""LIBXL_DESTROY_TIMEOUT, seconds until a destroyed domain must have gone."""


class Rollback:
    """One rollback. ``on_done`` gets what could not be undone, each error logged already.

    ``domid`` is the domain's id if there ever was one, ``is_there`` whether Xen still has it; it
    raises LibxlsrError where Xen doesn't tell.
    """

    def __init__(
        self,
        ctx: Context,
        undo: Undo,
        *,
        helper: RestoreHelper | None,
        model: DeviceModel | None,
        attaching: Attaching | None,
        domid: int | None,
        is_there: Callable[[], bool],
        on_done: Callable[[list[LibxlsrError]], object],
    ) -> None:
        self._ctx = ctx
        self._undo = undo
        self._helper = helper
        self._model = model
        self._attaching = attaching
        self._domid = domid
        self._is_there = is_there
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
        self._errors += self._undo.run()
        self._await_gone(self._ctx.now() + DESTROY_TIMEOUT)

    def _await_gone(self, deadline: float) -> None:
        """Xen lets a destroyed domain go when the last page of it has been unmapped."""
        error: LibxlsrError | None = None
        try:
            if self._is_there():
                error = TargetError(f"domain {self._domid} does not go away")
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
