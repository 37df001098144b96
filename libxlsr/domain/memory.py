"""How much memory a domain needs.

Xen's own need for a domain is small but real: without room for it the restore fails half-way.
"""

from __future__ import annotations

from libxlsr.domain.config import DomainConfig
from libxlsr.xen.hostinfo import PhysInfo

_PAGE_ROUND = 2 * 1024


def paging_memkb(config: DomainConfig, hap: bool) -> int:
    """The paging pool, KiB (libxl__get_required_paging_memory): 1 MiB a vCPU, a page a MiB for
    the P2M of a guest that is not PV, and another where pages are shadowed."""
    if config.shadow_memkb is not None:
        return config.shadow_memkb
    pages_per_mib = config.hvm_container + (not hap)
    return 4 * (256 * config.max_vcpus + pages_per_mib * (config.max_memkb // 1024))


def needed_memkb(config: DomainConfig, hap: bool) -> int:
    """What the domain takes from the host, KiB, a multiple of 2 MiB
    (libxl__domain_need_memory_calculate)."""
    extra = 2048 if config.hvm_container else 1024
    need = config.target_memkb + paging_memkb(config, hap) + extra
    return -(-need // _PAGE_ROUND) * _PAGE_ROUND


def missing_memkb(config: DomainConfig, host: PhysInfo, hap: bool) -> int:
    """How much of it the host lacks, KiB; 0 where it has enough."""
    return max(0, needed_memkb(config, hap) - host.allocatable_bytes // 1024)
