"""The registers of an offline restore's vCPUs, of PV as of HVM and PVH guests."""

from __future__ import annotations

# ruff: noqa: SIM905 - names of registers read better as words than as a list of strings
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from libxlsr.errors import StreamError
from libxlsr.formats.hvm_context import HvmContext
from libxlsr.guest_state.hvm_cpu import HvmCpu, hvm_cpus
from libxlsr.guest_state.vcpu_guest_context import (
    VGCF_I387_VALID,
    VGCF_IN_KERNEL,
    VGCF_ONLINE,
    VcpuGuestContext,
    page_table_address,
)
from libxlsr.restoring.image import layout
from libxlsr.tools.extract.page_tables import Paging

_CR0_PG = 1 << 31
_CR4_PSE = 1 << 4
_CR4_PAE = 1 << 5
_CR4_LA57 = 1 << 12
_EFER_LMA = 1 << 10


@dataclass(frozen=True)
class Vcpu:
    """One vCPU. ``registers`` has the general ones by their 64-bit names, the selectors ``cs`` to
    ``gs``, ``fs_base``, ``gs_base``, ``kernel_gs_base`` (what SWAPGS would bring), ``cr0`` to
    ``cr4``; an HVM guest's those of struct hvm_hw_cpu too."""

    number: int
    registers: Mapping[str, int]
    paging: Paging
    page_table: int
    """The guest-physical address of the highest page table."""
    is_64bit: bool
    is_pv: bool
    context: VcpuGuestContext
    """As XEN_DOMCTL_getvcpucontext would give it."""

    def table_address(self, cr3: int) -> int:
        """The guest-physical address of the page table that this vCPU finds with another CR3: as
        its registers would have it, or (a 32-bit PV guest's, above 4 GiB) the plain address."""
        if self.is_pv:
            return page_table_address(self.context.width, cr3)
        return _hvm_table_address(self.paging, cr3)


def read_vcpus(directory: Path) -> list[Vcpu]:
    """The vCPUs of the restore or index in ``directory``, by number. Raises StreamError and
    OSError."""
    if (directory / layout.HVM_CONTEXT).exists():
        context = HvmContext.decode((directory / layout.HVM_CONTEXT).read_bytes())
        vcpus = [_from_hvm(number, cpu) for number, cpu in hvm_cpus(context).items()]
    else:
        vcpus = [
            _from_pv(int(path.name), VcpuGuestContext.decode((path / "basic").read_bytes()))
            for path in (directory / layout.VCPUS).iterdir()
            if (path / "basic").exists()
        ]
    return sorted(vcpus, key=lambda vcpu: vcpu.number)


def guest_width(directory: Path, vcpus: list[Vcpu]) -> int:
    """4 for a 32-bit guest, 8 for a 64-bit one: what a PV guest was built as, what the vCPUs of
    any other were last in. Raises StreamError and OSError."""
    try:
        info = json.loads((directory / layout.PV_INFO).read_bytes())
    except FileNotFoundError:
        return 8 if not vcpus or any(vcpu.is_64bit for vcpu in vcpus) else 4
    width = info.get("guest_width") if isinstance(info, dict) else None
    if width not in (4, 8):
        raise StreamError(f"{layout.PV_INFO} has no guest_width", offset=None)
    return int(width)


def _from_hvm(number: int, cpu: HvmCpu) -> Vcpu:
    hvm = cpu.registers
    registers = dict(hvm)
    registers.update({name: hvm[f"{name}_sel"] & 0xFFFF for name in "cs ds es fs gs ss".split()})
    registers["kernel_gs_base"] = hvm["shadow_gs"]
    long_mode = bool(hvm["msr_efer"] & _EFER_LMA)
    cr4 = hvm["cr4"]
    if not hvm["cr0"] & _CR0_PG:
        paging = Paging.NONE
    elif long_mode:
        paging = Paging.FIVE_LEVEL if cr4 & _CR4_LA57 else Paging.FOUR_LEVEL
    elif cr4 & _CR4_PAE:
        paging = Paging.PAE
    else:
        paging = Paging.LEGACY if cr4 & _CR4_PSE else Paging.LEGACY_SMALL_PAGES
    return Vcpu(
        number=number,
        registers=registers,
        paging=paging,
        page_table=_hvm_table_address(paging, hvm["cr3"]),
        is_64bit=long_mode,
        is_pv=False,
        context=_guest_context(registers, cpu),
    )


def _guest_context(registers: Mapping[str, int], cpu: HvmCpu) -> VcpuGuestContext:
    """As arch_get_info_guest() fills it in for an HVM vCPU (xen/arch/x86/domctl.c)."""
    in_kernel = registers["cs"] & 3 == 0
    active, other = ("gs_base_kernel", "gs_base_user")[:: 1 if in_kernel else -1]
    return VcpuGuestContext(
        8,
        {
            **registers,
            "flags": VGCF_I387_VALID | VGCF_ONLINE | (VGCF_IN_KERNEL if in_kernel else 0),
            active: registers["gs_base"],
            other: registers["shadow_gs"],
        },
        cpu.fpu_regs,
    )


def _from_pv(number: int, context: VcpuGuestContext) -> Vcpu:
    pv = context.registers
    registers = dict(pv)
    is_64bit = context.width == 8
    in_kernel = bool(pv["flags"] & VGCF_IN_KERNEL)
    if is_64bit:
        active, other = ("gs_base_kernel", "gs_base_user")[:: 1 if in_kernel else -1]
        registers["gs_base"], registers["kernel_gs_base"] = pv[active], pv[other]
    return Vcpu(
        number=number,
        registers=registers,
        paging=Paging.FOUR_LEVEL if is_64bit else Paging.PAE,
        page_table=page_table_address(context.width, pv["cr3"]),
        is_64bit=is_64bit,
        is_pv=True,
        context=context,
    )


def _hvm_table_address(paging: Paging, cr3: int) -> int:
    """The guest-physical address of the page table in CR3, without its flags."""
    return cr3 & (0xFFFFFFE0 if paging is Paging.PAE else 0x000FFFFFFFFFF000)
