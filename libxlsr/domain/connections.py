"""The open handles on a Xen host that a domain's operations share."""

from __future__ import annotations

import contextlib

from libxlsr.domain.host import XenHost
from libxlsr.events import Context
from libxlsr.xen.handle import Handle
from libxlsr.xen.watches import Watches


class Connections(Handle):
    """The hypervisor, xenstored, and the watches there on the event loop.

    Raises ``BackendUnavailable`` and ``TargetError`` as `Xenctrl` and `Xenstore` do.
    """

    def __init__(self, ctx: Context, host: XenHost) -> None:
        with contextlib.ExitStack() as opened:
            self.xenctrl = host.open_xenctrl()
            opened.callback(self.xenctrl.close)
            self.xenstore = host.open_xenstore()
            opened.callback(self.xenstore.close)
            self.watches = Watches(ctx, self.xenstore)
            opened.callback(self.watches.close)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close all of them; again is harmless."""
        self._opened.close()
