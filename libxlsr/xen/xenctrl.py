"""The handle on the hypervisor: ``xc_interface``, typed, closed, with every failure a TargetError.

Each method is one libxenctrl function of the same name (xenctrl.h). A failure carries the call,
its errno and libxenctrl's last log line.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from libxlsr.errors import BackendUnavailable, TargetError
from libxlsr.xen import backend
from libxlsr.xen.handle import Handle
from libxlsr.xen.hostinfo import PAGE_SIZE, DomainInfo, PhysInfo, XenVersion
from libxlsr.xen.rawlib import FFI, CData, Lib
from libxlsr.xen.toollog import ToolLog

if TYPE_CHECKING:
    import uuid

NO_XEN_REMEDY = (
    "this takes a Xen dom0 and root; without Xen an image can be restored into files "
    "(--target image)"
)


class CreateDomain(NamedTuple):
    """What ``xc_domain_create`` needs (``struct xen_domctl_createdomain``), for every Xen version.

    ``flags`` are ``XEN_DOMCTL_CDF_*``, ``emulation_flags`` ``XEN_X86_EMU_*``, ``misc_flags``
    ``XEN_X86_MSR_RELAXED``; ``Xenctrl`` has the numbers of this Xen under the same names.
    ``max_grant_frames`` and ``max_maptrack_frames`` below 0 mean Xen's default.
    """

    handle: uuid.UUID
    flags: int
    max_vcpus: int
    max_evtchn_port: int
    max_grant_frames: int
    max_maptrack_frames: int
    max_grant_version: int
    emulation_flags: int = 0
    misc_flags: int = 0
    iommu_opts: int = 0
    altp2m_mode: int = 0
    altp2m_count: int = 0
    vmtrace_size: int = 0
    cpupool_id: int = 0
    ssidref: int = 0


class Xenctrl(Handle):
    """An open ``xc_interface``. A context manager; closing twice is harmless.

    Not thread-safe, and not usable after fork. Log lines go where ``log`` sends them.
    """

    def __init__(self, log: ToolLog | None = None) -> None:
        """Open it, through the libraries that ``log`` is for. Raises ``BackendUnavailable`` where
        there is no Xen, ``TargetError`` where Xen is there but says no (not root), and refuses a
        Xen that the module was not built for.
        """
        self.log = log or ToolLog()
        self.ffi: FFI = self.log.backend.ffi
        self.lib: Lib = self.log.backend.lib
        pointer = self.log.pointer
        self._xch: CData | None = self.lib.xc_interface_open(pointer, pointer, 0)
        if self._xch == self.ffi.NULL:
            self._xch = None
            raise self._cannot_open(self.ffi.errno)
        try:
            backend.require_same_release(self.xen_version().release, self.log.backend)
        except BaseException:
            self.close()
            raise

    def _cannot_open(self, number: int) -> Exception:
        last = self.log.take_last()
        if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            return BackendUnavailable("no Xen is running here", remedy=NO_XEN_REMEDY)
        return TargetError(
            "the hypervisor can't be reached",
            errno=number,
            call="xc_interface_open",
            last_log=last,
            remedy="run as root in dom0" if number in (errno.EACCES, errno.EPERM) else None,
        )

    def close(self) -> None:
        """Close the handle."""
        xch, self._xch = self._xch, None
        if xch is not None:
            self.lib.xc_interface_close(xch)

    @property
    def handle(self) -> CData:
        """The ``xc_interface *`` for the other modules of this package."""
        assert self._xch is not None, "Xenctrl is closed"
        return self._xch

    def check(self, result: int, call: str, doing: str) -> int:
        """``result`` of ``call`` where it is not negative, else TargetError ("could not DOING").

        libxenctrl's functions return -1 and set errno; some of libxenguest's return -errno.
        """
        if result < 0:
            raise self.failure(call, doing, number=self.ffi.errno if result == -1 else -result)
        self.log.take_last()
        self.log.raise_parked()
        return result

    def failure(self, call: str, doing: str, *, number: int) -> TargetError:
        """The TargetError for a failed call, with the last log line."""
        return TargetError(
            f"could not {doing}", errno=number, call=call, last_log=self.log.take_last()
        )

    # The host.

    def xen_version(self) -> XenVersion:
        """The running hypervisor's version and what guests it takes."""
        lib = self.lib
        number = self.check(
            lib.xc_version(self.handle, lib.XENVER_version, self.ffi.NULL),
            "xc_version",
            "ask the hypervisor for its version",
        )
        extra = self._version_text(lib.XENVER_extraversion, 16)
        # ".5-pre" behind 4.17; Debian puts ".5" there.
        return XenVersion(
            release=f"{number >> 16}.{number & 0xFFFF}{extra}",
            extra=extra,
            changeset=self._version_text(lib.XENVER_changeset, 64),
            capabilities=tuple(self._version_text(lib.XENVER_capabilities, 1024).split()),
        )

    def _version_text(self, cmd: int, size: int) -> str:
        text = self.ffi.new("char[]", size + 1)
        result = self.lib.xc_version(self.handle, cmd, text)
        self.check(result, "xc_version", "ask the hypervisor for its version")
        return self.ffi.string(text).decode("ascii", "backslashreplace")

    def physinfo(self) -> PhysInfo:
        """The host's processors, memory and abilities."""
        info = self.ffi.new("xc_physinfo_t *")
        self.check(self.lib.xc_physinfo(self.handle, info), "xc_physinfo", "ask for the host")
        lib = self.lib
        caps = info.capabilities
        if lib.XLSR_PHYSCAP_gnttab_v2:
            grants = 2 if caps & lib.XLSR_PHYSCAP_gnttab_v2 else 0
            grants = grants or (1 if caps & lib.XLSR_PHYSCAP_gnttab_v1 else 0)
        else:
            grants = 2
        return PhysInfo(
            nr_cpus=info.nr_cpus,
            max_cpu_id=info.max_cpu_id,
            nr_nodes=info.nr_nodes,
            cpu_khz=info.cpu_khz,
            total_bytes=info.total_pages * PAGE_SIZE,
            free_bytes=info.free_pages * PAGE_SIZE,
            scrub_bytes=info.scrub_pages * PAGE_SIZE,
            outstanding_bytes=info.outstanding_pages * PAGE_SIZE,
            pv=bool(caps & lib.XEN_SYSCTL_PHYSCAP_pv),
            hvm=bool(caps & lib.XEN_SYSCTL_PHYSCAP_hvm),
            hap=bool(caps & lib.XEN_SYSCTL_PHYSCAP_hap),
            shadow=bool(caps & lib.XEN_SYSCTL_PHYSCAP_shadow),
            directio=bool(caps & lib.XEN_SYSCTL_PHYSCAP_directio),
            grant_versions=grants,
        )

    # Domains.

    def domain_create(self, wanted: CreateDomain) -> int:
        """Create a domain and return its id. It is paused, and has no memory and no vCPU yet."""
        config = self.ffi.new("struct xlsr_createdomain *")
        for name in (
            "flags",
            "iommu_opts",
            "max_vcpus",
            "max_evtchn_port",
            "max_grant_frames",
            "max_maptrack_frames",
            "max_grant_version",
            "altp2m_mode",
            "altp2m_count",
            "vmtrace_size",
            "cpupool_id",
            "ssidref",
            "emulation_flags",
            "misc_flags",
        ):
            setattr(config, name, getattr(wanted, name))
        config.handle = list(wanted.handle.bytes)
        domid = self.ffi.new("uint32_t *")
        result = self.lib.xlsr_domain_create(self.handle, domid, config)
        self.check(result, "xc_domain_create", "create a domain")
        return int(domid[0])

    def domain_max_vcpus(self, domid: int, vcpus: int) -> None:
        self.check(
            self.lib.xc_domain_max_vcpus(self.handle, domid, vcpus),
            "xc_domain_max_vcpus",
            f"give domain {domid} {vcpus} vCPUs",
        )

    def domain_setmaxmem(self, domid: int, max_memkb: int) -> None:
        """Limit the domain's memory, in KiB."""
        self.check(
            self.lib.xc_domain_setmaxmem(self.handle, domid, max_memkb),
            "xc_domain_setmaxmem",
            f"limit domain {domid} to {max_memkb} KiB",
        )

    def domain_set_memmap_limit(self, domid: int, limit_kb: int) -> None:
        """Limit a PV domain's physical memory map, in KiB."""
        self.check(
            self.lib.xc_domain_set_memmap_limit(self.handle, domid, limit_kb),
            "xc_domain_set_memmap_limit",
            f"limit the memory map of domain {domid} to {limit_kb} KiB",
        )

    def domain_set_tsc_info(
        self, domid: int, mode: int, elapsed_ns: int = 0, khz: int = 0, incarnation: int = 0
    ) -> None:
        """Set the TSC mode (0 default, 1 always emulate, 2 never emulate; xen/arch-x86/…)."""
        self.check(
            self.lib.xc_domain_set_tsc_info(self.handle, domid, mode, elapsed_ns, khz, incarnation),
            "xc_domain_set_tsc_info",
            f"set TSC mode {mode} of domain {domid}",
        )

    def domain_set_time_offset(self, domid: int, seconds: int) -> None:
        self.check(
            self.lib.xc_domain_set_time_offset(self.handle, domid, seconds),
            "xc_domain_set_time_offset",
            f"set the clock offset of domain {domid}",
        )

    def set_paging_mempool_size(self, domid: int, nbytes: int) -> None:
        """Size the pool that HAP or shadow page tables of a HVM or PVH domain come from.

        An old Xen counts it in MiB: then it is rounded up.
        """
        self.check(
            self.lib.xlsr_set_paging_mempool_size(self.handle, domid, nbytes),
            "xc_set_paging_mempool_size",
            f"give domain {domid} a paging pool of {nbytes >> 10} KiB",
        )

    def domain_sethandle(self, domid: int, handle: uuid.UUID) -> None:
        """Set the domain's UUID."""
        raw = self.ffi.new("uint8_t[16]", list(handle.bytes))
        self.check(
            self.lib.xc_domain_sethandle(self.handle, domid, raw),
            "xc_domain_sethandle",
            f"set the UUID of domain {domid}",
        )

    def domain_pause(self, domid: int) -> None:
        self.check(
            self.lib.xc_domain_pause(self.handle, domid),
            "xc_domain_pause",
            f"pause domain {domid}",
        )

    def domain_unpause(self, domid: int) -> None:
        self.check(
            self.lib.xc_domain_unpause(self.handle, domid),
            "xc_domain_unpause",
            f"unpause domain {domid}",
        )

    def domain_shutdown(self, domid: int, reason: int) -> None:
        self.check(
            self.lib.xc_domain_shutdown(self.handle, domid, reason),
            "xc_domain_shutdown",
            f"shut domain {domid} down",
        )

    def domain_destroy(self, domid: int) -> None:
        """Destroy the domain. Its pages that others map live on until they let go."""
        self.check(
            self.lib.xc_domain_destroy(self.handle, domid),
            "xc_domain_destroy",
            f"destroy domain {domid}",
        )

    def domain_info(self, domid: int) -> DomainInfo | None:
        """What Xen knows of the domain, None where there is no such domain."""
        info = self.ffi.new("xc_domaininfo_t *")
        result = self.lib.xlsr_domain_getinfo(self.handle, domid, info)
        if result < 0 and self.ffi.errno == errno.ESRCH:
            self.log.take_last()
            return None
        self.check(result, "xc_domain_getinfo", f"ask for domain {domid}")
        return self._domain_info(info)

    def domains(self) -> Iterator[DomainInfo]:
        """Every domain that Xen has, by rising id, those that are dying too."""
        chunk = 64
        infos = self.ffi.new("xc_domaininfo_t[]", chunk)
        first = 0
        while True:
            count = self.check(
                self.lib.xc_domain_getinfolist(self.handle, first, chunk, infos),
                "xc_domain_getinfolist",
                "list the domains",
            )
            for index in range(count):
                yield self._domain_info(infos[index])
            if count < chunk:
                return
            first = infos[count - 1].domain + 1

    def _domain_info(self, info: CData) -> DomainInfo:
        import uuid  # not above: a helper's child starts sooner without it

        lib, flags = self.lib, info.flags
        reason = (flags >> lib.XEN_DOMINF_shutdownshift) & lib.XEN_DOMINF_shutdownmask
        return DomainInfo(
            domid=info.domain,
            uuid=uuid.UUID(bytes=bytes(self.ffi.buffer(info.handle))),
            hvm=bool(flags & lib.XEN_DOMINF_hvm_guest),
            hap=bool(flags & lib.XEN_DOMINF_hap),
            dying=bool(flags & lib.XEN_DOMINF_dying),
            paused=bool(flags & lib.XEN_DOMINF_paused),
            blocked=bool(flags & lib.XEN_DOMINF_blocked),
            running=bool(flags & lib.XEN_DOMINF_running),
            shutdown_reason=reason if flags & lib.XEN_DOMINF_shutdown else None,
            total_bytes=info.tot_pages * PAGE_SIZE,
            max_bytes=info.max_pages * PAGE_SIZE,
            outstanding_bytes=info.outstanding_pages * PAGE_SIZE,
            cpu_time_ns=info.cpu_time,
            online_vcpus=info.nr_online_vcpus,
            max_vcpu_id=None if info.max_vcpu_id == 0xFFFFFFFF else info.max_vcpu_id,
            cpupool=info.cpupool,
        )

    # Event channels and HVM parameters.

    def evtchn_alloc_unbound(self, domid: int, remote_domid: int) -> int:
        """Allocate a port of ``domid`` for ``remote_domid`` to bind, and return it."""
        return self.check(
            self.lib.xc_evtchn_alloc_unbound(self.handle, domid, remote_domid),
            "xc_evtchn_alloc_unbound",
            f"allocate an event channel between domains {domid} and {remote_domid}",
        )

    def hvm_param_set(self, domid: int, param: int, value: int) -> None:
        """``param`` is a ``HVM_PARAM_*`` number (xen/hvm/params.h)."""
        self.check(
            self.lib.xc_hvm_param_set(self.handle, domid, param, value),
            "xc_hvm_param_set",
            f"set HVM parameter {param} of domain {domid} to {value}",
        )

    def hvm_param_get(self, domid: int, param: int) -> int:
        value = self.ffi.new("uint64_t *")
        self.check(
            self.lib.xc_hvm_param_get(self.handle, domid, param, value),
            "xc_hvm_param_get",
            f"read HVM parameter {param} of domain {domid}",
        )
        return int(value[0])

    # Affinities.

    def vcpu_setaffinity(
        self,
        domid: int,
        vcpu: int,
        *,
        hard: Iterable[int] | None = None,
        soft: Iterable[int] | None = None,
    ) -> None:
        """Say on which physical CPUs a vCPU may run (hard) and should run (soft)."""
        lib = self.lib
        size = self.check(lib.xc_get_cpumap_size(self.handle), "xc_get_cpumap_size", "count CPUs")
        flags = 0
        maps = []
        for wanted, flag in (
            (hard, lib.XEN_VCPUAFFINITY_HARD),
            (soft, lib.XEN_VCPUAFFINITY_SOFT),
        ):
            maps.append(self.ffi.new("uint8_t[]", _bitmap(wanted or (), size)))
            if wanted is not None:
                flags |= flag
        self.check(
            lib.xc_vcpu_setaffinity(self.handle, domid, vcpu, maps[0], maps[1], flags),
            "xc_vcpu_setaffinity",
            f"set the affinity of vCPU {vcpu} of domain {domid}",
        )

    def domain_node_setaffinity(self, domid: int, nodes: Iterable[int]) -> None:
        """Say from which NUMA nodes the domain's memory should come."""
        size = self.check(
            self.lib.xc_get_nodemap_size(self.handle), "xc_get_nodemap_size", "count NUMA nodes"
        )
        nodemap = self.ffi.new("uint8_t[]", _bitmap(nodes, size))
        self.check(
            self.lib.xc_domain_node_setaffinity(self.handle, domid, nodemap),
            "xc_domain_node_setaffinity",
            f"set the NUMA nodes of domain {domid}",
        )


def _bitmap(members: Iterable[int], nbytes: int) -> bytes:
    """A little-endian bitmap; what lies beyond this host is left out, as libxl does."""
    value = 0
    for member in members:
        value |= 1 << member
    return (value & ((1 << (8 * nbytes)) - 1)).to_bytes(nbytes, "little")
