"""The stream builder: right by default, in every combination, and wrong exactly where asked."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from libxlsr.errors import StreamError
from libxlsr.formats import libxc, libxl, page_data, xl
from libxlsr.formats.hvm_context import HvmContext
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.records import decode_libxc_body
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.pages import PageBatch, stamped_page
from libxlsr.testing.parts import IMAGE_HEADER, join, layer_of, record_part, split

KINDS: list[dict[str, Any]] = [
    {},
    {"xl_header": False},
    {"guest": "pvh", "version": 2},
    {"guest": "pvh", "vcpus": 4, "dirtied": [[1, 2, 3], [2]]},
    {"guest": "pv"},
    {"guest": "pv", "guest_width": 4, "version": 2, "pages": 2500, "vcpus": 2, "types": {5: 0xF}},
    {"checkpoints": [[3, 4], []], "xenstore": [("physmap/a0000/size", "20000")]},
    {"verify": True, "dirtied": [[0]], "batch": 3, "types": {2: 0xE, 3: 0xD}},
    {"config": {"c_info": {"type": "hvm", "name": "x"}}},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_is_built_decodes(kind: dict[str, Any]) -> None:
    stream = StreamBuilder(**kind)
    data = stream.build()
    assert len(data) == stream.size
    parts = split(data)
    assert join(parts) == data
    assert [part.name for part in parts] == [part.name for part in stream.parts]
    for part in parts:
        body = part.body_bytes()
        if part.is_page_data:
            prefix = page_data.prefix_length(body[:8], 0, len(body))
            page_data.decode_pfns(body[:prefix], 0, len(body))
        elif part.layer == "libxc" and part.type is not None:
            decode_libxc_body(RecordType(part.type), body, guest_width=kind.get("guest_width", 8))


def test_pages_hold_what_was_sent_last() -> None:
    stream = StreamBuilder(pages=8, dirtied=[[1, 2], [2]])
    assert [stream.page(gfn) for gfn in (0, 1, 2)] == [
        stamped_page(0, 0),
        stamped_page(1, 1),
        stamped_page(2, 2),
    ]
    last = stream.find(RecordType.PAGE_DATA, -1)
    assert last.body_bytes()[16:] == stamped_page(2, 2)


def test_verify_sends_again_what_the_pages_hold() -> None:
    stream = StreamBuilder(pages=3, dirtied=[[1]], verify=True)
    expected = b"".join(stream.page(gfn) for gfn in range(3))
    assert stream.find(RecordType.PAGE_DATA, -1).body_bytes()[8 + 24 :] == expected


def test_offsets_and_lies() -> None:
    stream = StreamBuilder()
    part = stream.find(RecordType.X86_TSC_INFO)
    offset = stream.offset_of(part)
    part.length = 7
    data = stream.build()
    assert data[offset : offset + 8] == b"\x08\0\0\0\x07\0\0\0"
    assert len(data) == stream.size
    end = stream.find(libxl.RecordType.END)
    end.padding = b"\1"
    assert stream.build() == data + b"\1"
    assert stream.size == len(data) + 1


def test_a_count_that_lies() -> None:
    batch = PageBatch([(1, 0), (2, 0xF)], count=9)
    assert len(b"".join(batch.chunks())) == len(batch) == 8 + 16 + 4096
    assert batch.prefix()[:8] == b"\x09\0\0\0\0\0\0\0"


def test_parts_can_be_left_out_moved_and_added() -> None:
    stream = StreamBuilder("pv")
    names = [part.name for part in stream.parts]
    info, frames = stream.find(RecordType.X86_PV_INFO), stream.find(RecordType.X86_PV_P2M_FRAMES)
    stream.swap(info, frames)
    stream.insert_before(info, record_part(0x80000001, b"abc", layer="libxc"))
    stream.insert_after(info, record_part(RecordType.VERIFY))
    stream.drop(RecordType.X86_PV_VCPU_MSRS)
    changed = [part.name for part in stream.parts]
    assert changed.index("X86_PV_P2M_FRAMES") == names.index("X86_PV_INFO")
    place = changed.index("X86_PV_INFO")
    assert changed[place - 1 : place + 2] == ["record type 0x80000001", "X86_PV_INFO", "VERIFY"]
    assert "X86_PV_VCPU_MSRS" not in changed
    stream.truncate_after(info)
    assert stream.parts[-1] is info
    assert stream.find_header(IMAGE_HEADER).body == libxc.ImageHeader(3).encode()


def test_the_layer_of_a_bare_number_is_not_guessed() -> None:
    assert layer_of(libxl.RecordType.END) == "libxl"
    assert layer_of(RecordType.END) == "libxc"
    with pytest.raises(TypeError):
        layer_of(0)


def test_split_keeps_what_follows_the_stream_and_refuses_what_is_none() -> None:
    data = StreamBuilder(xl_header=False).build()
    assert split(data + b"rest")[-1].body == b"rest"
    with pytest.raises(StreamError):
        split(data[:-8])
    with pytest.raises(StreamError):
        split(xl.SAVEFILE_HEADER_MAGIC)


def test_a_stream_is_written_piece_by_piece() -> None:
    stream = StreamBuilder("pvh", pages=3000)
    reader, writer = os.pipe()
    received = bytearray()

    def drain() -> None:
        while chunk := os.read(reader, 65536):
            received.extend(chunk)

    thread = threading.Thread(target=drain)
    thread.start()
    written = stream.write_to(writer)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert written == len(received) == stream.size
    assert bytes(received) == stream.build()
    assert max(len(chunk) for chunk in stream.chunks()) <= 1 << 20


def test_an_hvm_context_has_entries_as_long_as_xen_4_17_takes_them() -> None:
    body = StreamBuilder("pvh").find(RecordType.HVM_CONTEXT).body_bytes()
    entries = HvmContext.decode(body).entries
    assert [(entry.name, len(entry.state)) for entry in entries] == [
        ("HEADER", 24),
        ("CPU", 1032),
        ("LAPIC", 24),
        ("LAPIC_REGS", 1024),
        ("MTRR", 240),
    ]


def test_an_hvm_guest_s_context_has_its_platform_s_devices_in_xen_s_order() -> None:
    body = StreamBuilder("hvm", vcpus=2).find(RecordType.HVM_CONTEXT).body_bytes()
    entries = HvmContext.decode(body).entries
    assert [(entry.name, entry.instance) for entry in entries] == [
        ("HEADER", 0),
        ("CPU", 0),
        ("CPU", 1),
        ("PIC", 0),
        ("PIC", 1),
        ("IOAPIC", 0),
        ("LAPIC", 0),
        ("LAPIC", 1),
        ("LAPIC_REGS", 0),
        ("LAPIC_REGS", 1),
        ("PCI_IRQ", 0),
        ("ISA_IRQ", 0),
        ("PCI_LINK", 0),
        ("PIT", 0),
        ("RTC", 0),
        ("PMTIMER", 0),
        ("MTRR", 0),
        ("MTRR", 1),
    ]
