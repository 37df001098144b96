"""The device model's state as QEMU writes it: which devices' sections are in it.

::

    "QEVM", version u32, then sections:
    START 1 or FULL 4    section id u32, name (length u8, text), instance u32, version u32, data
    FOOTER 0x7e          section id u32; behind each section or behind none
    EOF 0, and in streams with a description   VMDESCRIPTION 6, length u32, JSON

All big-endian. A section's data has no length: only its device knows how long it is, and Xen's
machine types leave out the footers that would mark its end. So sections are found by what their
headers look like (ids that grow, a name, small numbers): good enough to look at, and nothing to
restore a device from. One ends where the next begins or EOF stands, before its footer if it has
one. Xen starts QEMU with suppress-vmdesc=on, and the description
is seldom there. It ends the state, which is how it is told from other bytes like its header.

Source: QEMU's migration/savevm.c and docs/devel/migration.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, replace
from typing import Any

from libxlsr.errors import StreamError
from libxlsr.formats.libxl import QEMU_VM_FILE_MAGIC

QEMU_VM_EOF = 0
QEMU_VM_VMDESCRIPTION = 6
QEMU_VM_CONFIGURATION = 7
QEMU_VM_SECTION_FOOTER = 0x7E

SECTIONS_MAX = 4096
DESCRIPTION_MAX = 1 << 20
"""Bytes of a description that are parsed: QEMU's are smaller."""
_DESCRIPTION_DEPTH = 64
_EOF = bytes([QEMU_VM_EOF])
_DESCRIPTION_START = _EOF + bytes([QEMU_VM_VMDESCRIPTION])
_LENGTH = struct.Struct(">I")
_FOOTER = struct.Struct(">BI")
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
    """One device's section. ``offset`` and ``length`` count in the state, with the header and
    without the footer."""

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
    description_size: int = 0
    """Bytes of QEMU's own description of the sections, 0 where there is none."""
    description: dict[str, Any] | None = None
    """The description (JSON), None where it has more than DESCRIPTION_MAX bytes too."""

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
        size, description = _description(state, position)
        if size:
            end = len(state) - size - _LENGTH.size - len(_DESCRIPTION_START)
        else:
            end = len(state) - state.endswith(_EOF)
        return cls(version, machine, tuple(_sections(state, position, end)), size, description)


def _sections(state: bytes, position: int, end: int) -> list[QemuSection]:
    """The sections before ``end``, where EOF stands."""
    found: list[QemuSection] = []
    data_begins: list[int] = []
    last_id = -1
    while len(found) < SECTIONS_MAX:
        match = _HEADER.search(state, position, end)
        if match is None:
            break
        position = match.start() + 1
        name_end = match.end() + match["length"][0]
        name = state[match.end() : name_end]
        section_id = int.from_bytes(match["id"], "big")
        if section_id <= last_id or not _NAME.match(name):
            continue
        if end - name_end < _NUMBERS.size:
            continue
        instance_id, version = _NUMBERS.unpack_from(state, name_end)
        if instance_id > _INSTANCE_MAX or version > _VERSION_MAX:
            continue
        found.append(
            QemuSection(section_id, name.decode("ascii"), instance_id, version, match.start(), 0)
        )
        last_id = section_id
        position = name_end + _NUMBERS.size
        data_begins.append(position)
    limits = [section.offset for section in found[1:]] + [end]
    return [
        replace(section, length=_data_end(state, section, begin, limit) - section.offset)
        for section, begin, limit in zip(found, data_begins, limits)
    ]


def _data_end(state: bytes, section: QemuSection, begin: int, limit: int) -> int:
    """Where a section's data ends that begins at ``begin``; at ``limit`` something else begins."""
    footer = _FOOTER.pack(QEMU_VM_SECTION_FOOTER, section.section_id)
    return limit - len(footer) if state.endswith(footer, begin, limit) else limit


def _description(state: bytes, position: int) -> tuple[int, dict[str, Any] | None]:
    """The description's size, and what it says."""
    last = state.rfind(_DESCRIPTION_START)  # which no JSON has, but its length may
    for start in range(max(position, last - _LENGTH.size - 1), last + 1):
        text = start + len(_DESCRIPTION_START) + _LENGTH.size
        if not state.startswith(_DESCRIPTION_START, start) or state[text : text + 1] != b"{":
            continue
        (size,) = _LENGTH.unpack_from(state, text - _LENGTH.size)
        if text + size != len(state):
            continue
        if size > DESCRIPTION_MAX:
            return size, None
        try:
            described = json.loads(
                state[text:], parse_float=_refuse_number, parse_constant=_refuse_number
            )
        except (ValueError, RecursionError):  # no JSON, or nested too deeply
            continue
        if _is_shallow(described):
            return size, described
    return 0, None


def _refuse_number(text: str) -> Any:
    raise ValueError(f"{text} is no whole number, and QEMU writes no others")


def _is_shallow(root: Any) -> bool:
    """Whether it can be walked down by recursion."""
    level = [root]
    for _ in range(_DESCRIPTION_DEPTH):
        below = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, (dict, list))
        ]
        if not below:
            return True
        level = below
    return False
