"""Decoding and encoding every record of the images that other tests use gives its bytes again."""

from __future__ import annotations

from typing import Any

import pytest

from libxlsr.formats import libxc, libxl, page_data
from libxlsr.formats.records import decode_libxc_body
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.parts import Part, split
from tests.tools.verify.mutations import KINDS as MUTATED
from tests.tools.verify.verify_images import KINDS

T = libxl.RecordType


def encoded_again(part: Part, guest_width: int) -> bytes:
    body = part.body_bytes()
    assert part.type is not None
    if part.layer == "libxl":
        if part.type == T.EMULATOR_CONTEXT:
            head = libxl.EmulatorContext.decode(body[: libxl.EMULATOR_HEADER_SIZE])
            return head.encode() + body[libxl.EMULATOR_HEADER_SIZE :]
        if part.type == T.EMULATOR_XENSTORE_DATA:
            return libxl.EmulatorXenstoreData.decode(body).encode()
        return b""
    if part.type == libxc.RecordType.PAGE_DATA:
        prefix = page_data.prefix_length(body[: page_data.HEADER_SIZE], 0, len(body))
        batch = page_data.decode_pfns(body[:prefix], 0, len(body))
        return batch.encode() + body[prefix:]
    record_type = libxc.RecordType(part.type)
    return decode_libxc_body(record_type, body, guest_width=guest_width).encode()


@pytest.mark.parametrize("kind", [*KINDS, *MUTATED.values()], ids=str)
def test_every_record(kind: dict[str, Any]) -> None:
    stream = StreamBuilder(**kind)
    records = [part for part in split(stream.build()) if part.type is not None]
    assert len(records) == sum(part.type is not None for part in stream.parts)
    for part in records:
        assert encoded_again(part, stream.guest_width) == part.body_bytes(), part.name
