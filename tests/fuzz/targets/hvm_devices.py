"""Invariant: any bytes of any entry of HVM_CONTEXT are fields that JSON can hold, or a StreamError
at an offset within them, or of no known layout. Byte 0 chooses the entry."""

from __future__ import annotations

import json
from collections.abc import Mapping

from libxlsr.formats.hvm_context import HvmContext, hvm_save_name
from libxlsr.formats.libxc import RecordType
from libxlsr.guest_state.hvm_cpu import HvmCpu
from libxlsr.guest_state.hvm_devices import decode_device
from libxlsr.testing.builder import StreamBuilder

from ..invariants import decoded


def check(data: bytes) -> None:
    if not data:
        return
    name = hvm_save_name(data[0])
    fields = decoded(lambda state, offset: (decode_device(name, state, offset),), data[1:])
    assert fields is None or json.dumps(fields)
    cpu = decoded(HvmCpu.decode, data[1:])
    if cpu is not None:
        padding = 0 if cpu.flags is None else 4  # of the C structure: nobody looks at it
        length = len(data) - 1 - padding
        assert cpu.encode()[:length] == data[1:][:length]


def seeds() -> Mapping[str, bytes]:
    body = StreamBuilder("hvm", pages=1).find(RecordType.HVM_CONTEXT).body_bytes()
    found = {
        f"entry-{entry.typecode}": bytes([entry.typecode]) + entry.state
        for entry in HvmContext.decode(body).entries
    }
    sizes = {3: 8, 4: 336, 5: 12, 7: 8, 8: 8, 9: 8, 10: 76, 11: 14, 12: 152, 13: 8, 14: 240}
    for typecode, size in sizes.items():
        found[f"zeros-{typecode}"] = bytes([typecode]) + bytes(size)
    return found
