"""The device model's state as QEMU writes it: which devices' sections are in it.

::

    "QEVM", version u32, then sections:
    START 1 or FULL 4    section id u32, name (length u8, text), instance u32, version u32, data
    EOF 0, and in streams with a description   VMDESCRIPTION 6, length u32, JSON

All big-endian. A section's data has no length: only its device knows how long it is, and Xen's
machine types leave out the footers that would mark its end. So sections are found by what their
headers look like (ids that grow, a name, small numbers): good enough to look at, and nothing to
restore a device from. Xen starts QEMU with suppress-vmdesc=on, and the description
is seldom there.

Source: QEMU's migration/savevm.c and docs/devel/migration.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, replace
from typing import Any

from libxlsr.errors import StreamError

QEMU_VM_FILE_MAGIC = b"QEVM"
QEMU_VM_VMDESCRIPTION = 6
QEMU_VM_CONFIGURATION = 7

SECTIONS_MAX = 4096
_HEADER = re.compile(
    rb"[\x01\x04](?P<id>\0[\0-\x0f]..)(?P<length>[\x02-\xff])(?=[A-Za-z0-9])", re.DOTALL
)
_NAME = re.compile(rb"[A-Za-z0-9_./:,+ -]+\Z")
_NUMBERS = struct.Struct(">II")
_INSTANCE_MAX = 1 << 20  # an instance may be an address's page, as that of an I/O port
_VERSION_MAX = 1 << 10
_RECORD = "EMULATOR_CONTEXT"


@dataclass(frozen=True)
class QemuSection:
    """One device's section. ``offset`` and ``length`` count in the state, header included."""

    section_id: int
    name: str
    instance_id: int
    version: int
    offset: int
    length: int


@dataclass(frozen=True)
class QemuState:
    """What can be told of the state without knowing its devices."""

    version: int
    machine: str | None
    """The machine type that the configuration section names."""
    sections: tuple[QemuSection, ...]
    description: Any
    """QEMU's own description (JSON) of the sections, None where it was left out."""

    @classmethod
    def decode(cls, state: bytes, offset: int = 0) -> QemuState:
        """Raises StreamError where it does not begin as QEMU's does."""
        if len(state) < 8 or not state.startswith(QEMU_VM_FILE_MAGIC):
            raise StreamError(
                f"the device model's state begins with {state[:4].hex(' ') or 'nothing'}",
                offset=offset,
                record=_RECORD,
                expected="QEVM and a version",
            )
        (version,) = struct.unpack_from(">I", state, 4)
        position, machine = 8, None
        if state[position : position + 1] == bytes([QEMU_VM_CONFIGURATION]):
            length = int.from_bytes(state[position + 1 : position + 5], "big")
            text = state[position + 5 : position + 5 + length]
            machine = text.decode("ascii", "replace")
            position += 5 + length
        return cls(version, machine, tuple(_sections(state, position)), _description(state))


def _sections(state: bytes, position: int) -> list[QemuSection]:
    found: list[QemuSection] = []
    last_id = -1
    while len(found) < SECTIONS_MAX:
        match = _HEADER.search(state, position)
        if match is None:
            break
        position = match.start() + 1
        name_end = match.end() + match["length"][0]
        name = state[match.end() : name_end]
        section_id = int.from_bytes(match["id"], "big")
        if section_id <= last_id or not _NAME.match(name):
            continue
        if len(state) - name_end < _NUMBERS.size:
            continue
        instance_id, version = _NUMBERS.unpack_from(state, name_end)
        if instance_id > _INSTANCE_MAX or version > _VERSION_MAX:
            continue
        found.append(
            QemuSection(section_id, name.decode("ascii"), instance_id, version, match.start(), 0)
        )
        last_id = section_id
        position = name_end + _NUMBERS.size
    ends = [section.offset for section in found[1:]] + [len(state)]
    return [replace(section, length=end - section.offset) for section, end in zip(found, ends)]


def _description(state: bytes) -> Any:
    start = state.rfind(b"\0" + bytes([QEMU_VM_VMDESCRIPTION]))
    if start < 0:
        return None
    length = int.from_bytes(state[start + 2 : start + 6], "big")
    try:
        return json.loads(state[start + 6 : start + 6 + length])
    except (ValueError, RecursionError):  # no JSON, or nested too deeply
        return None
