"""Invariant: any bytes are a device model's state whose sections lie in it, one behind another, or
a StreamError at an offset within them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from libxlsr.guest_state.qemu_state import SECTIONS_MAX, QemuState

from ..invariants import decoded


def check(data: bytes) -> None:
    state = decoded(QemuState.decode, data)
    if state is None:
        return
    assert len(state.sections) <= SECTIONS_MAX
    end = 8
    for section in state.sections:
        assert section.offset >= end
        end = section.offset + section.length
        assert section.name.isprintable()
    assert end <= len(data)
    ids = [section.section_id for section in state.sections]
    assert ids == sorted(set(ids))
    json.dumps(state.description)


def _section(kind: int, number: int, name: bytes, content: bytes) -> bytes:
    head = bytes([kind]) + number.to_bytes(4, "big") + bytes([len(name)]) + name
    return head + bytes(4) + (3).to_bytes(4, "big") + content


def seeds() -> Mapping[str, bytes]:
    start = b"QEVM\0\0\0\3"
    machine = b"\7\0\0\0\5xenfv"
    sections = _section(1, 2, b"timer", b"123") + _section(4, 7, b"0000:00:01.0/ide", bytes(40))
    description = b'{"devices": []}'
    footers = _section(1, 2, b"timer", b"123\x7e\0\0\0\2") + _section(4, 7, b"a1", b"\x7e\0\0\0\7")
    return {
        "footers": start + footers + b"\0",
        "sections": start + machine + sections + b"\0",
        "described": start + sections + b"\0\6\0\0\0\x0f" + description,
        "foreign": b"Foreign model",
    }
