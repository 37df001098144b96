"""The digest of a guest that was restored offline, from the files that the restore left.

Made as ``libxlsr verify --digest`` makes an image's, so that the two can be compared.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import closing
from pathlib import Path
from typing import Any

from libxlsr.formats import libxl
from libxlsr.formats.cpu_policy import CpuidLeaf, MsrEntry, X86CpuidPolicy, X86MsrPolicy
from libxlsr.formats.hvm_params import HvmParams
from libxlsr.formats.libxc import PAGE_SIZE, RecordType
from libxlsr.formats.libxc_pv import X86PvInfo, X86PvP2mFrames, X86PvVcpu
from libxlsr.formats.libxc_records import X86TscInfo
from libxlsr.formats.page_data import PageData
from libxlsr.formats.page_types import has_data
from libxlsr.libxc.frame_map import FrameMap
from libxlsr.restoring.image import layout
from libxlsr.tools.extract.frames import kept_its_contents
from libxlsr.tools.verify.digest import GuestDigest

_VCPU_RECORDS = {
    "basic": RecordType.X86_PV_VCPU_BASIC,
    "extended": RecordType.X86_PV_VCPU_EXTENDED,
    "xsave": RecordType.X86_PV_VCPU_XSAVE,
    "msrs": RecordType.X86_PV_VCPU_MSRS,
}
_NAMED = re.compile(rb"[^\0]{1,1024}", re.DOTALL)
_EMULATOR_IDS = {name: number for number, name in libxl.EMULATOR_NAMES.items()}


def restored_digest(directory: Path) -> str:
    """The digest of the guest in ``directory``."""
    manifest = json.loads((directory / layout.MANIFEST).read_bytes())
    with closing(GuestDigest()) as digest:
        types = (directory / layout.PAGE_TYPES).read_bytes()
        for name, data in _state(directory, manifest, len(types)).items():
            digest.state(name, data)
        frames = FrameMap()
        with (directory / layout.MEMORY).open("rb") as memory:
            for match in _NAMED.finditer(types):
                start, kinds = match.start(), match[0]
                frames.add(PageData.of((start + n, byte & 0xF) for n, byte in enumerate(kinds)))
                for gfn, byte in enumerate(kinds, start):
                    if has_data(byte & 0xF) or kept_its_contents(byte):
                        page = os.pread(memory.fileno(), PAGE_SIZE, gfn * PAGE_SIZE)
                        digest.pages(gfn, page.ljust(PAGE_SIZE, b"\0"))
        return digest.finish(frames, pv=manifest["libxc"]["kind"] == "pv")


def _state(directory: Path, manifest: dict[str, Any], frames: int) -> dict[str, bytes]:
    """The bodies of the records that the files were made of, by the records' names."""
    state: dict[str, bytes] = {}

    def loaded(name: str) -> Any:
        path = directory / name
        return json.loads(path.read_bytes()) if path.is_file() else None

    if (value := loaded(layout.PV_INFO)) is not None:
        state["X86_PV_INFO"] = X86PvInfo(**value).encode()
    if (directory / layout.P2M_FRAMES).is_file():
        data = (directory / layout.P2M_FRAMES).read_bytes()
        state["X86_PV_P2M_FRAMES"] = X86PvP2mFrames(0, frames - 1, ()).encode() + data
    if (value := loaded(layout.TSC_INFO)) is not None:
        state["X86_TSC_INFO"] = X86TscInfo(**value).encode()
    if (value := loaded(layout.HVM_PARAMS)) is not None:
        params = tuple(sorted((one["index"], one["value"]) for one in value))
        state["HVM_PARAMS"] = HvmParams(params).encode()
    if (value := loaded(layout.CPUID_POLICY)) is not None:
        leaves = tuple(CpuidLeaf(**leaf) for leaf in value)
        state["X86_CPUID_POLICY"] = X86CpuidPolicy(leaves).encode()
    if (value := loaded(layout.MSR_POLICY)) is not None:
        state["X86_MSR_POLICY"] = X86MsrPolicy(tuple(MsrEntry(**msr) for msr in value)).encode()
    for name in (layout.SHARED_INFO, layout.HVM_CONTEXT):
        if (directory / name).is_file():
            state[name.upper()] = (directory / name).read_bytes()
    for path in (directory / layout.VCPUS).glob("*/*"):
        record, vcpu_id = _VCPU_RECORDS[path.name], int(path.parent.name)
        body = X86PvVcpu(record, vcpu_id, path.read_bytes())
        state[f"{record.name} {vcpu_id}"] = body.encode()
    if (value := loaded(layout.EMULATOR_XENSTORE)) is not None:
        pairs = tuple(sorted(value["keys"].items()))
        ids = _EMULATOR_IDS[value["emulator"]], value["index"]
        state["EMULATOR_XENSTORE_DATA"] = libxl.EmulatorXenstoreData(*ids, pairs).encode()
    if (value := manifest["emulator"]) is not None:
        context = (directory / layout.EMULATOR_CONTEXT).read_bytes()
        ids = _EMULATOR_IDS[value["emulator"]], value["index"]
        state["EMULATOR_CONTEXT"] = libxl.EmulatorContext(*ids, context).encode()
    return state
