"""Xen itself, as a toolstack knows it: domains, their memory, ports and parameters.

Sources: xen/common/domctl.c, xen/common/domain.c, xen/common/memory.c, xen/common/event_channel.c,
xen/arch/x86/domctl.c.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from libxlsr.testing.fake_xen.failure import XenFailure

PAGE_SIZE = 4096
DOMID_FIRST_RESERVED = 0x7FF0
DOM0_PAGES = 1 << 18
XEN_DOMCTL_CDF_hvm = 1 << 0
XEN_DOMCTL_CDF_hap = 1 << 1

SCHEDULERS = {"credit": 5, "credit2": 6, "rtds": 8, "null": 9}
"""XEN_SCHEDULER_* (xen/domctl.h)."""

_SCHED_DEFAULTS = {
    "credit": {"weight": 256, "cap": 0},
    "credit2": {"weight": 256, "cap": 0},
    "rtds": {"period": 10000, "budget": 4000, "flags": 0},
}


@dataclass
class Domain:
    """One domain. Masks of CPUs and nodes are little-endian bytes, in hexadecimal."""

    domid: int
    handle: str
    """Its UUID, in hexadecimal."""
    flags: int = 0
    emulation_flags: int = 0
    created_max_vcpus: int = 0
    vcpus: int = 0
    pages: int = 0
    max_pages: int = 0
    paging_bytes: int = 0
    cpupool: int = 0
    dying: bool = False
    pause_count: int = 1
    shutdown_reason: int | None = None
    unbound_ports: dict[int, int] = field(default_factory=dict)
    """The remote domain by the port."""
    hvm_params: dict[int, int] = field(default_factory=dict)
    vcpu_affinity: dict[int, tuple[str | None, str | None]] = field(default_factory=dict)
    node_affinity: str = ""
    sched: dict[str, int] = field(default_factory=dict)
    tsc_mode: int = 0
    time_offset: int = 0
    memmap_limit_kb: int | None = None
    cpu_policy: str | None = None
    """"set" by the stream's records, "derived" where it has none."""

    @property
    def uuid(self) -> uuid.UUID:
        """Its handle."""
        return uuid.UUID(self.handle)

    @property
    def hvm(self) -> bool:
        """Whether it is an HVM or a PVH domain."""
        return bool(self.flags & XEN_DOMCTL_CDF_hvm)

    @property
    def running(self) -> bool:
        """Whether it was unpaused."""
        return not self.pause_count and not self.dying

    def info(self) -> dict[str, Any]:
        """What ``struct xen_domctl_getdomaininfo`` tells."""
        return {
            "domain": self.domid,
            "handle": self.handle,
            "hvm_guest": self.hvm,
            "hap": bool(self.flags & XEN_DOMCTL_CDF_hap),
            "dying": self.dying,
            "paused": bool(self.pause_count),
            "running": self.running,
            "shutdown_reason": self.shutdown_reason,
            "tot_pages": self.pages,
            "max_pages": self.max_pages,
            "nr_online_vcpus": self.vcpus,
            "max_vcpu_id": self.vcpus - 1 if self.vcpus else 0xFFFFFFFF,
            "cpupool": self.cpupool,
        }


class Hypervisor:
    """The host. What it has and can do are attributes, for a test to change.

    Methods are named as libxenctrl's functions. They raise `XenFailure` with the errno that the
    hypercall fails with. Their arguments and results are such that another process can call them.
    """

    def __init__(self) -> None:
        self.total_pages = (4 << 30) // PAGE_SIZE
        self.nr_cpus = 2
        self.nr_nodes = 1
        self.pv = self.hvm = self.hap = self.shadow = True
        self.release = (4, 17, ".5")
        self.scheduler = "credit2"
        """Of the one CPU pool, number 0."""
        self.refused_cpuid_leaf: int | None = None
        """A leaf of a CPU policy that this host's CPU can't give."""
        self.mapped_elsewhere: set[int] = set()
        """Domains with pages that others map: destroyed, they stay, dying, until `unmap`."""
        dom0 = Domain(0, uuid.UUID(int=0).hex, vcpus=2, pages=DOM0_PAGES, max_pages=DOM0_PAGES)
        dom0.pause_count = 0
        self.domains = {0: dom0}
        self.last_domid = 0
        """The id that was given out last; the next one is tried first."""

    # The host.

    @property
    def free_pages(self) -> int:
        """What no domain has."""
        taken = sum(
            domain.pages + domain.paging_bytes // PAGE_SIZE for domain in self.domains.values()
        )
        return self.total_pages - taken

    def existing(self, domid: int) -> Domain:
        """The domain. Raises XenFailure (ESRCH) where there is none, or where it is dying."""
        domain = self.domains.get(domid)
        if domain is None or domain.dying:
            raise XenFailure(errno.ESRCH)
        return domain

    def version(self) -> tuple[int, int, str]:
        """Major, minor, extra version."""
        return self.release

    def physinfo(self) -> dict[str, int]:
        """What ``struct xen_sysctl_physinfo`` tells."""
        return {
            "nr_cpus": self.nr_cpus,
            "max_cpu_id": self.nr_cpus - 1,
            "nr_nodes": self.nr_nodes,
            "cpu_khz": 2_000_000,
            "total_pages": self.total_pages,
            "free_pages": self.free_pages,
            "scrub_pages": 0,
            "outstanding_pages": 0,
            "pv": self.pv,
            "hvm": self.hvm,
            "hap": self.hap,
            "shadow": self.shadow,
        }

    def scheduler_of_pool(self, pool: int) -> str:
        """Its name. There is pool 0 alone."""
        if pool:
            raise XenFailure(errno.ENOENT)
        return self.scheduler

    # Domains.

    def domain_info(self, domid: int) -> dict[str, Any]:
        """Of one that is dying, too."""
        if domid not in self.domains:
            raise XenFailure(errno.ESRCH)
        return self.domains[domid].info()

    def domain_infos(self, first: int) -> list[dict[str, Any]]:
        """Of every domain from this id on, by rising id."""
        return [self.domains[domid].info() for domid in sorted(self.domains) if domid >= first]

    def domain_create(
        self, handle: str, flags: int, max_vcpus: int, emulation_flags: int, cpupool: int
    ) -> int:
        """Xen chooses the id: the next one that is free. Handles need not differ."""
        hvm = bool(flags & XEN_DOMCTL_CDF_hvm)
        if max_vcpus < 1 or (flags & XEN_DOMCTL_CDF_hap and not hvm):
            raise XenFailure(errno.EINVAL)
        if not (self.hvm if hvm else self.pv):
            raise XenFailure(errno.EINVAL)
        if cpupool:
            raise XenFailure(errno.ESRCH)
        for _ in range(DOMID_FIRST_RESERVED):
            self.last_domid = self.last_domid % (DOMID_FIRST_RESERVED - 1) + 1
            if self.last_domid not in self.domains:
                break
        else:
            raise XenFailure(errno.ENOMEM)
        sched = dict(_SCHED_DEFAULTS.get(self.scheduler, {}))
        domain = Domain(self.last_domid, handle, flags, emulation_flags, max_vcpus, sched=sched)
        self.domains[domain.domid] = domain
        return domain.domid

    def domain_destroy(self, domid: int) -> None:
        """Its memory is the host's again, and the id free, unless others map its pages."""
        if domid not in self.domains or domid == 0:
            raise XenFailure(errno.ESRCH if domid else errno.EINVAL)
        if domid in self.mapped_elsewhere:
            self.domains[domid].dying = True
        else:
            del self.domains[domid]

    def unmap(self, domid: int) -> None:
        """Others map none of its pages any more."""
        self.mapped_elsewhere.discard(domid)
        if domid in self.domains and self.domains[domid].dying:
            del self.domains[domid]

    def domain_max_vcpus(self, domid: int, vcpus: int) -> None:
        domain = self.existing(domid)
        if vcpus != domain.created_max_vcpus:
            raise XenFailure(errno.EINVAL)
        domain.vcpus = vcpus

    def domain_setmaxmem(self, domid: int, max_memkb: int) -> None:
        self.existing(domid).max_pages = max_memkb // 4

    def set_paging_mempool_size(self, domid: int, nbytes: int) -> None:
        domain = self._existing_hvm(domid)
        if (nbytes - domain.paging_bytes) // PAGE_SIZE > self.free_pages:
            raise XenFailure(errno.ENOMEM)
        domain.paging_bytes = nbytes

    def populate(self, domid: int, pages: int) -> None:
        """Give the domain memory (XENMEM_populate_physmap)."""
        domain = self.existing(domid)
        if domain.pages + pages > domain.max_pages:
            raise XenFailure(errno.EBUSY)
        if pages > self.free_pages:
            raise XenFailure(errno.ENOMEM)
        domain.pages += pages

    def domain_set_memmap_limit(self, domid: int, limit_kb: int) -> None:
        domain = self.existing(domid)
        if domain.hvm:
            raise XenFailure(errno.EPERM)
        domain.memmap_limit_kb = limit_kb

    def domain_set_tsc_info(self, domid: int, mode: int) -> None:
        if mode not in (0, 1, 2):
            raise XenFailure(errno.EINVAL)
        self.existing(domid).tsc_mode = mode

    def domain_set_time_offset(self, domid: int, seconds: int) -> None:
        self.existing(domid).time_offset = seconds

    def domain_sethandle(self, domid: int, handle: str) -> None:
        self.existing(domid).handle = handle

    def domain_pause(self, domid: int) -> None:
        self.existing(domid).pause_count += 1

    def domain_unpause(self, domid: int) -> None:
        domain = self.existing(domid)
        if not domain.vcpus:
            raise XenFailure(errno.EINVAL)
        domain.pause_count = max(0, domain.pause_count - 1)

    def domain_shutdown(self, domid: int, reason: int) -> None:
        self.existing(domid).shutdown_reason = reason

    # Ports, parameters, policies, processors.

    def evtchn_alloc_unbound(self, domid: int, remote_domid: int) -> int:
        domain = self.existing(domid)
        if remote_domid not in self.domains:
            raise XenFailure(errno.ESRCH)
        port = len(domain.unbound_ports) + 1
        domain.unbound_ports[port] = remote_domid
        return port

    def hvm_param_set(self, domid: int, param: int, value: int) -> None:
        self._existing_hvm(domid).hvm_params[param] = value

    def hvm_param_get(self, domid: int, param: int) -> int:
        return self._existing_hvm(domid).hvm_params.get(param, 0)

    def set_cpu_policy(self, domid: int, leaves: list[int]) -> int | None:
        """Take the policy. The leaf that the host can't give, None where it can give all."""
        domain = self.existing(domid)
        if self.refused_cpuid_leaf in leaves:
            return self.refused_cpuid_leaf
        domain.cpu_policy = "set"
        return None

    def apply_cpu_policy(self, domid: int) -> None:
        """xc_cpuid_apply_policy."""
        self.existing(domid).cpu_policy = "derived"

    def vcpu_setaffinity(self, domid: int, vcpu: int, hard: str | None, soft: str | None) -> None:
        domain = self.existing(domid)
        if vcpu >= domain.vcpus:
            raise XenFailure(errno.ESRCH)
        if any(mask is not None and not int(mask, 16) for mask in (hard, soft)):
            raise XenFailure(errno.EINVAL)
        domain.vcpu_affinity[vcpu] = (hard, soft)

    def domain_node_setaffinity(self, domid: int, nodes: str) -> None:
        domain = self.existing(domid)
        if not int(nodes, 16):
            raise XenFailure(errno.EINVAL)
        domain.node_affinity = nodes

    def sched_get(self, domid: int, scheduler: str) -> dict[str, int]:
        """The domain's parameters, which its CPU pool's scheduler alone has (sched_adjust)."""
        domain = self.existing(domid)
        if scheduler != self.scheduler:
            raise XenFailure(errno.EINVAL)
        return dict(domain.sched)

    def sched_set(self, domid: int, scheduler: str, params: Mapping[str, int]) -> None:
        """Raises as `sched_get`, and for a weight of 0 or a share of more than all (EINVAL)."""
        self.sched_get(domid, scheduler)
        if params.get("weight") == 0 or params.get("budget", 0) > params.get("period", 0):
            raise XenFailure(errno.EINVAL)
        self.domains[domid].sched.update(params)

    def _existing_hvm(self, domid: int) -> Domain:
        domain = self.existing(domid)
        if not domain.hvm:
            raise XenFailure(errno.EINVAL)
        return domain
