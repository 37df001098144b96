"""A guest's state but its memory, in pieces: what each record, or each device, says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from libxlsr.formats.hvm_context import HvmContext
from libxlsr.formats.hvm_params import HvmParams, hvm_param_name
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import X86PvVcpu
from libxlsr.formats.libxl import RecordType as LibxlRecordType
from libxlsr.formats.records import decode_libxc_body
from libxlsr.tools.inspect.collector import Collector, StateRecord
from libxlsr.tools.inspect.registers import registers
from libxlsr.tools.inspect.state_values import emulator, record_values
from libxlsr.tools.inspect.vcpu_values import VCPU_KINDS, hvm_entry, pv_vcpu


class Piece(NamedTuple):
    """One piece of the state, and what is known of it."""

    record: str
    """The record's name, with a vCPU's number, as in `GuestDigest.parts()`."""

    name: str
    """What people call the piece: the record's name, and a device's."""

    data: bytes
    """The bytes of it."""

    path: tuple[str, ...]
    """Where its values stand in the description's ``state``."""

    values: Any
    """The bytes decoded, as far as they can be: for JSON."""


def state_pieces(contents: Collector) -> Iterator[Piece]:
    """The pieces: of the whole guest, then of its vCPUs, then of its device model."""
    for name, record in sorted(contents.state.items(), key=_by_vcpu):
        body = decode_libxc_body(record.type, record.data, guest_width=record.guest_width)
        if isinstance(body, X86PvVcpu):
            path = ("vcpus", str(body.vcpu_id), VCPU_KINDS[body.type])
            yield Piece(name, name, record.data, path, pv_vcpu(body))
        elif isinstance(body, HvmContext):
            yield from _devices(name, body)
        else:
            kind, values = record_values(body, record.guest_width) or _not_shown(name, record.data)
            yield Piece(name, name, record.data, (kind,), values)
    yield from _put_together(contents)
    yield from _device_model(contents)


def _by_vcpu(item: tuple[str, StateRecord]) -> tuple[int, str]:
    """vCPUs by number, after all else."""
    number = item[0].rpartition(" ")[2]
    return int(number) if number.isdigit() else -1, item[0]


def _devices(record: str, body: HvmContext) -> Iterator[Piece]:
    seen: Counter[str] = Counter()
    for entry in body.entries:
        name = f"{entry.name}[{entry.instance}]"
        seen[name] += 1
        if seen[name] > 1:
            name = f"{name} ({seen[name]})"
        path = ("hvm_context", name)
        yield Piece(record, f"{record} {name}", entry.state, path, hvm_entry(entry))


def _put_together(contents: Collector) -> Iterator[Piece]:
    """What several records of one type say together."""
    guest = contents.libxc
    if guest is not None and guest.hvm_params is not None:
        name = RecordType.HVM_PARAMS.name
        params = HvmParams(tuple(sorted(guest.hvm_params.items())))
        values = registers({hvm_param_name(index): value for index, value in params.params})
        yield Piece(name, name, params.encode(), ("hvm_params",), values)
    if guest is not None and guest.p2m.covered:
        name = RecordType.X86_PV_P2M_FRAMES.name
        p2m = guest.p2m.whole()
        covered: dict[str, Any] = {
            **registers({"first_pfn": p2m.start_pfn, "last_pfn": p2m.end_pfn}),
            "frames": len(p2m.p2m_pfns),
        }
        yield Piece(name, name, p2m.encode(), ("p2m",), covered)


def _not_shown(name: str, data: bytes) -> tuple[str, Any]:
    """Kind and values of a record of whose values nothing is known here: its name and its size."""
    return name.lower(), {"bytes": len(data)}


def _device_model(contents: Collector) -> Iterator[Piece]:
    if contents.emulator_keys is not None:
        name = LibxlRecordType.EMULATOR_XENSTORE_DATA.name
        keys = contents.emulator_keys
        yield Piece(name, name, keys.encode(), ("emulator_keys",), dict(keys.pairs))
    if contents.emulator is not None:
        name = LibxlRecordType.EMULATOR_CONTEXT.name
        state = contents.device_model_state
        values = emulator(contents.emulator, contents.emulator_size, state)
        yield Piece(name, name, state, ("emulator",), values)
    for name, body in sorted(contents.libxl_bodies.items()):
        kind, values = _not_shown(name, body)
        yield Piece(name, name, body, (kind,), values)
