"""Destroys a domain with all that libxl knows of it, in a child: it may take long."""

from __future__ import annotations

from libxlsr.domain.devices.timed_child import TimedChild
from libxlsr.domain.host import XenHost
from libxlsr.errors import LibxlsrError
from libxlsr.events import Context
from libxlsr.events.chain import Done
from libxlsr.helper.parent import LogCallback

DESTROY_WORKER = "libxlsr.domain.devices.destroy_worker"


def destroy(
    ctx: Context,
    host: XenHost,
    domid: int,
    done: Done,
    *,
    timeout: float,
    on_log: LogCallback,
) -> None:
    """``done(error)`` comes from the event loop, within ``timeout`` seconds and a grace.

    ``on_log`` gets what libxl says.
    """
    child = TimedChild(
        ctx,
        host,
        DESTROY_WORKER,
        {"domid": domid},
        doing=f"destroying domain {domid}",
        timeout=timeout,
        on_log=on_log,
    )
    try:
        child.start(done)
    except LibxlsrError as error:
        ctx.call_soon(done, error)
