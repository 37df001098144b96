"""Everything of a guest's libxc image but its memory, as files (see ``layout``)."""

from __future__ import annotations

import struct
from pathlib import Path

from libxlsr.formats.cpu_policy import X86CpuidPolicy, X86MsrPolicy
from libxlsr.formats.framing import Buffer
from libxlsr.formats.hvm_context import HvmContext
from libxlsr.formats.hvm_params import HvmParams, hvm_param_name
from libxlsr.formats.libxc import RecordType
from libxlsr.formats.libxc_pv import SharedInfo, X86PvInfo, X86PvP2mFrames, X86PvVcpu
from libxlsr.formats.libxc_records import RecordBody, X86TscInfo
from libxlsr.formats.records import unhandled
from libxlsr.libxc.guest import Guest
from libxlsr.libxc.visitor import Record
from libxlsr.restoring.image import layout
from libxlsr.restoring.image.small_files import flush, json_bytes, write_file

_VCPU_FILES = {
    RecordType.X86_PV_VCPU_BASIC: "basic",
    RecordType.X86_PV_VCPU_EXTENDED: "extended",
    RecordType.X86_PV_VCPU_XSAVE: "xsave",
    RecordType.X86_PV_VCPU_MSRS: "msrs",
}


class StateFiles:
    """Stores records below ``directory``; a later one takes the place of an earlier one of its
    kind, as in libxenguest. Raises OSError as the system does."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: set[str] = set()

    def store(self, record: Record, body: RecordBody, data: Buffer) -> None:
        """Store one record, whose bytes are ``data``, but for those that are put together.

        Raises StreamError for one that has no file.
        """
        if isinstance(body, X86PvInfo):
            value = {"guest_width": body.guest_width, "pt_levels": body.pt_levels}
            self._write_json(layout.PV_INFO, value)
        elif isinstance(body, X86PvVcpu):
            name = f"{layout.VCPUS}/{body.vcpu_id}/{_VCPU_FILES[body.type]}"
            self._write(name, body.context)
        elif isinstance(body, SharedInfo):
            self._write(layout.SHARED_INFO, body.shared_info)
        elif isinstance(body, X86TscInfo):
            self._write_json(layout.TSC_INFO, body._asdict())
        elif isinstance(body, X86CpuidPolicy):
            self._write_json(layout.CPUID_POLICY, [leaf._asdict() for leaf in body.leaves])
        elif isinstance(body, X86MsrPolicy):
            self._write_json(layout.MSR_POLICY, [msr._asdict() for msr in body.msrs])
        elif isinstance(body, HvmContext):
            self._write(layout.HVM_CONTEXT, bytes(data))
        elif not isinstance(body, (HvmParams, X86PvP2mFrames)):  # finish() writes these
            raise unhandled(record.name, "a restore into files", record.body_offset)

    def finish(self, guest: Guest) -> None:
        """Write what had to wait for the last record, and flush every file."""
        p2m = guest.p2m.frames
        if p2m:
            self._write(layout.P2M_FRAMES, struct.pack(f"<{len(p2m)}Q", *p2m))
        if guest.hvm_params is not None:
            params = [
                {"index": index, "name": hvm_param_name(index), "value": value}
                for index, value in guest.hvm_params.items()
            ]
            self._write_json(layout.HVM_PARAMS, params)
        for name in self._written:
            flush(self._directory / name)

    def _write(self, name: str, data: bytes) -> None:
        self._written.add(name)
        write_file(self._directory / name, data)

    def _write_json(self, name: str, value: object) -> None:
        self._write(name, json_bytes(value))
