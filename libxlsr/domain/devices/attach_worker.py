"""The program of the child that attaches devices: libxenlight's blocking calls, one by one.

libxenlight asserts, forks the hotplug scripts and waits for them: that is why it is a child. What a
script writes is among the child's last words.
"""

from __future__ import annotations

from typing import Any

from libxlsr.helper.child import Channel
from libxlsr.xen.backend import Backend, XenlightBackend
from libxlsr.xen.toollog import LogLine, ToolLog
from libxlsr.xen.xenlight import DeviceKind, Xenlight


def run(
    channel: Channel,
    backend: Backend | None = None,
    libxenlight: XenlightBackend | None = None,
) -> dict[str, Any]:
    """Attach devices to the domain ``domid``, in their order.

    They come in batches, each asked for with the call "next" when the one before is attached; an
    empty one ends the work. A device is an object: ``kind`` (its list's name in libxl's JSON),
    ``json`` and ``words``, which say what it is in an error. Returns nothing.
    """

    def on_line(line: LogLine) -> None:
        channel.log(line.level, str(line))

    with Xenlight(ToolLog(on_line=on_line, backend=backend), libxenlight) as xenlight:
        domid = channel.receive_work()["domid"]
        while devices := channel.call("next", {})["devices"]:
            _attach(xenlight, domid, devices)
    return {}


def _attach(xenlight: Xenlight, domid: int, devices: list[dict[str, Any]]) -> None:
    lists: dict[str, list[Any]] = {kind.value: [] for kind in DeviceKind}
    for device in devices:
        lists[device["kind"]].append(device["json"])
    xenlight.read_devices(lists)
    attached = dict.fromkeys(lists, 0)
    for device in devices:
        kind = device["kind"]
        xenlight.add(domid, DeviceKind(kind), attached[kind], f"attach its {device['words']}")
        attached[kind] += 1
