"""A restore helper kept in reserve, so that a daemon's next restore does not wait for Python."""

from __future__ import annotations

import logging

from libxlsr.domain.host import XenHost
from libxlsr.domain.save_helper.parent import RestoreHelper
from libxlsr.errors import LibxlsrError, TargetError
from libxlsr.events import Context, Timer, run
from libxlsr.xen.handle import Handle

logger = logging.getLogger(__name__)


class SpareHelper(Handle):
    """A child that has loaded libxenguest and waits for a restore: `RestoreOptions.spare_helper`.

    For any number of restores on ``ctx``. One takes it, and when that is over the loop starts the
    next spare in its next round; a restore that finds none starts a helper of its own. Raises
    TargetError when it can't be started. It is a context manager, whose end is `close`.
    """

    def __init__(self, ctx: Context, host: XenHost | None = None) -> None:
        """``host`` is the one that is restored on; None: this machine."""
        self._ctx = ctx
        self._host = host or XenHost()
        self._closed = False
        self._refill = Timer(ctx)
        self._spare: RestoreHelper | None = RestoreHelper(ctx, self._host)

    @property
    def pid(self) -> int | None:
        """The spare's process id, None where there is none."""
        return None if self._spare is None else self._spare.pid

    def take(self) -> RestoreHelper:
        """The spare, or a new helper. Raises TargetError when that can't be started."""
        self._refill.stop()
        spare, self._spare = self._spare, None
        if spare is None or spare.pid is None:
            return RestoreHelper(self._ctx, self._host)
        return spare

    def refill(self) -> None:
        """Have the next spare started where there is none, once the restore is reported as over."""
        if not self._closed and self.pid is None:
            self._refill.set(0.0, self._start)

    def _start(self) -> None:
        try:
            self._spare = RestoreHelper(self._ctx, self._host)
        except TargetError as error:
            logger.warning("no spare helper: %s", error)

    def close(self) -> None:
        """End the spare and wait for it, some milliseconds. Not from a callback of the context.

        In a forked child it does nothing: the spare is the parent's.
        """
        if self._ctx.forked:
            return
        self._closed = True
        self._refill.stop()
        spare, self._spare = self._spare, None
        if spare is not None:
            over: list[LibxlsrError | None] = []
            spare.retire(over.append)
            run(self._ctx, lambda: bool(over))
