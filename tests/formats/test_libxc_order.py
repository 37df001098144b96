"""The order of libxc's records: what real senders write passes, what can't be restored doesn't."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from libxlsr.errors import StreamError
from libxlsr.formats.libxc import DomainHeader, RecordType
from libxlsr.formats.libxc_order import RecordOrder
from libxlsr.testing.builder import StreamBuilder

T = RecordType
PV = DomainHeader(1, 4, 17)
HVM = DomainHeader(2, 4, 17)
VCPU = [T.X86_PV_VCPU_BASIC, T.X86_PV_VCPU_EXTENDED, T.X86_PV_VCPU_XSAVE, T.X86_PV_VCPU_MSRS]
PV_STATE = [T.X86_TSC_INFO, T.SHARED_INFO, *VCPU]
PV_V3 = [
    T.X86_PV_INFO,
    T.X86_CPUID_POLICY,
    T.X86_MSR_POLICY,
    T.STATIC_DATA_END,
    T.X86_PV_P2M_FRAMES,
    T.PAGE_DATA,
    *PV_STATE,
    T.END,
]
HVM_STATE = [T.X86_TSC_INFO, T.HVM_CONTEXT, T.HVM_PARAMS]
HVM_V3 = [
    T.X86_CPUID_POLICY,
    T.X86_MSR_POLICY,
    T.STATIC_DATA_END,
    T.PAGE_DATA,
    *HVM_STATE,
    T.END,
]


def feed(order: RecordOrder, types: list[int]) -> None:
    for index, record_type in enumerate(types):
        order.check(record_type, 0x100 * index)
        if record_type == T.X86_PV_VCPU_BASIC:
            order.vcpu_basic(0)


def without(types: list[RecordType], *left_out: RecordType) -> list[int]:
    return [record_type for record_type in types if record_type not in left_out]


def before(types: list[RecordType], moved: RecordType, place: RecordType) -> list[int]:
    rest = without(types, moved)
    rest.insert(rest.index(place), moved)
    return rest


V2 = (T.X86_CPUID_POLICY, T.X86_MSR_POLICY, T.STATIC_DATA_END)


@pytest.mark.parametrize(
    ("version", "header", "types"),
    [
        (3, PV, PV_V3),
        (3, HVM, HVM_V3),
        (2, PV, without(PV_V3, *V2)),
        (2, HVM, without(HVM_V3, *V2)),
        (3, HVM, before(HVM_V3, T.HVM_PARAMS, T.HVM_CONTEXT)),
        (3, HVM, [0x80000001, *HVM_V3[:-1], 0xFFFFFFFF, T.END]),
        (3, HVM, [*HVM_V3[:4], T.VERIFY, *HVM_V3[3:]]),
        (3, PV, without(PV_V3, T.X86_PV_VCPU_EXTENDED, T.X86_PV_VCPU_XSAVE, T.X86_PV_VCPU_MSRS)),
        (3, DomainHeader(1, 0, 1), without(PV_V3, T.X86_TSC_INFO)),
        (3, DomainHeader(2, 0, 1), without(HVM_V3, T.X86_TSC_INFO, T.HVM_PARAMS)),
    ],
)
def test_what_senders_write_is_taken(version: int, header: DomainHeader, types: list[int]) -> None:
    feed(RecordOrder(version, header), types)


@pytest.mark.parametrize(
    ("version", "header", "types", "words"),
    [
        (3, HVM, before(HVM_V3, T.PAGE_DATA, T.STATIC_DATA_END), "before STATIC_DATA_END"),
        (3, PV, before(PV_V3, T.X86_PV_P2M_FRAMES, T.STATIC_DATA_END), "before STATIC_DATA_END"),
        (3, HVM, [T.END], "before STATIC_DATA_END"),
        (3, HVM, [*HVM_V3[:3], T.STATIC_DATA_END], "a second STATIC_DATA_END"),
        (3, HVM, [*HVM_V3[:3], T.X86_CPUID_POLICY], "after STATIC_DATA_END"),
        (2, HVM, [T.STATIC_DATA_END], "came with version 3"),
        (2, HVM, [T.X86_CPUID_POLICY], "came with version 3"),
        (2, PV, [T.X86_MSR_POLICY], "came with version 3"),
        *((3, HVM, [kind], "in the image of an HVM domain") for kind in [*VCPU, T.SHARED_INFO]),
        (3, HVM, [T.X86_PV_INFO], "in the image of an HVM domain"),
        (3, HVM, [T.X86_PV_P2M_FRAMES], "in the image of an HVM domain"),
        (3, PV, [T.HVM_CONTEXT], "in the image of a PV domain"),
        (3, PV, [T.HVM_PARAMS], "in the image of a PV domain"),
        (3, PV, [T.X86_PV_INFO, T.X86_PV_INFO], "a second X86_PV_INFO"),
        (2, PV, [T.X86_PV_P2M_FRAMES], "before X86_PV_INFO"),
        (2, PV, [T.X86_PV_INFO, T.PAGE_DATA], "before X86_PV_P2M_FRAMES"),
        *((2, PV, [kind], "before X86_PV_INFO") for kind in [*VCPU, T.SHARED_INFO]),
        (2, PV, [T.X86_PV_INFO, T.X86_PV_VCPU_BASIC], "before PAGE_DATA"),
        (2, HVM, [T.VERIFY], "before PAGE_DATA"),
        (3, HVM, [*HVM_V3[:-1], T.CHECKPOINT], "without checkpoints"),
        (3, HVM, [T.TOOLSTACK], "TOOLSTACK"),
        (3, HVM, [T.CHECKPOINT_DIRTY_PFN_LIST], "back channel"),
        (3, HVM, [*HVM_V3, T.END], "after END"),
        (3, HVM, [*HVM_V3, 0x80000000], "after END"),
        *((3, HVM, without(HVM_V3, gone), f"no {gone.name}") for gone in [T.PAGE_DATA, *HVM_STATE]),
        *(
            (3, PV, without(PV_V3, gone), f"no {gone.name}")
            for gone in [T.X86_TSC_INFO, T.SHARED_INFO, T.X86_PV_VCPU_BASIC]
        ),
        (3, HVM, [*HVM_V3[:3], T.END], "no PAGE_DATA, no X86_TSC_INFO, no HVM_CONTEXT"),
    ],
)
def test_what_can_not_be_restored_is_refused_at_the_last_record(
    version: int, header: DomainHeader, types: list[int], words: str
) -> None:
    order = RecordOrder(version, header)
    with pytest.raises(StreamError) as caught:
        feed(order, types)
    assert words in str(caught.value)
    assert caught.value.offset is not None
    refused = types[caught.value.offset // 0x100]
    assert caught.value.record == RecordType(refused & 0x7FFFFFFF).name or refused == 0x80000000


def test_a_pv_domain_needs_its_first_vcpu() -> None:
    order = RecordOrder(3, PV)
    for record_type in PV_V3[:-1]:
        order.check(record_type, 0)
    order.vcpu_basic(1)
    with pytest.raises(StreamError, match="vCPU 0"):
        order.check(T.END, 0)
    order.vcpu_basic(0)
    order.check(T.END, 0)


def checkpointed(*, whole: bool = True) -> Callable[[], None]:
    def run() -> None:
        order = RecordOrder(3, HVM, checkpointed=True)
        feed(order, [*HVM_V3[: -1 if whole else -2], T.CHECKPOINT])
        feed(order, [T.PAGE_DATA, *HVM_STATE, T.CHECKPOINT, *HVM_STATE, T.END])

    return run


def test_each_checkpoint_is_a_whole_domain() -> None:
    checkpointed()()
    with pytest.raises(StreamError, match="no HVM_PARAMS"):
        checkpointed(whole=False)()


@pytest.mark.parametrize("guest", ["pv", "pvh", "hvm"])
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("checkpoints", [None, [[1], [2]]])
def test_what_the_builder_builds_is_in_order(
    guest: str, version: int, checkpoints: list[list[int]] | None
) -> None:
    stream = StreamBuilder(guest, version=version, checkpoints=checkpoints, verify=True)
    order = RecordOrder(version, PV if guest == "pv" else HVM, checkpointed=checkpoints is not None)
    records = [part for part in stream.parts if part.layer == "libxc"]
    feed(order, [part.type for part in records if part.type is not None])
