"""What inspect says of images that were built to be known, and of a real one."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from libxlsr.cli.main import main
from libxlsr.formats.hvm_context import HvmContext, HvmSaveEntry
from libxlsr.formats.hvm_params import HvmParams
from libxlsr.formats.libxc import REC_TYPE_OPTIONAL, RecordType
from libxlsr.formats.libxc_pv import X86PvInfo, X86PvP2mFrames
from libxlsr.guest_state.qemu_state import DESCRIPTION_MAX
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.damage import damage
from libxlsr.testing.parts import record_part
from libxlsr.tools.inspect import collector
from libxlsr.tools.inspect.operation import inspect
from tests.paths import EXAMPLE


@pytest.fixture
def described(tmp_path: Path) -> Any:
    def describe(data: bytes) -> dict[str, Any]:
        (tmp_path / "image").write_bytes(data)
        description = inspect(tmp_path / "image")
        assert json.loads(json.dumps(description)) == description
        return description

    return describe


def test_a_real_image() -> None:
    description = inspect(EXAMPLE)
    state = description["state"]
    assert description["image"]["good"]
    assert description["config"]["c_info"]["name"] == "ticker"
    assert description["headers"]["libxc_domain"]["xen_minor"] == 17
    assert description["memory"]["ranges"] == [
        {"first": 0, "frames": 160, "type": "NOTAB"},
        {"first": 0xC0, "frames": 576, "type": "NOTAB"},
        {"first": 0xFEFF0, "frames": 16, "type": "NOTAB"},
    ]
    assert len(description["memory"]["rounds"]) == 1
    assert state["hvm_params"]["STORE_PFN"] == "0xfeffc"
    assert state["hvm_context"]["CPU[0]"]["rip"] == "0x10005f"
    assert state["hvm_context"]["LAPIC[0]"]["apic_base_msr"] == "0xfee00900"
    assert state["hvm_context"]["MTRR[0]"]["pat"] == "0x7040600070406"
    assert state["hvm_context"]["IOAPIC[0]"]["redirtbl"][0] == "0x10000"
    assert state["tsc"]["khz"] == 2299999
    assert {"LM", "NX", "SSE2", "HYPERVISOR"} <= set(state["cpuid"]["features"])
    assert state["msrs"] == {"0xce": "0x80000000", "0x10a": "0x0"}
    sections = state["emulator"]["sections"]
    assert [section["name"] for section in sections][:4] == ["timer", "cpu_common", "cpu", "apic"]
    assert sections[-1]["name"] == "0000:00:02.0/platform"
    header = 14 + len(sections[-1]["name"])
    data = 4 + 256 + 4 * 4 + 1  # a PCI device's version, configuration and interrupts; the flags
    assert sections[-1]["length"] == header + data
    assert sections[-1]["offset"] + header + data + 1 == state["emulator"]["bytes"], "EOF is last"


def test_each_record_stands_where_it_is_said_to(described: Any) -> None:
    stream = StreamBuilder("pv", dirtied=[[1]], xenstore=())
    records = described(stream.build())["records"]
    parts = [part for part in stream.parts if part.type is not None]
    assert [(one["name"], one["offset"], one["length"]) for one in records] == [
        (part.name, stream.offset_of(part), len(part.body)) for part in parts
    ]


def test_the_iterations_of_a_live_migration(described: Any) -> None:
    memory = described(
        StreamBuilder("pvh", pages=20, batch=8, types={2: 0xF}, dirtied=[[1, 9], [9]]).build()
    )["memory"]
    assert [(one["frames"], one["pages"]) for one in memory["rounds"]] == [(20, 19), (2, 2), (1, 1)]
    assert memory["sent_again"] == 3
    assert memory["existing"] == 19
    assert memory["frames"] == {"NOTAB": 19, "XTAB": 1}


def test_an_iteration_that_begins_above_the_last(described: Any) -> None:
    stream = StreamBuilder("pvh", pages=64, dirtied=[[1, 2, 3], [10, 11], [20, 21]], batch=8)
    rounds = described(stream.build())["memory"]["rounds"]
    assert [one["frames"] for one in rounds] == [64, 3, 2, 2]


def test_an_iteration_of_full_records_is_one_with_what_follows_above_it(described: Any) -> None:
    stream = StreamBuilder("pvh", pages=64, dirtied=[range(8), range(10, 15), [20]], batch=8)
    rounds = described(stream.build())["memory"]["rounds"]
    assert [one["frames"] for one in rounds] == [64, 13, 1]


def test_checkpoints(described: Any) -> None:
    description = described(StreamBuilder(checkpoints=[[1], [2, 3], [4]]).build())
    assert description["checkpoints"] == 3
    rounds = description["memory"]["rounds"]
    assert [(one["frames"], one["checkpoint"]) for one in rounds] == [
        (16, None),
        (1, None),
        (2, 2),
        (1, 3),
    ]


def test_a_pv_guest(described: Any) -> None:
    state = described(StreamBuilder("pv", vcpus=2, guest_width=4).build())["state"]
    assert state["pv_info"] == {"guest_width": 4, "pt_levels": 3}
    assert state["p2m"] == {"first_pfn": "0x0", "last_pfn": "0xf", "frames": 1}
    assert sorted(state["vcpus"]) == ["0", "1"]
    assert state["vcpus"]["1"]["registers"]["cr3"] == "0x0"
    assert state["vcpus"]["1"]["msrs"] == {"0x0": "0x0"}
    shared_info = state["shared_info"]
    assert shared_info["wallclock_base"] == "1970-01-01T00:00:00+00:00"
    assert "booted" not in shared_info, "wc_sec knows the host's boot only"


def test_parameters_in_two_records(described: Any) -> None:
    stream = StreamBuilder()
    first = stream.find(RecordType.HVM_PARAMS)
    stream.insert_after(first, record_part(RecordType.HVM_PARAMS, HvmParams(((9, 1),)).encode()))
    params = described(stream.build())["state"]["hvm_params"]
    assert (params["STORE_PFN"], params["VIRIDIAN"]) == ("0xf", "0x1")


def test_a_p2m_in_two_records(described: Any) -> None:
    stream = StreamBuilder("pv", pages=1024)
    part = stream.find(RecordType.X86_PV_P2M_FRAMES)
    first, second = X86PvP2mFrames.decode(part.body_bytes()).p2m_pfns
    part.body = X86PvP2mFrames(0, 511, (first,)).encode()
    rest = X86PvP2mFrames(512, 1023, (second,)).encode()
    stream.insert_after(part, record_part(RecordType.X86_PV_P2M_FRAMES, rest))
    p2m = described(stream.build())["state"]["p2m"]
    assert p2m == {"first_pfn": "0x0", "last_pfn": "0x3ff", "frames": 2}


def test_an_entry_twice(described: Any) -> None:
    stream = StreamBuilder()
    part = stream.find(RecordType.HVM_CONTEXT)
    entries = HvmContext.decode(part.body_bytes()).entries
    twice = [HvmSaveEntry(19, 0, bytes([number]) + bytes(7)) for number in (1, 2)]
    part.body = HvmContext((*entries, *twice)).encode()
    devices = described(stream.build())["state"]["hvm_context"]
    assert devices["TSC_ADJUST[0]"] == {"tsc_adjust": "0x1"}
    assert devices["TSC_ADJUST[0] (2)"] == {"tsc_adjust": "0x2"}


def test_an_entry_that_an_older_xen_wrote_shorter(described: Any) -> None:
    stream = StreamBuilder()
    part = stream.find(RecordType.HVM_CONTEXT)
    entries = HvmContext.decode(part.body_bytes()).entries
    of_xen_4_9 = HvmSaveEntry(18, 0, struct.pack("<3Q", 1, 2, 3))
    part.body = HvmContext((*entries, of_xen_4_9)).encode()
    vmce = described(stream.build())["state"]["hvm_context"]["VMCE_VCPU[0]"]
    assert vmce == {"caps": "0x1", "mci_ctl2_bank0": "0x2", "mci_ctl2_bank1": "0x3"}


def test_a_width_that_changes_its_mind(described: Any) -> None:
    stream = StreamBuilder("pv")
    info = record_part(RecordType.X86_PV_INFO, X86PvInfo(4, 3).encode())
    stream.insert_before(stream.find(RecordType.END), info)
    state = described(stream.build())["state"]
    assert state["pv_info"]["guest_width"] == 4
    assert state["vcpus"]["0"]["registers"]["rip"] == "0x0"


def test_a_damaged_image_is_shown_as_far_as_it_goes(described: Any) -> None:
    stream = StreamBuilder()
    stream.find(RecordType.X86_TSC_INFO).body = b"short"
    stream.truncate_after(stream.find(RecordType.HVM_PARAMS))
    description = described(stream.build())
    assert not description["image"]["good"]
    assert {one["id"] for one in description["findings"]} == {"tsc-info", "truncated"}
    assert "tsc" not in description["state"]
    assert description["state"]["hvm_params"]["STORE_PFN"] == "0xf"


@pytest.mark.parametrize("guest", ["pv", "hvm"])
@pytest.mark.parametrize(
    "seeds", [range(50), pytest.param(range(50, 150), marks=pytest.mark.slow)], ids=str
)
def test_no_damage_makes_it_fall_over(described: Any, guest: str, seeds: range) -> None:
    parts = StreamBuilder(guest, batch=5, dirtied=[[1, 2]]).parts
    for seed in seeds:
        data = damage(parts, seed).data
        if data.startswith((b"Xen save", b"LibxlFmt")):
            described(data)


def test_a_device_models_description_that_is_too_large_is_said(
    described: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = b'{"devices": []}'.ljust(DESCRIPTION_MAX + 1)
    state = b"QEVM\0\0\0\3\0\6" + len(text).to_bytes(4, "big") + text
    description = described(StreamBuilder(emulator=state).build())
    assert description["state"]["emulator"]["description"] is None
    said = "the device model's description of itself, of 1048577 bytes"
    assert description["left_out"] == [said]
    main(["inspect", str(tmp_path / "image")])
    assert said in capsys.readouterr().out


def test_what_there_is_no_room_for_is_said(described: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "RECORDS_MAX", 5)
    monkeypatch.setattr(collector, "STATE_MAX", 1100)
    monkeypatch.setattr(collector, "EMULATOR_STATE_MAX", 550)
    monkeypatch.setattr(collector, "ROUNDS_MAX", 1)
    description = described(StreamBuilder(dirtied=[[1], [1]]).build())
    assert len(description["records"]) == 5
    counted = [one for one in description["record_counts"] if one["name"] == "PAGE_DATA"]
    length = 3 * 8 + 18 * (8 + 4096)
    assert counted == [{"layer": "libxc", "name": "PAGE_DATA", "number": 3, "bytes": length}]
    assert len(description["memory"]["rounds"]) == 1
    assert description["left_out"] == [
        "places of records after the first 5",
        "rounds of frames after the first 1",
        "HVM_CONTEXT of 2992 bytes",
        "the device model's state after its first 550 bytes",
    ]


def test_kinds_of_records_that_there_is_no_room_for(
    described: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "KINDS_MAX", 9)
    stream = StreamBuilder()
    for number in range(20):
        optional = record_part(REC_TYPE_OPTIONAL | number, layer="libxc")
        stream.insert_before(stream.find(RecordType.END), optional)
    description = described(stream.build())
    assert len(description["record_counts"]) == 9
    assert description["left_out"] == ["counts of records of more than 9 kinds"]
