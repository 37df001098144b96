"""Invariant: any bytes are an HVM context whose entries are within them and which encodes to the
same bytes, or a StreamError at an offset within them."""

from __future__ import annotations

from collections.abc import Mapping

from libxlsr.formats.hvm_context import HvmContext, HvmSaveEntry
from libxlsr.formats.libxc import RecordType
from libxlsr.testing.builder import StreamBuilder

from ..invariants import decoded


def check(data: bytes) -> None:
    context = decoded(HvmContext.decode, data)
    if context is None:
        return
    assert context.encode() == data
    assert sum(len(entry.state) for entry in context.entries) < len(data)
    assert context.gtsc_khz >= 0
    assert context.cpuid >= 0
    for entry in context.entries:
        assert entry.name.isprintable()


def seeds() -> Mapping[str, bytes]:
    body = StreamBuilder("hvm", pages=1).find(RecordType.HVM_CONTEXT).body_bytes()
    first = HvmContext.decode(body).entries[0]
    small = HvmContext((first, HvmSaveEntry(5, 1, bytes(16)), HvmSaveEntry(99, 0, b"new")))
    return {"small": small.encode(), "header": HvmContext((first,)).encode()}
