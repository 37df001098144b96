"""Everything of a guest's libxc image but its memory, as files (see ``layout``)."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from pathlib import Path

from libxlsr.errors import StreamError
from libxlsr.formats.cpu_policy import X86CpuidPolicy, X86MsrPolicy
from libxlsr.formats.framing import Buffer
from libxlsr.formats.hvm_context import HVM_SAVE_PER_VCPU, HvmContext
from libxlsr.formats.hvm_params import HVM_PARAMS_MAX, HvmParams, hvm_param_name
from libxlsr.formats.libxc import PAGE_SIZE, RecordType
from libxlsr.formats.libxc_order import RecordOrder
from libxlsr.formats.libxc_pv import SharedInfo, X86PvInfo, X86PvP2mFrames, X86PvVcpu
from libxlsr.formats.libxc_records import Empty, X86TscInfo
from libxlsr.formats.records import decode_libxc_body, unhandled
from libxlsr.restoring.image import layout
from libxlsr.restoring.image.small_files import flush, json_bytes, write_file

_VCPU_FILES = {
    RecordType.X86_PV_VCPU_BASIC: "basic",
    RecordType.X86_PV_VCPU_EXTENDED: "extended",
    RecordType.X86_PV_VCPU_XSAVE: "xsave",
    RecordType.X86_PV_VCPU_MSRS: "msrs",
}


class StateFiles:
    """Decodes records and stores them below ``directory``; a later record takes the place of an
    earlier one of its kind, as in libxenguest."""

    def __init__(self, directory: Path, order: RecordOrder, max_vcpus: int | None = None) -> None:
        """``max_vcpus``: how many the domain has; None where that is not known."""
        self._directory = directory
        self._max_vcpus = max_vcpus
        self._order = order
        self._guest_width = 8
        self.p2m_covered = 0
        """Guest frames that the P2M of a PV guest covers so far: higher ones can't be restored."""
        self._p2m = array("Q")
        self._hvm_params: dict[int, int] | None = None
        self._written: set[str] = set()

    def store(self, record_type: RecordType, data: Buffer, offset: int) -> None:
        """Store one record whose body, without padding, is ``data``.

        Raises StreamError when it does not decode, and OSError.
        """
        body = decode_libxc_body(record_type, data, offset, guest_width=self._guest_width)
        if isinstance(body, X86PvInfo):
            self._guest_width = body.guest_width
            value = {"guest_width": body.guest_width, "pt_levels": body.pt_levels}
            self._write_json(layout.PV_INFO, value)
        elif isinstance(body, X86PvP2mFrames):
            self._p2m_frames(body, offset)
        elif isinstance(body, X86PvVcpu):
            self._check_vcpu(body.vcpu_id, record_type, offset)
            name = f"{layout.VCPUS}/{body.vcpu_id}/{_VCPU_FILES[record_type]}"
            self._write(name, body.context)
            if record_type is RecordType.X86_PV_VCPU_BASIC:
                self._order.vcpu_basic(body.vcpu_id)
        elif isinstance(body, SharedInfo):
            self._write(layout.SHARED_INFO, body.shared_info)
        elif isinstance(body, X86TscInfo):
            self._write_json(layout.TSC_INFO, body._asdict())
        elif isinstance(body, HvmParams):
            self._take_hvm_params(body, offset)
        elif isinstance(body, X86CpuidPolicy):
            self._write_json(layout.CPUID_POLICY, [leaf._asdict() for leaf in body.leaves])
        elif isinstance(body, X86MsrPolicy):
            self._write_json(layout.MSR_POLICY, [msr._asdict() for msr in body.msrs])
        elif isinstance(body, HvmContext):
            for entry in body.entries:
                if entry.typecode in HVM_SAVE_PER_VCPU:
                    self._check_vcpu(entry.instance, record_type, offset)
            self._write(layout.HVM_CONTEXT, bytes(data))
        elif not isinstance(body, Empty):
            raise unhandled(record_type.name, "a restore into files", offset)

    def _check_vcpu(self, vcpu_id: int, record_type: RecordType, offset: int) -> None:
        """libxenguest refuses a vCPU that the new domain has not, and so does Xen (hvm_load())."""
        if self._max_vcpus is not None and vcpu_id >= self._max_vcpus:
            raise StreamError(
                f"state of vCPU {vcpu_id}",
                offset=offset,
                record=record_type.name,
                expected=f"less than the {self._max_vcpus} vCPUs of the configuration",
            )

    def _take_hvm_params(self, body: HvmParams, offset: int) -> None:
        """One by one: convert-legacy-stream writes two records, of different parameters."""
        params = self._hvm_params = {} if self._hvm_params is None else self._hvm_params
        params.update(body.params)
        if len(params) > HVM_PARAMS_MAX:
            raise StreamError(
                f"{len(params)} different HVM parameters",
                offset=offset,
                record=RecordType.HVM_PARAMS.name,
                expected=f"at most {HVM_PARAMS_MAX}",
            )

    def finish(self) -> None:
        """Write what had to wait for the last record, and flush every file."""
        if self._p2m:
            self._write(layout.P2M_FRAMES, struct.pack(f"<{len(self._p2m)}Q", *self._p2m))
        if self._hvm_params is not None:
            params = [
                {"index": index, "name": hvm_param_name(index), "value": value}
                for index, value in self._hvm_params.items()
            ]
            self._write_json(layout.HVM_PARAMS, params)
        for name in self._written:
            flush(self._directory / name)

    def _p2m_frames(self, body: X86PvP2mFrames, offset: int) -> None:
        self.p2m_covered = body.extend(self.p2m_covered, offset)
        first = body.start_pfn // (PAGE_SIZE // self._guest_width)
        self._p2m[first : first + len(body.p2m_pfns)] = array("Q", body.p2m_pfns)

    @property
    def p2m(self) -> Sequence[int]:
        """The frames that hold a PV guest's P2M itself."""
        return self._p2m

    def _write(self, name: str, data: bytes) -> None:
        self._written.add(name)
        write_file(self._directory / name, data)

    def _write_json(self, name: str, value: object) -> None:
        self._write(name, json_bytes(value))
