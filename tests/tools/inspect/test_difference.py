"""A difference is found by name, and nothing else is."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from libxlsr.errors import StreamError
from libxlsr.formats.cpu_policy import CpuidLeaf, X86CpuidPolicy
from libxlsr.formats.hvm_context import HvmContext, HvmSaveEntry
from libxlsr.formats.hvm_params import HvmParams
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import X86PvVcpu
from libxlsr.guest_state.hvm_cpu import HvmCpu
from libxlsr.guest_state.vcpu_guest_context import VcpuGuestContext
from libxlsr.testing.builder import StreamBuilder, config_json
from libxlsr.tools.inspect import collector
from libxlsr.tools.inspect.difference import Change, Difference, changes
from libxlsr.tools.inspect.operation import diff


@pytest.fixture
def compare(tmp_path: Path) -> Any:
    def compared(a: StreamBuilder, b: StreamBuilder) -> Difference:
        (tmp_path / "a").write_bytes(a.build())
        (tmp_path / "b").write_bytes(b.build())
        return diff(tmp_path / "a", tmp_path / "b")

    return compared


@pytest.mark.parametrize("guest", ["pv", "pvh", "hvm"])
def test_nothing(compare: Any, guest: str) -> None:
    found = compare(StreamBuilder(guest), StreamBuilder(guest))
    assert found.same_state
    assert (found.config, found.state, found.records) == ((), (), {})
    assert found.pages.same == 16


def test_how_it_was_written(compare: Any) -> None:
    found = compare(StreamBuilder(), StreamBuilder(batch=4))
    assert found.same_state
    assert found.records == {"libxc PAGE_DATA": (1, 4)}


def test_records_of_which_not_all_places_are_kept(
    compare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "RECORDS_MAX", 3)
    assert compare(StreamBuilder(), StreamBuilder(batch=4)).records == {"libxc PAGE_DATA": (1, 4)}


def test_pages(compare: Any) -> None:
    one = StreamBuilder(pages=40, types={9: 0xF, 20: 0xF})
    other = StreamBuilder(pages=42, types={9: 0xF, 30: 0xF}, dirtied=[[3, 4, 5, 11]])
    pages = compare(one, other).pages
    assert pages.contents.ranges == [(3, 3), (11, 1)]
    assert pages.contents.frames == 4
    assert pages.only_in_a.ranges == [(30, 1)]
    assert pages.only_in_b.ranges == [(20, 1), (40, 2)]
    assert pages.type.frames == 0
    assert pages.same == 40 - 3 - 4


def test_types_of_pages(compare: Any) -> None:
    found = compare(StreamBuilder("pv"), StreamBuilder("pv", types={3: 1}))
    assert found.pages.type.ranges == [(3, 1)]
    assert not found.same_state


def test_configuration(compare: Any) -> None:
    one, other = config_json("pv", 16), config_json("pv", 16, name="other")
    del other["on_reboot"]
    found = compare(StreamBuilder("pv", config=one), StreamBuilder("pv", config=other))
    assert found.config == (
        Change("c_info.name", "guest", "other"),
        Change("on_reboot", "restart", None),
    )
    assert found.same_state


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (["tablet", "mouse"], ["mouse", "tablet"], (["tablet", "mouse"], ["mouse", "tablet"])),
        (["mouse", "mouse"], ["mouse"], (["mouse", "mouse"], ["mouse"])),
        (["tablet", "mouse"], ["keyboard", "tablet"], (["mouse"], ["keyboard"])),
        ([], ["mouse"], ([], ["mouse"])),
    ],
)
def test_lists_of_the_configuration(
    before: list[str], after: list[str], expected: tuple[list[str], list[str]], compare: Any
) -> None:
    one, other = config_json("hvm", 16), config_json("hvm", 16)
    one["b_info"]["usbdevice_list"], other["b_info"]["usbdevice_list"] = before, after
    found = compare(StreamBuilder(config=one), StreamBuilder(config=other))
    assert found.config == (Change("b_info.usbdevice_list", *expected),)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"x": 1}, {"x": True}, [Change("x", 1, True)]),
        ({"x": [0, "a"]}, {"x": [False, "a"]}, [Change("x", [0, "a"], [False, "a"])]),
        ({"x": [{"a": 1, "b": 2}]}, {"x": [{"b": 2, "a": 1}]}, []),
        ({"a.b": 1, "a": {"b": 2}}, {"a.b": 9, "a": {"b": 2}}, [Change("a.b", 1, 9)]),
        ({"a": {}}, {"a": {"b": 1}}, [Change("a.b", None, 1)]),
        ({"a": {"c": 1}, "a.b": 1}, {"a": {}, "a.b": 1}, [Change("a.c", 1, None)]),
        ({"a": {}, "a.b": 1}, {"a.b": 1}, [Change("a", {}, None)]),
    ],
)
def test_values(before: dict[str, Any], after: dict[str, Any], expected: list[Change]) -> None:
    assert list(changes(before, after)) == expected


def test_registers_of_an_hvm_vcpu(compare: Any) -> None:
    def stream(rip: int) -> StreamBuilder:
        built = StreamBuilder()
        part = built.find(RecordType.HVM_CONTEXT)
        header = HvmContext.decode(part.body_bytes()).entries[0]
        cpu = HvmCpu({"rip": rip, "cr3": 0x1000}, bytes(512), 0).encode()
        part.body = HvmContext((header, HvmSaveEntry(2, 0, cpu))).encode()
        return built

    found = compare(stream(0x10), stream(0xFFFFFFFF81000000))
    assert found.state == (Change("hvm_context.CPU[0].rip", "0x10", "0xffffffff81000000"),)


def test_registers_of_a_pv_vcpu(compare: Any) -> None:
    other = StreamBuilder("pv")
    context = VcpuGuestContext(8, {"rsp": 0x5000}).encode()
    body = X86PvVcpu(RecordType.X86_PV_VCPU_BASIC, 0, context).encode()
    other.find(RecordType.X86_PV_VCPU_BASIC).body = body
    found = compare(StreamBuilder("pv"), other)
    assert found.state == (Change("vcpus.0.registers.rsp", "0x0", "0x5000"),)


@pytest.mark.parametrize(
    ("record_type", "place", "path"),
    [
        (RecordType.X86_PV_VCPU_BASIC, 24, "registers.fpu.mxcsr"),
        (RecordType.X86_PV_VCPU_BASIC, 160, "registers.fpu.xmm0"),
        (RecordType.X86_PV_VCPU_BASIC, 512 + 8 + 200 + 14 * 16 + 8, "registers.traps.14"),
        (RecordType.X86_PV_VCPU_EXTENDED, 8, "extended.syscall32_callback_eip"),
        (RecordType.X86_PV_VCPU_EXTENDED, 29, "extended.sysenter_disables_events"),
        (RecordType.X86_PV_VCPU_EXTENDED, 40, "extended.mci_ctl2_bank0"),
        (RecordType.X86_PV_VCPU_XSAVE, 8, "xsave.xcr0_accum"),
        (RecordType.X86_PV_VCPU_XSAVE, 16 + 32, "xsave.fpu.st0"),
        (RecordType.X86_PV_VCPU_XSAVE, 16 + 512, "xsave.xstate_bv"),
    ],
)
def test_each_context_of_a_pv_vcpu(
    compare: Any, record_type: RecordType, place: int, path: str
) -> None:
    other = StreamBuilder("pv")
    part = other.find(record_type)
    body = bytearray(part.body_bytes())
    body[8 + place] = 1
    part.body = bytes(body)
    (change,) = compare(StreamBuilder("pv"), other).state
    assert change.path == f"vcpus.0.{path}"


def test_the_fpu_of_an_hvm_vcpu(compare: Any) -> None:
    def stream(fpu: bytes, flags: int) -> StreamBuilder:
        built = StreamBuilder()
        part = built.find(RecordType.HVM_CONTEXT)
        header = HvmContext.decode(part.body_bytes()).entries[0]
        xsave = HvmSaveEntry(16, 0, bytes(24) + fpu + bytes(64))
        cpu = HvmSaveEntry(2, 0, HvmCpu({}, fpu, flags).encode())
        part.body = HvmContext((header, cpu, xsave)).encode()
        return built

    other = stream(b"\x7f\x03" + bytes(510), 1)
    assert compare(stream(bytes(512), 0), other).state == (
        Change("hvm_context.CPU[0].flags", "0x0", "0x1"),
        Change("hvm_context.CPU[0].fpu.fcw", "0x0", "0x37f"),
        Change("hvm_context.CPU_XSAVE[0].fpu.fcw", "0x0", "0x37f"),
    )


def test_parameters_and_features(compare: Any) -> None:
    other = StreamBuilder()
    part = other.find(RecordType.HVM_PARAMS)
    params = HvmParams.decode(part.body_bytes()).params
    part.body = HvmParams((*params, (9, 0x25))).encode()
    leaf = CpuidLeaf(1, 0xFFFFFFFF, 0, 0, 1 << 31, 1 << 4 | 1 << 25)
    other.find(RecordType.X86_CPUID_POLICY).body = X86CpuidPolicy((leaf,)).encode()
    changes = {change.path: change for change in compare(StreamBuilder(), other).state}
    assert changes["hvm_params.VIRIDIAN"].b == "0x25"
    features = changes["cpuid.features"]
    assert (features.a, features.b) == ([], ["HYPERVISOR", "SSE", "TSC"])


def test_the_device_model(compare: Any) -> None:
    found = compare(StreamBuilder(), StreamBuilder(emulator=b"QEVM" + bytes(1024)))
    assert found.device_model
    assert not found.same_state


def test_an_image_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    data = StreamBuilder().build()
    (tmp_path / "a").write_bytes(gzip.compress(data))
    (tmp_path / "b").write_bytes(data[:-1])
    with pytest.raises(StreamError, match=r"the image ends .*/b\)"):
        diff(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b").write_bytes(b"no image")
    with pytest.raises(StreamError, match="no Xen image"):
        diff(tmp_path / "a", tmp_path / "b")
