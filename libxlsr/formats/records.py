"""One row a record type, libxl's and libxc's: what every command has to know of it.

The rows say how a body is decoded and how large it may be, which guests have such a record, where
it may stand, and which finding of ``verify`` a body is that does not decode. They are read by

====================  ==========================================================================
here                  ``decode_libxl_header``, ``decode_libxl_body`` and libxc's two
libxl_order.py        the order of libxl's records
libxc_order.py        the order of libxc's, and what a domain can't do without
stream/               the stream reader
libxc/                the walker, for verify, inspect and everything else that reads an image
tools/                verify's checks, and what ``convert --compact`` may leave out
====================  ==========================================================================

A command that has no part of its own for a record that stands here refuses it by name
(``unhandled``). docs/adding-a-record.md says how to add one.

Sources: docs/specs/libxl-migration-stream.pandoc and libxc-migration-stream.pandoc;
tools/libs/light/libxl_stream_read.c; tools/libs/guest/xg_sr_save.c, xg_sr_restore.c and what these
two call for each type of guest.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Callable, NamedTuple, Union

from libxlsr.errors import StreamError
from libxlsr.formats import libxc, libxl
from libxlsr.formats.cpu_policy import X86CpuidPolicy, X86MsrPolicy
from libxlsr.formats.framing import (
    REC_TYPE_OPTIONAL,
    RECORD_HEADER,
    Buffer,
    check_length,
    check_padding,
    name_of_unknown,
    too_long,
    unpack_exact,
)
from libxlsr.formats.hvm_context import HvmContext
from libxlsr.formats.hvm_params import HvmParams
from libxlsr.formats.libxc_pv import SharedInfo, X86PvInfo, X86PvP2mFrames, X86PvVcpu
from libxlsr.formats.libxc_records import (
    CheckpointDirtyPfnList,
    Empty,
    RecordBody,
    Toolstack,
    X86TscInfo,
)

PV = frozenset({"pv"})
HVM = frozenset({"hvm"})
HVM_AND_PVH = frozenset({"hvm", "pvh"})
EVERY_GUEST = PV | HVM_AND_PVH

# -- libxl's records

LibxlBody = Union[libxl.EmulatorXenstoreData, libxl.EmulatorContext, libxl.CheckpointState]


class LibxlRow(NamedTuple):
    """What there is to know of one of libxl's record types."""

    type: libxl.RecordType

    place: int | None = None
    """In a section of the stream, which is what stands between libxc's image, or one of its
    CHECKPOINTs, and END or CHECKPOINT_END: places rise. None for what stands in no section."""

    decode: Callable[[Buffer, int], LibxlBody] | None = None
    """The body at an offset in the stream. None for a type without one."""

    largest: int = 0
    """Bytes that the body may have."""

    guests: frozenset[str] = EVERY_GUEST
    """The types of guest that have such a record."""

    finding: str | None = None
    """The id of verify's finding for a body that does not decode; each type with a body has one."""

    refused: str | None = None
    """Why it can stand in no stream."""

    @property
    def name(self) -> str:
        return self.type.name


def _libxl_rows(*rows: LibxlRow) -> dict[int, LibxlRow]:
    return {int(row.type): row for row in rows}


_L = libxl.RecordType

LIBXL = _libxl_rows(
    LibxlRow(_L.LIBXC_CONTEXT),
    LibxlRow(
        _L.EMULATOR_XENSTORE_DATA,
        place=1,
        decode=libxl.EmulatorXenstoreData.decode,
        largest=libxl.XENSTORE_DATA_MAX,
        guests=HVM,
        finding="emulator-xenstore-data",
    ),
    LibxlRow(
        _L.EMULATOR_CONTEXT,
        place=2,
        decode=libxl.EmulatorContext.decode,
        largest=libxl.RECORD_LENGTH_MAX,
        guests=HVM,
        finding="emulator-context",
    ),
    LibxlRow(_L.CHECKPOINT_END, place=3),
    LibxlRow(_L.END, place=3),
    LibxlRow(
        _L.CHECKPOINT_STATE,
        decode=libxl.CheckpointState.decode,
        largest=libxc.LARGEST_BODY,  # it has 4 bytes; more than that is for decode() to refuse
        finding="checkpoint-state",
        refused="CHECKPOINT_STATE belongs on COLO's back channel, not in a stream",
    ),
)
"""By type, in the order of a stream."""


def decode_libxl_header(data: Buffer, offset: int = 0) -> libxl.RecordHeader:
    """The 8 bytes before a libxl record's body, which stand at ``offset``.

    Raises StreamError for an unknown mandatory type and for a length that such a record can't have.
    """
    header = libxl.RecordHeader(*_decode_header(data, offset, "libxl", LIBXL))
    row = LIBXL.get(header.type)
    maximum = libxl.RECORD_LENGTH_MAX if row is None or not row.largest else row.largest
    if header.length > maximum:
        raise too_long(header.length, maximum, offset + 4, header.name)
    return header


def decode_libxl_body(
    header: libxl.RecordHeader, untrusted_data: Buffer, offset: int = 0
) -> LibxlBody | None:
    """The body of a libxl record of a known type from its bytes, padding included.

    None for a type that has none. Raises StreamError when the bytes are not as the spec says;
    ``offset`` is that of the first one.
    """
    view = memoryview(untrusted_data)
    check_padding(view[header.length :], offset + header.length, header.name)
    decode = LIBXL[header.type].decode
    return None if decode is None else decode(view[: header.length], offset)


# -- libxc's records


class Once(enum.Enum):
    """Where a libxc record comes only once."""

    IMAGE = "image"
    """In the whole image; a second one is refused."""

    STATE = "state"
    """In each state of the domain: a plain image has one, a checkpointed one has one for each
    checkpoint. If it comes again the last one counts, and no Xen writes it so."""


class LibxcRow(NamedTuple):
    """What there is to know of one of libxc's record types."""

    type: libxc.RecordType

    place: int | None = None
    """In what every Xen writes: places rise within a state of the domain, and PAGE_DATA's divides
    what comes before memory from what comes after. Real readers take other orders too; what they
    don't take is in ``needs`` and ``before``. None for what no image has."""

    decode: Callable[[Buffer, int, int], RecordBody] | None = None
    """The body at an offset in the stream, with X86_PV_INFO's guest width. None for a type without
    a body, and for PAGE_DATA, which is not meant to be held in memory (page_data.py)."""

    largest: int = libxc.LARGEST_BODY
    """Bytes that the body may have; 0 for a type without a body."""

    guests: frozenset[str] = EVERY_GUEST
    """The types of guest that have such a record."""

    finding: str | None = None
    """The id of verify's finding for a body that does not decode. None where there is nothing to
    decode in any image: the type has no body, or its order refuses it."""

    since: int = 2
    """The version of the image with which it came."""

    once: Once | None = None

    needs: tuple[libxc.RecordType, ...] = ()
    """What must have come before it, as far as a guest's image of this version has it."""

    before: libxc.RecordType | None = None
    """What it can't come after."""

    required: bool = False
    """Whether the domain is not complete without one."""

    refused: str | None = None
    """Why it can stand in no image."""

    @property
    def name(self) -> str:
        return self.type.name


def _libxc_rows(*rows: LibxcRow) -> dict[int, LibxcRow]:
    return {int(row.type): row for row in rows}


_Decode = Callable[[Buffer, int, int], RecordBody]


def _any_width(decode: Callable[[Buffer, int], RecordBody]) -> _Decode:
    return lambda data, offset, _guest_width: decode(data, offset)


def _vcpu(record_type: libxc.RecordType) -> _Decode:
    return lambda data, offset, guest_width: X86PvVcpu.decode(
        data, offset, record_type=record_type, guest_width=guest_width
    )


def _vcpu_row(record_type: libxc.RecordType, *, required: bool = False) -> LibxcRow:
    return LibxcRow(
        record_type,
        place=7,
        decode=_vcpu(record_type),
        guests=PV,
        finding="vcpu",
        needs=(_T.X86_PV_INFO, _T.PAGE_DATA),
        required=required,
    )


_T = libxc.RecordType

LIBXC = _libxc_rows(
    LibxcRow(
        _T.X86_PV_INFO,
        place=0,
        decode=_any_width(X86PvInfo.decode),
        guests=PV,
        finding="pv-info",
        once=Once.IMAGE,
        required=True,
    ),
    # libxenguest takes a policy that comes after STATIC_DATA_END, and never applies it.
    LibxcRow(
        _T.X86_CPUID_POLICY,
        place=1,
        decode=_any_width(X86CpuidPolicy.decode),
        finding="cpu-policy",
        since=3,
        once=Once.STATE,
        before=_T.STATIC_DATA_END,
    ),
    LibxcRow(
        _T.X86_MSR_POLICY,
        place=1,
        decode=_any_width(X86MsrPolicy.decode),
        finding="cpu-policy",
        since=3,
        once=Once.STATE,
        before=_T.STATIC_DATA_END,
    ),
    LibxcRow(_T.STATIC_DATA_END, place=2, largest=0, since=3, once=Once.IMAGE),
    LibxcRow(
        _T.X86_PV_P2M_FRAMES,
        place=3,
        decode=X86PvP2mFrames.decode,
        guests=PV,
        finding="p2m-frames",
        needs=(_T.STATIC_DATA_END, _T.X86_PV_INFO),
        required=True,
    ),
    LibxcRow(
        _T.PAGE_DATA,
        place=4,
        largest=libxc.REC_LENGTH_MAX,
        finding="page-data",
        needs=(_T.STATIC_DATA_END, _T.X86_PV_P2M_FRAMES),
        required=True,
    ),
    LibxcRow(_T.VERIFY, place=4, largest=0, needs=(_T.PAGE_DATA,)),
    LibxcRow(
        _T.X86_TSC_INFO,
        place=5,
        decode=_any_width(X86TscInfo.decode),
        finding="tsc-info",
        once=Once.STATE,
        required=True,
    ),
    LibxcRow(
        _T.SHARED_INFO,
        place=6,
        decode=_any_width(SharedInfo.decode),
        guests=PV,
        finding="shared-info",
        once=Once.STATE,
        needs=(_T.X86_PV_INFO,),
        required=True,
    ),
    _vcpu_row(_T.X86_PV_VCPU_BASIC, required=True),
    _vcpu_row(_T.X86_PV_VCPU_EXTENDED),
    _vcpu_row(_T.X86_PV_VCPU_XSAVE),
    _vcpu_row(_T.X86_PV_VCPU_MSRS),
    LibxcRow(
        _T.HVM_CONTEXT,
        place=6,
        decode=_any_width(HvmContext.decode),
        guests=HVM_AND_PVH,
        finding="hvm-context",
        once=Once.STATE,
        required=True,
    ),
    LibxcRow(
        _T.HVM_PARAMS,
        place=7,
        decode=_any_width(HvmParams.decode),
        guests=HVM_AND_PVH,
        finding="hvm-params",
        once=Once.STATE,
        required=True,
    ),
    LibxcRow(_T.CHECKPOINT, place=8, largest=0, needs=(_T.STATIC_DATA_END,)),
    LibxcRow(_T.END, place=8, largest=0, once=Once.IMAGE, needs=(_T.STATIC_DATA_END,)),
    LibxcRow(
        _T.TOOLSTACK,
        decode=_any_width(Toolstack.decode),
        refused="a TOOLSTACK record, which no release of Xen writes or reads",
    ),
    LibxcRow(
        _T.CHECKPOINT_DIRTY_PFN_LIST,
        decode=_any_width(CheckpointDirtyPfnList.decode),
        refused="a record of COLO's back channel",
    ),
)
"""By type, in the order of an image."""


def decode_libxc_header(data: Buffer, offset: int = 0) -> libxc.RecordHeader:
    """The 8 bytes before a libxc record's body, which stand at ``offset``.

    Raises StreamError for an unknown mandatory type and for a length that no record can have. A
    length that is too large for its type only is left to ``check_libxc_length``: what follows such
    a body can still be looked at.
    """
    header = libxc.RecordHeader(*_decode_header(data, offset, "libxc", LIBXC))
    if header.length > libxc.REC_LENGTH_MAX:
        raise too_long(header.length, libxc.REC_LENGTH_MAX, offset + 4, header.name)
    return header


def check_libxc_length(record_type: int, length: int, offset: int) -> None:
    """Raises StreamError for a body that is larger than Xen writes in a record of this known type.
    Its ``length`` stands at ``offset``."""
    row = LIBXC[record_type]
    if length > row.largest:
        raise StreamError(
            f"body length is {length:#x}",
            offset=offset,
            record=row.name,
            expected=f"at most {row.largest:#x}, more than Xen writes",
        )


def decode_libxc_body(
    record_type: int, untrusted_data: Buffer, offset: int = 0, *, guest_width: int = 8
) -> RecordBody:
    """The body of a libxc record of any known type but PAGE_DATA, at ``offset``, without padding.

    ``guest_width`` is X86_PV_INFO's; PV records that come after it depend on it. Raises
    StreamError, and ValueError for PAGE_DATA.
    """
    row = LIBXC[record_type]
    if not row.largest:
        check_length(untrusted_data, 0, offset, row.name)
        return Empty(row.type)
    if row.decode is None:
        raise ValueError(f"{row.name} is decoded by page_data.py")
    return row.decode(untrusted_data, offset, guest_width)


# -- both


def _decode_header(
    data: Buffer, offset: int, layer: str, rows: Mapping[int, LibxlRow] | Mapping[int, LibxcRow]
) -> tuple[int, int]:
    """Type and length that a record's 8 bytes say.

    ``layer`` is how messages call the stream. Raises StreamError for an unknown mandatory type, and
    for a length where the type has no body.
    """
    record_type, length = unpack_exact(RECORD_HEADER, data, offset, f"{layer} record header")
    row = rows.get(record_type)
    if row is None:
        if not record_type & REC_TYPE_OPTIONAL:
            raise StreamError(
                f"unknown mandatory record in the {layer} stream",
                offset=offset,
                record=name_of_unknown(record_type),
                expected=f"a type of at most {max(rows):#x}, or one with bit 31 set",
                remedy="it is damaged, or from a newer Xen than this program knows",
            )
    elif length and not row.largest:
        raise StreamError(
            f"body length is {length:#x}", offset=offset + 4, record=row.name, expected="0"
        )
    return record_type, length


def unhandled(name: str, command: str, offset: int | None) -> StreamError:
    """What a ``command`` ("a restore into files", say) says of a record, ``name``, that is known
    and that it has no part for."""
    return StreamError(
        f"{command} does not handle {name} records",
        offset=offset,
        record=name,
        remedy="a newer libxlsr may",
    )
