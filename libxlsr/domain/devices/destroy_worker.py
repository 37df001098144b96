"""The program of the child that destroys a domain that has devices, as ``xl destroy`` does."""

from __future__ import annotations

from typing import Any

from libxlsr.helper.child import Channel
from libxlsr.xen.backend import Backend, XenlightBackend
from libxlsr.xen.toollog import LogLine, ToolLog
from libxlsr.xen.xenlight import Xenlight


def run(
    channel: Channel,
    backend: Backend | None = None,
    libxenlight: XenlightBackend | None = None,
) -> dict[str, Any]:
    """Destroy the domain ``domid``: device model, devices with their scripts, nodes, files, the
    domain. Returns nothing."""

    def on_line(line: LogLine) -> None:
        channel.log(line.level, str(line))

    with Xenlight(ToolLog(on_line=on_line, backend=backend), libxenlight) as xenlight:
        xenlight.destroy_domain(channel.receive_work()["domid"])
    return {}
