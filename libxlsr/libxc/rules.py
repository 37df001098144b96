"""What an image must have beyond what each of its records says alone.

Each rule stands here once, for a restore, which refuses an image that breaks it, and for verify,
which makes a finding of it: named after that finding (`libxlsr.tools.verify.findings`). Each raises
or gives StreamError. libxenguest has most of them too, some as assertions that end its process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from libxlsr.errors import StreamError
from libxlsr.formats import libxl
from libxlsr.formats.framing import Buffer
from libxlsr.formats.hvm_context import HVM_SAVE_PER_VCPU, HvmContext, hvm_save_name
from libxlsr.formats.hvm_params import HVM_PARAMS_MAX, HvmParams
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import X86PvVcpu
from libxlsr.formats.libxc_records import RecordBody
from libxlsr.formats.page_data import PageData
from libxlsr.formats.page_types import XEN_DOMCTL_PFINFO_NOTAB
from libxlsr.formats.pv_page_table import check_table
from libxlsr.formats.records import LIBXL
from libxlsr.libxc.frame_ranges import first_ranges
from libxlsr.libxc.guest import Guest


class NamedFrames(Protocol):
    """Which frames PAGE_DATA has named."""

    @property
    def end(self) -> int:
        """One more than the highest of them."""

    def named(self, end: int) -> int:
        """How many frames below ``end`` were named."""

    def gaps(self, end: int) -> Iterator[tuple[int, int]]:
        """``(first, number)`` of each longest run of frames below ``end`` that were not."""

    def type_of(self, gfn: int) -> int | None:
        """The type that a frame was last named with; None if it never was."""


# -- the guest


def guest_type(guest: Guest, offset: int) -> None:
    """The configuration and libxc's domain header, at ``offset``, say the same type of guest."""
    configured = guest.configured.domain_type
    if configured is not None and (configured == "pv") != guest.is_pv:
        kind = "PV" if guest.is_pv else "HVM or PVH"
        raise StreamError(
            f"the configuration is a {configured} guest's, the libxc image {kind}", offset=offset
        )


def vcpu_unknown(guest: Guest, body: RecordBody, offset: int) -> Iterator[StreamError]:
    """No state is of a vCPU that the new domain has not: libxenguest refuses it, and so does Xen
    (hvm_load())."""
    max_vcpus = guest.configured.max_vcpus
    if max_vcpus is None:
        return
    for name, number in _highest_vcpus(body):
        if number >= max_vcpus:
            yield StreamError(f"{name} of a guest with {max_vcpus} vCPUs", offset=offset)


def _highest_vcpus(body: RecordBody) -> Iterator[tuple[str, int]]:
    if isinstance(body, X86PvVcpu):
        yield f"vCPU {body.vcpu_id}", body.vcpu_id
    elif isinstance(body, HvmContext):
        highest: dict[int, int] = {}
        for entry in body.entries:
            if entry.typecode in HVM_SAVE_PER_VCPU:
                highest[entry.typecode] = max(highest.get(entry.typecode, 0), entry.instance)
        for typecode, instance in sorted(highest.items()):
            yield f"{hvm_save_name(typecode)}[{instance}]", instance


def hvm_params(guest: Guest, body: HvmParams, offset: int) -> None:
    """All HVM_PARAMS together have no more parameters than there are."""
    params = guest.hvm_params = {} if guest.hvm_params is None else guest.hvm_params
    params.update(body.params)
    if len(params) > HVM_PARAMS_MAX:
        raise StreamError(
            f"{len(params)} different HVM parameters",
            offset=offset,
            expected=f"at most {HVM_PARAMS_MAX}",
        )


# -- memory


def frame_beyond_p2m(guest: Guest, batch: PageData, offset: int) -> None:
    """A PV guest's frames lie within its P2M."""
    if guest.is_pv and batch.highest >= guest.p2m.covered:
        raise StreamError(
            f"frame {batch.highest:#x}",
            offset=offset,
            expected=f"less than {guest.p2m.covered:#x}, where the P2M ends",
        )


def pte_beyond_p2m(guest: Guest, table: Buffer, gfn: int, offset: int) -> None:
    """The entries of a PV guest's page ``table``, of frame ``gfn``, point to frames within its
    P2M."""
    check_table(table, gfn, guest.p2m.covered, offset)


def frames_missing(guest: Guest, frames: NamedFrames) -> None:
    """Senders name each frame, if only to say that it does not exist. libxenguest does not look,
    and the guest would miss memory that it had."""
    if guest.domain.is_legacy_converted:  # there, frames that did not exist are not named
        return
    end = guest.p2m.covered if guest.is_pv else frames.end
    if missing := end - frames.named(end):
        raise StreamError(
            f"{missing} of {end} frames were never named: {first_ranges(frames.gaps(end))}",
            offset=None,
            record=RecordType.PAGE_DATA.name,
            remedy="a record was lost: get a whole copy of the image",
        )


def p2m_frame_unusable(guest: Guest, frames: NamedFrames) -> Iterator[tuple[int, StreamError]]:
    """The frames that hold a PV guest's P2M, into which libxenguest writes it anew
    (update_guest_p2m()), are ordinary ones. Each wrong one's index comes with its error."""
    for index, pfn in enumerate(guest.p2m.frames):
        if frames.type_of(pfn) != XEN_DOMCTL_PFINFO_NOTAB:
            yield (
                index,
                StreamError(
                    f"frame {index} of the P2M is at pfn {pfn:#x}, which is no ordinary frame "
                    "with contents",
                    offset=None,
                    record=RecordType.X86_PV_P2M_FRAMES.name,
                ),
            )


# -- the device model


def emulator_unexpected(domain_type: str | None, record_type: int, offset: int | None) -> None:
    """A libxl record, at ``offset``, is one that such a guest has: none but an HVM guest has a
    device model."""
    row = LIBXL[record_type]
    if domain_type is not None and domain_type not in row.guests:
        raise StreamError(
            f"a {domain_type} guest has no {row.name}",
            offset=offset,
            expected=f"one for these guests only: {', '.join(sorted(row.guests))}",
        )


def emulator_missing(
    domain_type: str | None, *, emulator_context: bool, offset: int | None
) -> None:
    """An HVM guest's image, which ends at ``offset``, has the device model's state."""
    if domain_type == "hvm" and not emulator_context:
        raise StreamError(
            "the image of an hvm guest ends without an EMULATOR_CONTEXT",
            offset=offset,
            remedy="the image is damaged, or its sender was: save the guest again",
        )


def emulator_empty(state: Buffer, offset: int | None) -> None:
    """The device model's ``state``, at ``offset``, begins as QEMU's does."""
    head = bytes(state[: len(libxl.QEMU_VM_FILE_MAGIC)])
    if head != libxl.QEMU_VM_FILE_MAGIC:
        raise StreamError(
            f"the device model's state begins with {head.hex(' ') or 'nothing'}",
            offset=offset,
            record=libxl.RecordType.EMULATOR_CONTEXT.name,
            expected="QEVM, as QEMU writes it",
        )
