"""QEMU's own description of its state, summed up device by device.

It is JSON with a list ``devices``: each has ``name``, ``instance_id``, and what was written of it:
``version`` and ``fields``, each with a ``size`` in bytes (of one element, where it has an
``array_len``), and ``subsections`` of the same shape. Nothing of it is sure to be there.

Source: QEMU's migration/savevm.c and migration/vmstate.c.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_SIZE_MAX = 1 << 32


class DescribedDevice(NamedTuple):
    """One device of a description, with its numbers as text."""

    name: str
    instance_id: str
    version: str
    fields: int
    size: int
    """Bytes of its fields, those of subsections included."""
    subsections: tuple[str, ...]


def described_devices(untrusted_description: dict[str, Any]) -> list[DescribedDevice]:
    """The devices that a description names; what is no device is passed over."""
    return [
        DescribedDevice(
            str(device.get("name", "?")),
            str(device.get("instance_id", "?")),
            str(device.get("version", "?")),
            len(_objects(device, "fields")),
            _size(device),
            tuple(str(part.get("vmsd_name", "?")) for part in _objects(device, "subsections")),
        )
        for device in _objects(untrusted_description, "devices")
    ]


def _size(described: dict[str, Any]) -> int:
    fields = sum(
        _number(field.get("size")) * _number(field.get("array_len", 1))
        for field in _objects(described, "fields")
    )
    return fields + sum(_size(part) for part in _objects(described, "subsections"))


def _objects(described: dict[str, Any], name: str) -> list[dict[str, Any]]:
    inner = described.get(name)
    return [one for one in inner if isinstance(one, dict)] if isinstance(inner, list) else []


def _number(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value <= _SIZE_MAX else 0
