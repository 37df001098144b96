"""Invariant: libxc's order checker takes END or CHECKPOINT only of a domain that is complete, and
nothing after END; what it refuses leaves no trace. Byte 0 is the domain, any other a record."""

from __future__ import annotations

from collections.abc import Mapping

from libxlsr.errors import StreamError
from libxlsr.formats.framing import REC_TYPE_OPTIONAL
from libxlsr.formats.libxc import DHDR_TYPE_X86_HVM, DHDR_TYPE_X86_PV, DomainHeader, RecordType
from libxlsr.formats.libxc_order import RecordOrder

from ..invariants import check_message

R = RecordType
TYPES = list(RecordType)
OPTIONAL = REC_TYPE_OPTIONAL | 0x42


def check(data: bytes) -> None:
    if not data:
        return
    is_pv, version = bool(data[0] & 1), 2 + (data[0] >> 1 & 1)
    checkpointed, converted = bool(data[0] & 4), bool(data[0] & 8)
    kind = DHDR_TYPE_X86_PV if is_pv else DHDR_TYPE_X86_HVM
    domain = DomainHeader(kind, 0 if converted else 4, 17)
    order = RecordOrder(version, domain, checkpointed=checkpointed)
    taken: list[int] = []
    for byte in data[1:]:
        record_type = OPTIONAL if byte == 0xFF else int(TYPES[byte % len(TYPES)])
        try:
            order.check(record_type, 0)
        except StreamError as error:
            check_message(error)
            continue
        assert R.END not in taken
        if record_type in (R.END, R.CHECKPOINT):
            _check_complete(taken, is_pv, version, converted)
        assert record_type != R.CHECKPOINT or checkpointed
        taken.append(record_type)
        if record_type == R.X86_PV_VCPU_BASIC:
            order.vcpu_basic(0)


def _check_complete(taken: list[int], is_pv: bool, version: int, converted: bool) -> None:
    """Everything without which xc_domain_restore() leaves a guest that can't run."""
    assert R.PAGE_DATA in taken
    assert converted or R.X86_TSC_INFO in taken
    if is_pv:
        assert taken.index(R.X86_PV_INFO) < taken.index(R.X86_PV_P2M_FRAMES)
        assert taken.index(R.X86_PV_P2M_FRAMES) < taken.index(R.PAGE_DATA)
        assert R.SHARED_INFO in taken
        assert R.X86_PV_VCPU_BASIC in taken
        assert R.HVM_CONTEXT not in taken
    else:
        assert R.HVM_CONTEXT in taken
        assert converted or R.HVM_PARAMS in taken
        assert R.X86_PV_INFO not in taken
    if version >= 3:
        assert taken.count(R.STATIC_DATA_END) == 1
        assert taken.index(R.STATIC_DATA_END) < taken.index(R.PAGE_DATA)
    else:
        assert R.STATIC_DATA_END not in taken


def seeds() -> Mapping[str, bytes]:
    pv = [R.X86_PV_INFO, R.X86_CPUID_POLICY, R.STATIC_DATA_END, R.X86_PV_P2M_FRAMES, R.PAGE_DATA]
    pv += [R.X86_TSC_INFO, R.SHARED_INFO, R.X86_PV_VCPU_BASIC, R.X86_PV_VCPU_MSRS, R.END]
    hvm = [R.STATIC_DATA_END, R.PAGE_DATA, R.X86_TSC_INFO, R.HVM_CONTEXT, R.HVM_PARAMS]
    hvm += [R.CHECKPOINT, R.PAGE_DATA, R.END]

    def encoded(domain: int, records: list[RecordType]) -> bytes:
        return bytes([domain, *(TYPES.index(record) for record in records)])

    return {
        "pv": encoded(3, pv),
        "pv-v2": encoded(1, [record for record in pv if record not in pv[1:3]]),
        "hvm-checkpointed": encoded(6, hvm),
        "hvm-converted": encoded(8, [R.PAGE_DATA, R.HVM_CONTEXT, R.END]),
    }
