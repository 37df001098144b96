"""What Xen says about the host and its domains, as plain records.

Named tuples and no dataclasses here and in ``xenctrl`` and ``xenguest``: importing dataclasses
would take a helper's child a tenth of its start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import uuid

PAGE_SIZE = 4096


class PhysInfo(NamedTuple):
    """The host (``struct xen_sysctl_physinfo``). Sizes are in bytes."""

    nr_cpus: int
    max_cpu_id: int
    nr_nodes: int
    cpu_khz: int
    total_bytes: int
    free_bytes: int
    scrub_bytes: int
    outstanding_bytes: int
    pv: bool
    hvm: bool
    hap: bool
    shadow: bool
    directio: bool
    grant_versions: int
    """The highest grant table version that guests may use: 2, 1, or 0 for none."""

    @property
    def allocatable_bytes(self) -> int:
        """Free memory, plus what is being scrubbed, minus what is claimed by others."""
        return self.free_bytes + self.scrub_bytes - self.outstanding_bytes


class XenVersion(NamedTuple):
    """The running hypervisor: ``release`` is such as "4.17.5", ``capabilities`` such as
    ("xen-3.0-x86_64", "hvm-3.0-x86_64")."""

    release: str
    extra: str
    changeset: str
    capabilities: tuple[str, ...]


class DomainInfo(NamedTuple):
    """One domain (``struct xen_domctl_getdomaininfo``). Sizes are in bytes, times in ns.

    ``shutdown_reason`` is a SHUTDOWN_* number of xen/sched.h, None unless it has shut down.
    """

    domid: int
    uuid: uuid.UUID
    hvm: bool
    hap: bool
    dying: bool
    paused: bool
    blocked: bool
    running: bool
    shutdown_reason: int | None
    total_bytes: int
    max_bytes: int
    outstanding_bytes: int
    cpu_time_ns: int
    online_vcpus: int
    max_vcpu_id: int | None
    """None where the domain has no vCPU."""
    cpupool: int
