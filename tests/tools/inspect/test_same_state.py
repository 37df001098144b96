"""The guest's state is the same for diff where verify's digests are, and never otherwise."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from libxlsr.cli.main import main
from libxlsr.errors import StreamError
from libxlsr.formats.hvm_context import HvmContext, HvmSaveEntry
from libxlsr.formats.hvm_params import HvmParams
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxl import RecordType as LibxlRecordType
from libxlsr.guest_state.hvm_cpu import HvmCpu
from libxlsr.libxc import frame_map
from libxlsr.testing.builder import StreamBuilder
from libxlsr.testing.parts import record_part
from libxlsr.tools.inspect import collector
from libxlsr.tools.inspect.difference import Difference
from libxlsr.tools.inspect.operation import diff
from libxlsr.tools.verify.operation import verify
from libxlsr.tools.verify.verifier import Verified

STATE = {
    RecordType.X86_PV_INFO,
    RecordType.X86_PV_P2M_FRAMES,
    RecordType.X86_PV_VCPU_BASIC,
    RecordType.X86_PV_VCPU_EXTENDED,
    RecordType.X86_PV_VCPU_XSAVE,
    RecordType.X86_PV_VCPU_MSRS,
    RecordType.SHARED_INFO,
    RecordType.X86_TSC_INFO,
    RecordType.HVM_CONTEXT,
    RecordType.HVM_PARAMS,
    RecordType.X86_CPUID_POLICY,
    RecordType.X86_MSR_POLICY,
}


@pytest.fixture
def compare(tmp_path: Path) -> Any:
    def compared(a: StreamBuilder, b: StreamBuilder) -> Difference:
        one, other = (_verified(stream, tmp_path / name) for stream, name in ((a, "a"), (b, "b")))
        assert one.good
        assert other.good
        found = diff(tmp_path / "a", tmp_path / "b")
        assert found.same_state == (one.digest == other.digest)
        named = found.state or found.not_decoded or found.device_model or found.pages.any
        assert found.same_state != bool(named)
        return found

    return compared


def _verified(stream: StreamBuilder, path: Path) -> Verified:
    path.write_bytes(stream.build())
    return verify(path, digest=True)


@pytest.mark.parametrize("guest", ["pv", "hvm"])
def test_any_bit_of_the_state(compare: Any, tmp_path: Path, guest: str) -> None:
    chance = random.Random(guest)
    compared = 0
    for _ in range(80):
        other = everything(guest)
        libxl = [part for part in other.parts if part.layer == "libxl" and part.body_bytes()]
        state = [part for part in other.parts if part.layer == "libxc" and part.type in STATE]
        part = chance.choice(state + libxl[1:])  # the first is the header
        body = bytearray(part.body_bytes())
        place = chance.choice([chance.randrange(len(body)), len(body) - 1])
        body[place] ^= 1 << chance.randrange(8)
        part.body = bytes(body)
        if _verified(other, tmp_path / "b").good:
            assert not compare(everything(guest), other).same_state
            compared += 1
    assert compared > 40


def everything(guest: str) -> StreamBuilder:
    """With entries in HVM_CONTEXT that are decoded whole, in part, and not at all."""
    if guest == "pv":
        return StreamBuilder(guest)
    stream = StreamBuilder(guest, xenstore=[("physmap/1/size", "10")])
    part = stream.find(RecordType.HVM_CONTEXT)
    entries = HvmContext.decode(part.body_bytes()).entries
    sizes = {6: 1024, 12: 1048, 16: 1200, 19: 8, 99: 400}
    more = [HvmSaveEntry(typecode, 0, bytes(size)) for typecode, size in sizes.items()]
    part.body = HvmContext((*entries, *more)).encode()
    return stream


def flipped(record_type: RecordType, place: int, guest: str) -> StreamBuilder:
    stream = StreamBuilder(guest)
    part = stream.find(record_type)
    body = bytearray(part.body_bytes())
    body[place] ^= 1
    part.body = bytes(body)
    return stream


@pytest.mark.parametrize(
    ("record_type", "place", "name"),
    [
        (RecordType.X86_PV_VCPU_XSAVE, -1, "X86_PV_VCPU_XSAVE 0"),
        (RecordType.SHARED_INFO, 10, "SHARED_INFO"),
        (RecordType.X86_PV_P2M_FRAMES, 8, "X86_PV_P2M_FRAMES"),
    ],
)
def test_bytes_that_are_not_decoded_are_named(
    compare: Any, record_type: RecordType, place: int, name: str
) -> None:
    found = compare(StreamBuilder("pv"), flipped(record_type, place, "pv"))
    assert (found.state, found.not_decoded) == ((), (name,))


def with_entry(entry: HvmSaveEntry, rip: int = 0) -> StreamBuilder:
    stream = StreamBuilder()
    part = stream.find(RecordType.HVM_CONTEXT)
    header = HvmContext.decode(part.body_bytes()).entries[0]
    cpu = HvmSaveEntry(2, 0, HvmCpu({"rip": rip}, bytes(512), 0).encode())
    part.body = HvmContext((header, cpu, entry)).encode()
    return stream


@pytest.mark.parametrize(
    ("typecode", "size", "place", "name"),
    [
        (16, 1200, 1100, "CPU_XSAVE"),
        (99, 400, 300, "typecode 99"),
        (6, 1024, 4, "LAPIC_REGS"),
        (12, 2000, 8, "HPET"),
    ],
)
def test_a_device_is_named_beside_others_that_differ(
    compare: Any, typecode: int, size: int, place: int, name: str
) -> None:
    state = bytearray(size)
    one = with_entry(HvmSaveEntry(typecode, 0, bytes(state)))
    state[place] = 1
    found = compare(one, with_entry(HvmSaveEntry(typecode, 0, bytes(state)), rip=1))
    assert [change.path for change in found.state] == ["hvm_context.CPU[0].rip"]
    assert found.not_decoded == (f"HVM_CONTEXT {name}[0]",)


def test_the_first_of_two_records_of_parameters(compare: Any) -> None:
    def stream(value: int) -> StreamBuilder:
        built = StreamBuilder()
        part = built.find(RecordType.HVM_PARAMS)
        params = HvmParams.decode(part.body_bytes()).params
        part.body = HvmParams((*params, (9, value))).encode()
        second = HvmParams(((12, 1),)).encode()
        built.insert_after(part, record_part(RecordType.HVM_PARAMS, second))
        return built

    (change,) = compare(stream(0), stream(1)).state
    assert (change.path, change.a, change.b) == ("hvm_params.VIRIDIAN", "0x0", "0x1")


def test_a_record_that_only_one_has(compare: Any) -> None:
    other = StreamBuilder("pv")
    other.drop(RecordType.X86_PV_VCPU_MSRS)
    assert [change.path for change in compare(StreamBuilder("pv"), other).state] == [
        "vcpus.0.msrs.0x0"
    ]
    empty = StreamBuilder("pv")
    part = empty.find(RecordType.X86_PV_VCPU_MSRS)
    part.body = part.body_bytes()[:8]
    (change,) = compare(empty, other).state
    assert (change.path, change.a, change.b) == ("vcpus.0.msrs", {}, None)


def test_a_device_model_beyond_what_is_kept(compare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "EMULATOR_STATE_MAX", 4096)
    state = b"QEVM" + bytes(5000)
    one, other = StreamBuilder(emulator=state), StreamBuilder(emulator=state[:-1] + b"\1")
    found = compare(one, other)
    assert found.device_model
    assert (found.state, found.not_decoded) == ((), ())


def test_of_state_there_was_no_room_for(compare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "STATE_MAX", 100)
    other = flipped(RecordType.X86_PV_VCPU_BASIC, 600, "pv")
    assert compare(StreamBuilder("pv"), other).not_decoded == ("X86_PV_VCPU_BASIC 0",)
    assert compare(StreamBuilder("pv"), StreamBuilder("pv")).same_state


def test_an_image_without_a_digest_is_refused(tmp_path: Path) -> None:
    stream = StreamBuilder("pv", checkpoints=[[1], [2]])
    stream.truncate_after(stream.find(LibxlRecordType.CHECKPOINT_END, -1))
    (tmp_path / "broke-off").write_bytes(stream.build())
    with pytest.raises(StreamError, match=r"can't be compared: .*checkpoint 2 is whole"):
        diff(tmp_path / "broke-off", tmp_path / "broke-off")


def test_an_image_with_frames_that_are_not_kept_track_of_is_refused(
    compare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_map, "CHUNKS_MAX", 0)
    with pytest.raises(StreamError, match=r"can't be compared: .*16 entries were not kept"):
        compare(StreamBuilder(), StreamBuilder())


def test_for_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    one.write_bytes(StreamBuilder("pv").build())
    other.write_bytes(flipped(RecordType.X86_PV_VCPU_XSAVE, -1, "pv").build())
    assert main(["diff", str(one), str(other)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "X86_PV_VCPU_XSAVE 0: differs in bytes that are not decoded",
        "pages: 16 the same",
        "the guest's state differs",
    ]
