"""Every field of every fixed structure, made wrong: refused, at that field's absolute offset."""

from __future__ import annotations

import struct
from typing import Any, Callable

import pytest

from libxlsr.errors import StreamError
from libxlsr.formats import cpu_policy, hvm_context, hvm_params, libxc, libxc_pv, libxl, xl
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_records import X86TscInfo
from libxlsr.formats.records import decode_libxc_body, decode_libxc_header, decode_libxl_header

BASE = 0x1000
U32_MAX = b"\xff" * 4


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def vcpu(record_type: RecordType, width: int = 8) -> Callable[[bytes, int], Any]:
    return lambda data, offset: libxc_pv.X86PvVcpu.decode(
        data, offset, record_type=record_type, guest_width=width
    )


def body(record_type: RecordType) -> Callable[[bytes, int], Any]:
    return lambda data, offset: decode_libxc_body(record_type, data, offset)


XL = xl.Header(optional_data_len=7).encode()
LIBXL = libxl.Header().encode()
IMAGE = libxc.ImageHeader().encode()
DOMAIN = libxc.DomainHeader(2, 4, 17).encode()
XENSTORE = libxl.EmulatorXenstoreData(2, 0, (("physmap/a0000/size", "20000"),)).encode()
TSC = X86TscInfo(0, 1, 2, 3).encode()
PV_INFO = libxc_pv.X86PvInfo(8, 4).encode()
P2M = libxc_pv.X86PvP2mFrames(0, 1023, (7, 9)).encode()
PARAMS = hvm_params.HvmParams(((1, 10), (17, 11))).encode()
HVM_HEADER = struct.pack("<IIQII", hvm_context.HVM_FILE_MAGIC, 1, 2**64 - 1, 0, 0)
CONTEXT = hvm_context.HvmContext(
    (hvm_context.HvmSaveEntry(1, 0, HVM_HEADER), hvm_context.HvmSaveEntry(8, 0, b"isa-irqs"))
).encode()
MSR_ENTRIES = (cpu_policy.MsrEntry(1, 0, 2), cpu_policy.MsrEntry(3, 0, 4))
MSRS = cpu_policy.X86MsrPolicy(MSR_ENTRIES).encode()

# decoder, right bytes, where to put which wrong ones, the offset to be named, a word of the message
FIELDS = [
    (xl.Header.decode, XL, 0, b"x", 0, "magic"),
    (xl.Header.decode, XL, 31, b"\n", 0, "magic"),
    (xl.Header.decode, XL, 32, b"\1\2\3\4", 32, "big-endian"),
    (xl.Header.decode, XL, 32, b"\4\4", 32, "byte order"),
    (xl.Header.decode, XL, 36, u32(7), 36, "mandatory flags"),
    (xl.Header.decode, XL, 36, u32(1), 36, "libxlsr convert"),
    (xl.Header.decode, XL, 36, u32(2), 36, "JSON"),
    (xl.Header.decode, XL, 40, u32(1 << 31), 40, "optional flags"),
    (xl.Header.decode, XL, 44, u32(xl.OPTIONAL_DATA_MAX + 1), 44, "2097153"),
    (xl.Header.decode, XL, 44, U32_MAX, 44, "4294967295"),
    (libxl.Header.decode, LIBXL, 0, b"l", 0, "not a libxl stream"),
    (libxl.Header.decode, LIBXL, 11, b"\1", 8, "version 2"),
    (libxl.Header.decode, LIBXL, 11, b"\3", 8, "version 2"),
    (libxl.Header.decode, LIBXL, 15, b"\1", 12, "big-endian"),
    (libxl.Header.decode, LIBXL, 15, b"\4", 12, "reserved option bits"),
    (libxl.Header.decode, LIBXL, 13, b"\x10", 12, "reserved option bits"),
    (decode_libxl_header, u32(3) + u32(9), 0, u32(6), 0, "unknown mandatory"),
    (decode_libxl_header, u32(3) + u32(9), 0, u32(0x7FFFFFFF), 0, "unknown mandatory"),
    (decode_libxl_header, u32(3) + u32(9), 4, u32((128 << 20) + 1), 4, "128 MiB"),
    (decode_libxl_header, u32(3) + u32(9), 4, u32(0xFFFFFFF9), 4, "128 MiB"),
    (decode_libxl_header, u32(1 << 31) + u32(9), 4, U32_MAX, 4, "128 MiB"),
    (decode_libxl_header, u32(2) + u32(9), 4, u32((1 << 20) + 1), 4, "1 MiB"),
    (decode_libxl_header, u32(0) * 2, 4, u32(8), 4, "END"),
    (decode_libxl_header, u32(1) + u32(0), 4, u32(8), 4, "LIBXC_CONTEXT"),
    (decode_libxl_header, u32(4) + u32(0), 4, u32(8), 4, "CHECKPOINT_END"),
    (libxl.EmulatorContext.decode, u32(2) + u32(0), 0, u32(3), 0, "emulator id"),
    (libxl.EmulatorXenstoreData.decode, XENSTORE, 0, U32_MAX, 0, "emulator id"),
    (libxl.EmulatorXenstoreData.decode, XENSTORE, 8, b"/", 8, "relative"),
    (libxl.EmulatorXenstoreData.decode, XENSTORE, 15, b"\0", 27, "has no value"),
    (libxl.EmulatorXenstoreData.decode, XENSTORE, 8, b" ", 8, "relative"),
    (libxl.EmulatorXenstoreData.decode, XENSTORE, 8, b"state", 8, "not the device model's"),
    (libxl.EmulatorXenstoreData.decode, XENSTORE, 8, b"\x1b", 8, r"\x1bhysmap"),
    (libxl.EmulatorXenstoreData.decode, XENSTORE, 8, b"x", 8, "not the device model's"),
    (libxl.EmulatorXenstoreData.decode, XENSTORE, len(XENSTORE) - 2, b"\n", 27, "no xenstore"),
    (libxl.EmulatorXenstoreData.decode, XENSTORE, len(XENSTORE) - 1, b"0", 32, "terminated"),
    (libxl.CheckpointState.decode, u32(3), 0, u32(4), 0, "control id"),
    (libxc.ImageHeader.decode, IMAGE, 0, b"\0", 0, "marker"),
    (libxc.ImageHeader.decode, IMAGE, 8, b"x", 8, "XENF"),
    (libxc.ImageHeader.decode, IMAGE, 15, b"\1", 12, "2 or 3"),
    (libxc.ImageHeader.decode, IMAGE, 15, b"\4", 12, "2 or 3"),
    (libxc.ImageHeader.decode, IMAGE, 17, b"\1", 16, "big-endian"),
    (libxc.ImageHeader.decode, IMAGE, 17, b"\2", 16, "option bits"),
    (libxc.ImageHeader.decode, IMAGE, 19, b"\1", 18, "reserved"),
    (libxc.ImageHeader.decode, IMAGE, 23, b"\1", 20, "reserved"),
    (libxc.DomainHeader.decode, DOMAIN, 0, u32(0), 0, "guest type"),
    (libxc.DomainHeader.decode, DOMAIN, 0, u32(3), 0, "guest type"),
    (libxc.DomainHeader.decode, DOMAIN, 4, u16(13), 4, "page shift"),
    (libxc.DomainHeader.decode, DOMAIN, 4, u16(0xFFFF), 4, "page shift"),
    (libxc.DomainHeader.decode, DOMAIN, 6, u16(1), 6, "reserved"),
    (decode_libxc_header, u32(1) + u32(9), 0, u32(0x13), 0, "unknown mandatory"),
    (decode_libxc_header, u32(1) + u32(9), 4, u32((128 << 20) + 1), 4, "128 MiB"),
    (decode_libxc_header, u32(0) * 2, 4, u32(1), 4, "END"),
    (decode_libxc_header, u32(0xD) + u32(0), 4, u32(8), 4, "VERIFY"),
    (decode_libxc_header, u32(0xE) + u32(0), 4, u32(8), 4, "CHECKPOINT"),
    (decode_libxc_header, u32(0x10) + u32(0), 4, u32(8), 4, "STATIC_DATA_END"),
    (body(RecordType.X86_TSC_INFO), TSC, 0, u32(4), 0, "TSC mode"),
    (body(RecordType.X86_TSC_INFO), TSC, 20, u32(1), 20, "reserved"),
    (body(RecordType.X86_PV_INFO), PV_INFO, 0, b"\4", 0, "4 with 3, or 8 with 4"),
    (body(RecordType.X86_PV_INFO), PV_INFO, 1, b"\3", 0, "4 with 3, or 8 with 4"),
    (body(RecordType.X86_PV_INFO), PV_INFO, 7, b"\1", 2, "reserved"),
    (body(RecordType.X86_PV_P2M_FRAMES), P2M, 0, u32(1024), 0, "starts at"),
    (body(RecordType.X86_PV_P2M_FRAMES), P2M, 4, u32(1024), 0, "32 bytes"),
    (body(RecordType.X86_PV_P2M_FRAMES), P2M, 4, U32_MAX, 0, "expected 67108872 bytes"),
    (body(RecordType.X86_PV_P2M_FRAMES), P2M, 20, b"\1", 16, "32 bits"),
    (vcpu(RecordType.X86_PV_VCPU_BASIC), bytes(8 + 5168), 0, u32(8192), 0, "less than 8192"),
    (vcpu(RecordType.X86_PV_VCPU_BASIC), bytes(8 + 5168), 4, u32(1), 4, "reserved"),
    (body(RecordType.HVM_PARAMS), PARAMS, 0, u32(1), 0, "24 bytes"),
    (body(RecordType.HVM_PARAMS), PARAMS, 0, U32_MAX, 0, "count"),
    (body(RecordType.HVM_PARAMS), PARAMS, 4, u32(1), 4, "reserved"),
    (body(RecordType.HVM_PARAMS), PARAMS, 24, u64(1), 24, "STORE_PFN comes twice"),
    (body(RecordType.HVM_CONTEXT), CONTEXT, 0, u16(2), 0, "first entry is CPU"),
    (body(RecordType.HVM_CONTEXT), CONTEXT, 0, u16(999), 0, "typecode 999"),
    (body(RecordType.HVM_CONTEXT), CONTEXT, 4, u32(25), 8, "24 bytes"),
    (body(RecordType.HVM_CONTEXT), CONTEXT, 4, U32_MAX, 4, "length"),
    (body(RecordType.HVM_CONTEXT), CONTEXT, 8, u32(0), 8, "magic"),
    (body(RecordType.HVM_CONTEXT), CONTEXT, 12, u32(2), 12, "version"),
    (body(RecordType.HVM_CONTEXT), CONTEXT, 36, u32(99), 36, "ISA_IRQ[0] has a length of 99"),
    (body(RecordType.HVM_CONTEXT), CONTEXT, 36, u32(7), 36, "ISA_IRQ[0] has a length of 7"),
    (body(RecordType.HVM_CONTEXT), CONTEXT, 32, u16(2), 36, "1024 or 1032"),
    (body(RecordType.HVM_CONTEXT), CONTEXT, 32, u16(0) * 4, 40, "after END"),
    (body(RecordType.HVM_CONTEXT), CONTEXT, 48, u16(99), 56, "descriptor"),
    (body(RecordType.X86_MSR_POLICY), MSRS, 20, u32(1), 20, "flags"),
    (body(RecordType.CHECKPOINT_DIRTY_PFN_LIST), bytes(16), 13, b"\1", 8, "less than"),
]


@pytest.mark.parametrize(
    ("decode", "right", "position", "wrong", "named", "words"),
    FIELDS,
    ids=[f"{row[5]}-{index}" for index, row in enumerate(FIELDS)],
)
def test_a_wrong_field_is_named_by_its_absolute_offset(
    decode: Callable[[bytes, int], Any],
    right: bytes,
    position: int,
    wrong: bytes,
    named: int,
    words: str,
) -> None:
    decode(right, BASE)
    data = right[:position] + wrong + right[position + len(wrong) :]
    with pytest.raises(StreamError) as caught:
        decode(data, BASE)
    assert caught.value.offset == BASE + named
    assert words in str(caught.value)


LENGTHS = [
    (xl.Header.decode, XL),
    (libxl.Header.decode, LIBXL),
    (decode_libxl_header, bytes(8)),
    (libxl.CheckpointState.decode, bytes(4)),
    (libxc.ImageHeader.decode, IMAGE),
    (libxc.DomainHeader.decode, DOMAIN),
    (decode_libxc_header, bytes(8)),
    (body(RecordType.X86_TSC_INFO), TSC),
    (body(RecordType.X86_PV_INFO), PV_INFO),
    (body(RecordType.X86_PV_P2M_FRAMES), P2M),
    (body(RecordType.SHARED_INFO), bytes(4096)),
    (body(RecordType.HVM_PARAMS), PARAMS),
    (body(RecordType.HVM_CONTEXT), CONTEXT),
    (body(RecordType.X86_MSR_POLICY), MSRS),
    (body(RecordType.X86_CPUID_POLICY), bytes(24)),
    (body(RecordType.CHECKPOINT_DIRTY_PFN_LIST), bytes(8)),
    (body(RecordType.END), b""),
    (body(RecordType.STATIC_DATA_END), b""),
    (vcpu(RecordType.X86_PV_VCPU_BASIC), bytes(8 + 5168)),
    (vcpu(RecordType.X86_PV_VCPU_BASIC, 4), bytes(8 + 2800)),
    (vcpu(RecordType.X86_PV_VCPU_MSRS), bytes(8 + 16)),
]


@pytest.mark.parametrize(("decode", "right"), LENGTHS)
def test_a_byte_too_many_or_too_few_is_refused(
    decode: Callable[[bytes, int], Any], right: bytes
) -> None:
    decode(right, BASE)
    for data in (right + b"\0", right[:-1]):
        if data == right:
            continue
        with pytest.raises(StreamError) as caught:
            decode(data, BASE)
        assert caught.value.offset is not None
        assert BASE <= caught.value.offset <= BASE + len(data)


@pytest.mark.parametrize(
    ("record_type", "allowed", "refused"),
    [
        (RecordType.X86_PV_VCPU_BASIC, (5168,), (0, 2800, 5167)),
        (RecordType.X86_PV_VCPU_EXTENDED, (0, 1, 128), (129,)),
        (RecordType.X86_PV_VCPU_XSAVE, (0, 16, 832), (1, 15)),
        (RecordType.X86_PV_VCPU_MSRS, (0, 16, 32), (1, 15, 17)),
    ],
)
def test_vcpu_contexts_have_the_sizes_that_libxenguest_takes(
    record_type: RecordType, allowed: tuple[int, ...], refused: tuple[int, ...]
) -> None:
    decode = vcpu(record_type)
    for size in allowed:
        assert decode(bytes(8 + size), 0).context == bytes(size)
    for size in refused:
        with pytest.raises(StreamError) as caught:
            decode(bytes(8 + size), BASE)
        assert caught.value.offset == BASE + 8


@pytest.mark.parametrize("size", [0, 7])
def test_short_emulator_and_vcpu_records_are_refused(size: int) -> None:
    for decode in (
        libxl.EmulatorContext.decode,
        libxl.EmulatorXenstoreData.decode,
        vcpu(RecordType.X86_PV_VCPU_XSAVE),
        body(RecordType.X86_PV_P2M_FRAMES),
        body(RecordType.HVM_PARAMS),
    ):
        with pytest.raises(StreamError, match="at least 8 bytes"):
            decode(bytes(size), BASE)


def test_an_unknown_optional_record_has_a_header_like_any_other() -> None:
    decoders: tuple[Callable[[bytes, int], libxl.RecordHeader | libxc.RecordHeader], ...]
    decoders = (decode_libxl_header, decode_libxc_header)
    for decode in decoders:
        header = decode(u32(0x80000001) + u32(13), 0)
        assert header.is_optional
        assert header.name == "record type 0x80000001"
        assert header.encode() == u32(0x80000001) + u32(13)
        assert (header.length, header.padded_length) == (13, 16)


def test_a_32_bit_guest_has_other_p2m_frames_and_vcpus() -> None:
    data = libxc_pv.X86PvP2mFrames(0, 1024, (1, 2)).encode()
    assert libxc_pv.X86PvP2mFrames.decode(data, 0, guest_width=4).p2m_pfns == (1, 2)
    with pytest.raises(StreamError, match="32 bytes"):
        libxc_pv.X86PvP2mFrames.decode(data, 0, guest_width=8)


def test_p2m_records_leave_no_gap() -> None:
    first = libxc_pv.X86PvP2mFrames(0, 511, (5,))
    second = libxc_pv.X86PvP2mFrames(512, 600, (6,))
    far = libxc_pv.X86PvP2mFrames(0xFFFFFE00, 0xFFFFFFFF, (7,))
    covered = first.extend(0)
    assert covered == 512
    assert second.extend(covered) == 601
    assert first.extend(601) == 601
    with pytest.raises(StreamError, match="starts at pfn 0xfffffe00"):
        far.extend(covered, BASE)


def test_a_xenstore_key_that_comes_twice_is_refused() -> None:
    pair = ("physmap/0/size", "1")
    data = libxl.EmulatorXenstoreData(2, 0, (pair, pair)).encode()
    with pytest.raises(StreamError, match="comes twice") as caught:
        libxl.EmulatorXenstoreData.decode(data, BASE)
    assert caught.value.offset == BASE + 8 + 17


@pytest.mark.parametrize(
    "pair", [("physmap/" + "a" * 2041, "1"), ("physmap//size", "1"), ("physmap/", "1")]
)
def test_a_key_that_xenstore_would_not_take_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(StreamError, match="no relative xenstore path"):
        libxl.EmulatorXenstoreData.decode(libxl.EmulatorXenstoreData(2, 0, (pair,)).encode())


def test_a_value_longer_than_a_xenstore_message_is_refused() -> None:
    data = libxl.EmulatorXenstoreData(2, 0, (("physmap/0/name", "x" * 4097),)).encode()
    with pytest.raises(StreamError, match="no xenstore string"):
        libxl.EmulatorXenstoreData.decode(data)


def test_padding_must_be_zero_and_is_named_by_its_offset() -> None:
    libxl.check_padding(b"", BASE, "END")
    libxl.check_padding(bytes(7), BASE, "END")
    with pytest.raises(StreamError, match="padding byte is 0x2a") as caught:
        libxc.check_padding(b"\0\0\x2a", BASE, "HVM_CONTEXT")
    assert caught.value.offset == BASE + 2


def test_page_data_has_a_decoder_of_its_own() -> None:
    with pytest.raises(ValueError, match=r"page_data\.py"):
        decode_libxc_body(RecordType.PAGE_DATA, b"")


def test_legacy_converted_images_are_told_apart() -> None:
    assert libxl.Header.decode(LIBXL[:15] + b"\2").is_legacy_converted
    assert not libxl.Header.decode(LIBXL).is_legacy_converted
    assert libxc.DomainHeader(1, 0, 1).is_legacy_converted
    assert not libxc.DomainHeader.decode(DOMAIN).is_legacy_converted


@pytest.mark.parametrize("control_id", range(4))
def test_checkpoint_states_come_back(control_id: int) -> None:
    data = u32(control_id)
    assert libxl.CheckpointState.decode(data).id == control_id
    assert libxl.CheckpointState.decode(data).encode() == data


@pytest.mark.parametrize(
    ("decode", "data"),
    [
        (body(RecordType.HVM_PARAMS), u32(1025) + bytes(4 + 1025 * 16)),
        (body(RecordType.HVM_CONTEXT), CONTEXT[:32] + (u16(99) + bytes(6)) * 0x10000),
        (body(RecordType.X86_CPUID_POLICY), bytes(4097 * 24)),
        (body(RecordType.X86_MSR_POLICY), bytes(4097 * 16)),
        (libxl.EmulatorXenstoreData.decode, u32(2) + bytes((1 << 20) - 3)),
    ],
)
def test_more_entries_than_any_xen_writes_are_refused(
    decode: Callable[[bytes, int], Any], data: bytes
) -> None:
    """128 MiB of small entries would become gigabytes of objects."""
    with pytest.raises(StreamError, match=r"at most|fewer entries"):
        decode(data, BASE)
