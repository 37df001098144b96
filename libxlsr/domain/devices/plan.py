"""Which devices libxenlight attaches, and when: before the device model starts, or after.

The order is that of libxl's own restore (domcreate_rebuild_done to domcreate_attach_devices,
libxl_create.c), but for disks behind QEMU: the public call refuses those of a PV or PVH guest
while no device model runs (libxl__dm_check_start). QEMU takes them up when they come.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libxlsr.domain.config import DomainConfig
from libxlsr.domain.config.devices import Disk
from libxlsr.domain.devices.backend import in_qemu

ATTACHED = ("vfbs", "vkbs", "disks", "nics")
"""The lists of libxl's JSON whose devices are brought back."""

JSON_MAX = 16 * 1024
"""The longest JSON of a device, in characters; libxl's own are some hundred."""

BATCH_MAX = 32 * 1024
"""How much JSON a child gets at once: half of what a message to it may hold."""

NAMED_MAX = 4
"""How many devices of a batch an error names."""


@dataclass(frozen=True)
class Device:
    """One device to attach. ``kind`` is its list's name, ``words`` say what it is in an error."""

    kind: str
    json: Mapping[str, Any]
    words: str

    def work(self) -> dict[str, Any]:
        """What the child that attaches it is told."""
        return {"kind": self.kind, "json": self.json, "words": self.words}


@dataclass(frozen=True)
class Plan:
    """The devices in the order in which they are attached."""

    before_device_model: tuple[Device, ...]
    after_device_model: tuple[Device, ...]

    def __bool__(self) -> bool:
        return bool(self.before_device_model or self.after_device_model)


def plan(config: DomainConfig) -> Plan:
    """What is attached, and when. An HVM guest's screen and keyboard are the device model's."""
    hvm = config.hvm is not None
    before: list[Device] = []
    after: list[Device] = []
    if not hvm:
        for kind, words in (("vfbs", "framebuffer"), ("vkbs", "keyboard")):
            before += [Device(kind, item, words) for item in config.json.get(kind, ())]
    for disk, item in zip(config.disks, config.json.get("disks", ())):
        behind_qemu = in_qemu(disk) or (disk.cdrom and hvm)  # libxl__device_disk_setdefault
        (after if behind_qemu else before).append(Device("disks", item, disk_words(disk)))
    for nic, item in zip(config.nics, config.json.get("nics", ())):
        # libxl takes a card that comes later for one without an emulated twin.
        chosen = {"nictype": "vif_ioemu" if nic.emulated else "vif", "devid": nic.devid}
        after.append(Device("nics", {**item, **chosen}, f"network card {nic.devid}"))
    return Plan(tuple(before), tuple(after))


def writable_files(disks: Iterable[Disk]) -> list[str]:
    """The files of the disks that the guest writes to: nobody else has a use for them."""
    return [disk.path for disk in disks if disk.readwrite and disk.path]


def disk_words(disk: Disk) -> str:
    """The disk as it is named in an error."""
    return f"disk {disk.vdev} ({disk.path})" if disk.path else f"disk {disk.vdev}"


def batch_words(batch: Sequence[Device]) -> str:
    """The devices as they are named in an error."""
    words = ", the ".join(device.words for device in batch[:NAMED_MAX])
    more = len(batch) - NAMED_MAX
    return words if more <= 0 else f"{words} and {more} more devices"


def json_length(device: Device) -> int:
    """How long the device is in a message."""
    return len(json.dumps(device.json))


def batches(devices: Iterable[Device]) -> Iterator[list[Device]]:
    """The devices in lists that a message to a child can hold."""
    batch: list[Device] = []
    length = 0
    for device in devices:
        more = len(json.dumps(device.work())) + len(", ")
        if batch and length + more > BATCH_MAX:
            yield batch
            batch, length = [], 0
        batch.append(device)
        length += more
    if batch:
        yield batch
