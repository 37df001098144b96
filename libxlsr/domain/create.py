"""Makes the domain: creation, limits, event channels, clocks, paging pool.

Sources: libxl__domain_make (libxl_create.c), libxl__build_pre (libxl_dom.c),
libxl__arch_domain_prepare_config and libxl__arch_domain_create (libxl_x86.c).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from libxlsr.domain import memory
from libxlsr.domain.config import DomainConfig
from libxlsr.domain.libxl_files import domid_history
from libxlsr.domain.preflight import hap_of
from libxlsr.errors import TargetError
from libxlsr.formats.text import printable
from libxlsr.xen.hostinfo import PhysInfo
from libxlsr.xen.scheduling import set_sched_params
from libxlsr.xen.xenctrl import CreateDomain, Xenctrl
from libxlsr.xen.xenstore import Xenstore

log = logging.getLogger(__name__)

MAXMEM_CONSTANT_KB = 1024
"""LIBXL_MAXMEM_CONSTANT: what a domain may have above its target."""

CREATE_ATTEMPTS = 100
"""How many ids in a row may have been in use a moment ago before it is an error."""


@dataclass(frozen=True)
class BuildState:
    """What the restore of the stream needs of the new domain (libxl__domain_build_state)."""

    domid: int
    store_port: int
    store_domid: int
    console_port: int
    console_domid: int


def create_domain(xenctrl: Xenctrl, xenstore: Xenstore, config: DomainConfig, run_dir: Path) -> int:
    """Create the domain and return its id, one that was not in use within the last minute.

    Which those are is written down in ``run_dir`` (`domid_history`).

    The caller owns the domain at once: after this call nothing here can fail.
    """
    wanted = creation_of(xenctrl, xenstore, config)
    for _ in range(CREATE_ATTEMPTS):
        domid = xenctrl.domain_create(wanted)
        try:
            recent = domid_history.is_recent(domid, run_dir)
        except OSError:
            recent = False
        if not recent:
            return domid
        try:
            xenctrl.domain_destroy(domid)
        except TargetError as error:
            log.warning("%s", error)
            return domid  # somebody must own it, and say what is left
    raise TargetError(
        f"{CREATE_ATTEMPTS} domain ids in a row were in use within the last minute",
        call="xc_domain_create",
    )


def creation_of(xenctrl: Xenctrl, xenstore: Xenstore, config: DomainConfig) -> CreateDomain:
    """What to ask of ``xc_domain_create`` for this configuration on this host."""
    lib, host = xenctrl.lib, xenctrl.physinfo()
    flags = emulation = 0
    if config.hvm_container:
        flags |= lib.XEN_DOMCTL_CDF_hvm
        if hap_of(config, host):
            flags |= lib.XEN_DOMCTL_CDF_hap
        if not config.oos:
            flags |= lib.XEN_DOMCTL_CDF_oos_off
        if config.nested_hvm:
            flags |= lib.XEN_DOMCTL_CDF_nested_virt
    if config.domain_type == "pvh":
        emulation = lib.XEN_X86_EMU_LAPIC
    elif config.hvm is not None:
        emulation = lib.XEN_X86_EMU_ALL & ~lib.XEN_X86_EMU_VPCI
        if not config.hvm.pirq:
            emulation &= ~lib.XEN_X86_EMU_USE_PIRQ
    if config.vpmu:
        flags |= lib.XEN_DOMCTL_CDF_vpmu
    version = config.max_grant_version
    return CreateDomain(
        handle=config.uuid,
        flags=flags,
        max_vcpus=config.max_vcpus,
        max_evtchn_port=config.event_channels,
        max_grant_frames=config.max_grant_frames,
        max_maptrack_frames=config.max_maptrack_frames,
        max_grant_version=host.grant_versions if version is None else version,
        emulation_flags=emulation,
        misc_flags=lib.XEN_X86_MSR_RELAXED if config.msr_relaxed else 0,
        altp2m_mode=config.altp2m_mode,
        altp2m_count=config.altp2m_count,
        vmtrace_size=-(-config.vmtrace_buf_kb * 1024 // 4096) * 4096,
        cpupool_id=cpupool_id(xenstore, config.pool_name),
        ssidref=config.ssidref,
    )


def cpupool_id(xenstore: Xenstore, name: str | None) -> int:
    """The id of the named CPU pool; the first pool where there is no name."""
    if name is None:
        return 0
    for pool in xenstore.directory("/local/pool") or ():
        if pool.isdigit() and xenstore.read(f"/local/pool/{pool}/name") == name:
            return int(pool)
    raise TargetError(
        f"there is no CPU pool '{printable(name, 80)}' here",
        remedy="make it (xl cpupool-create), or choose another with --config-override pool=NAME",
    )


def set_up_domain(
    xenctrl: Xenctrl, xenstore: Xenstore, config: DomainConfig, domid: int
) -> BuildState:
    """Everything between the creation and the stream."""
    xenctrl.domain_max_vcpus(domid, config.max_vcpus)
    host = xenctrl.physinfo()
    _set_affinities(xenctrl, config, domid, host)
    xenctrl.domain_setmaxmem(domid, config.target_memkb + MAXMEM_CONSTANT_KB)
    store_domid = _domid_at(xenstore, "/tool/xenstored/domid")
    console_domid = _domid_at(xenstore, "/tool/xenconsoled/domid")
    state = BuildState(
        domid=domid,
        store_port=xenctrl.evtchn_alloc_unbound(domid, store_domid),
        store_domid=store_domid,
        console_port=xenctrl.evtchn_alloc_unbound(domid, console_domid),
        console_domid=console_domid,
    )
    _set_up_arch(xenctrl, config, domid, host)
    return state


def _set_affinities(xenctrl: Xenctrl, config: DomainConfig, domid: int, host: PhysInfo) -> None:
    chosen = config.nodemap or config.vcpu_hard_affinity or config.vcpu_soft_affinity
    if config.numa_placement and not chosen and host.nr_nodes > 1:
        log.warning(
            "domain %d is not placed on one of this host's %d NUMA nodes, as libxl would place it: "
            "choose with --config-override b_info.nodemap=[NODE]",
            domid,
            host.nr_nodes,
        )
    if config.nodemap:
        xenctrl.domain_node_setaffinity(domid, config.nodemap)
    for vcpu, cpus in enumerate(config.vcpu_hard_affinity):
        xenctrl.vcpu_setaffinity(domid, vcpu, hard=cpus)
    for vcpu, cpus in enumerate(config.vcpu_soft_affinity):
        xenctrl.vcpu_setaffinity(domid, vcpu, soft=cpus)


def set_scheduling(xenctrl: Xenctrl, config: DomainConfig, domid: int) -> None:
    """Give the domain its share of the processors, as far as its CPU pool's scheduler knows it: the
    image may come from a host with another scheduler."""
    unknown = set_sched_params(xenctrl, domid, config.sched_params)
    if unknown:
        names = ", ".join(sorted(unknown))
        log.info("the scheduler of this CPU pool has no %s: not set", names)


def _domid_at(xenstore: Xenstore, path: str) -> int:
    """The domain that a daemon runs in: dom0 unless it is a stub domain."""
    text = xenstore.read(path) or ""
    return int(text) if text.isdigit() else 0


def _set_up_arch(xenctrl: Xenctrl, config: DomainConfig, domid: int, host: PhysInfo) -> None:
    lib = xenctrl.lib
    if config.hvm_container:
        # From 4.20 altp2m is chosen at the creation, before that by a parameter.
        if not (lib.HAS_CREATEDOMAIN_ALTP2M_OPTS or lib.HAS_CREATEDOMAIN_ALTP2M_NR):
            xenctrl.hvm_param_set(domid, lib.XLSR_HVM_PARAM_ALTP2M, config.altp2m_mode)
        hvm = config.hvm
        if hvm is not None:
            xenctrl.hvm_param_set(domid, lib.HVM_PARAM_HPET_ENABLED, hvm.hpet)
            xenctrl.hvm_param_set(domid, lib.HVM_PARAM_VPT_ALIGN, hvm.vpt_align)
            if hvm.mca_caps:
                xenctrl.hvm_param_set(domid, lib.HVM_PARAM_MCA_CAP, hvm.mca_caps)
        xenctrl.hvm_param_set(domid, lib.HVM_PARAM_TIMER_MODE, config.timer_mode)
    else:
        xenctrl.domain_set_memmap_limit(domid, config.max_memkb + config.slack_memkb)
    xenctrl.domain_set_tsc_info(domid, config.tsc_mode)
    offset = config.rtc_timeoffset
    if config.localtime:
        offset += time.localtime().tm_gmtoff
    if offset:
        offset &= 0xFFFFFFFF  # libxl's is unsigned, libxenctrl's is not
        xenctrl.domain_set_time_offset(domid, offset - (1 << 32) if offset >> 31 else offset)
    if config.hvm_container:
        pool = memory.paging_memkb(config, hap_of(config, host))
        xenctrl.set_paging_mempool_size(domid, pool * 1024)
