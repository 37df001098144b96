"""libxentoollog and libxenctrl: the functions that `libxlsr.xen.rawlib` lists, over a fake host."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Callable

from libxlsr.testing.fake_xen.failure import XenFailure
from libxlsr.testing.fake_xen.ffi import FakeFFI
from libxlsr.testing.fake_xen.hypervisor import (
    SCHEDULERS,
    XEN_DOMCTL_CDF_hap,
    XEN_DOMCTL_CDF_hvm,
)
from libxlsr.testing.fake_xen.state import HostState

NOT_THIS_ONE = 0xFFFFFFFF
"""What libxc leaves in the place of a leaf or MSR that is not the one."""


class Calling:
    """A library over the state of a host, which may be in another process."""

    def __init__(self, ffi: FakeFFI, state: HostState) -> None:
        self.ffi = ffi
        self.state = state

    def attempt(self, name: str, about: object, body: Callable[[], Any], failed: Any) -> Any:
        """What the body returns; ``failed``, and errno set, where it or the call itself fails."""
        try:
            with self.state.lock:
                self.state.called(name, str(about))
                return body()
        except XenFailure as failure:
            self.ffi.errno = failure.number
            return failed

    def hypercall(self, name: str, domid: int, body: Callable[[], Any]) -> int:
        """The body's number, 0 where it has none, -1 where it fails."""
        return int(self.attempt(name, domid, body, -1) or 0)


class FakeToollog(Calling):
    """libxentoollog."""

    XTL_DEBUG, XTL_VERBOSE, XTL_DETAIL, XTL_PROGRESS, XTL_INFO = 1, 2, 3, 4, 5
    XTL_NOTICE, XTL_WARN, XTL_ERROR, XTL_CRITICAL = 6, 7, 8, 9

    def xlsr_logger_init(self, logger: Any, handle: object) -> None:
        logger.handle = handle

    def xlsr_logger_vtable(self, logger: Any) -> Any:
        return logger

    def xlsr_logger_say(
        self, logger: Any, level: int, errnoval: int, context: bytes, text: bytes
    ) -> None:
        self.ffi.externs["xlsr_on_message"](logger.handle, level, errnoval, context, text)


class FakeXenctrl(FakeToollog):
    """libxenctrl of the release that the hypervisor says it is.

    A method without a comment of its own is the hypervisor's of the same name.
    """

    HAS_CREATEDOMAIN_ALTP2M_OPTS = HAS_CREATEDOMAIN_ALTP2M_NR = 0
    HAS_XC_DOMAIN_GETINFO_SINGLE = HAS_XC_SET_PAGING_MEMPOOL_SIZE = HAS_HVM_PARAM_ALTP2M = 1
    XENVER_version, XENVER_extraversion, XENVER_capabilities, XENVER_changeset = 0, 1, 3, 4
    XEN_SYSCTL_PHYSCAP_hvm, XEN_SYSCTL_PHYSCAP_pv, XEN_SYSCTL_PHYSCAP_directio = 1, 2, 4
    XEN_SYSCTL_PHYSCAP_hap, XEN_SYSCTL_PHYSCAP_shadow = 8, 16
    XLSR_PHYSCAP_gnttab_v1, XLSR_PHYSCAP_gnttab_v2 = 1 << 8, 1 << 9
    XEN_DOMCTL_CDF_hvm, XEN_DOMCTL_CDF_hap = XEN_DOMCTL_CDF_hvm, XEN_DOMCTL_CDF_hap
    XEN_DOMCTL_CDF_oos_off, XEN_DOMCTL_CDF_iommu = 1 << 3, 1 << 5
    XEN_DOMCTL_CDF_nested_virt, XEN_DOMCTL_CDF_vpmu = 1 << 6, 1 << 7
    XEN_X86_EMU_LAPIC, XEN_X86_EMU_USE_PIRQ, XEN_X86_EMU_VPCI = 1 << 0, 1 << 9, 1 << 10
    XEN_X86_EMU_ALL, XEN_X86_MSR_RELAXED = 0x7FF, 1
    XEN_DOMINF_dying, XEN_DOMINF_hvm_guest, XEN_DOMINF_shutdown = 1, 2, 4
    XEN_DOMINF_paused, XEN_DOMINF_blocked, XEN_DOMINF_running = 8, 16, 32
    XEN_DOMINF_hap, XEN_DOMINF_shutdownmask, XEN_DOMINF_shutdownshift = 1 << 8, 255, 16
    HVM_PARAM_STORE_PFN, HVM_PARAM_STORE_EVTCHN = 1, 2
    HVM_PARAM_CONSOLE_PFN, HVM_PARAM_CONSOLE_EVTCHN = 17, 18
    HVM_PARAM_TIMER_MODE, HVM_PARAM_HPET_ENABLED, HVM_PARAM_VPT_ALIGN = 10, 11, 16
    XLSR_HVM_PARAM_ALTP2M, HVM_PARAM_MCA_CAP = 35, 38
    XEN_SCHEDULER_CREDIT, XEN_SCHEDULER_CREDIT2 = SCHEDULERS["credit"], SCHEDULERS["credit2"]
    XEN_SCHEDULER_RTDS, XEN_DOMCTL_SCHEDRT_extra = SCHEDULERS["rtds"], 1
    XEN_VCPUAFFINITY_HARD, XEN_VCPUAFFINITY_SOFT = 1, 2

    def xc_interface_open(self, logger: Any, _dombuild_logger: Any, _flags: int) -> Any:
        """A handle: a namespace with the logger."""

        def open_one() -> Any:
            self.state.handles += 1
            return SimpleNamespace(logger=logger)

        return self.attempt("xc_interface_open", "", open_one, None)

    def xc_interface_close(self, _xch: Any) -> int:
        self.state.handles -= 1
        return 0

    def xlsr_built_for_xen(self) -> bytes:
        major, minor, _extra = self.state.hypervisor.version()
        return f"{major}.{minor}.0".encode()

    def xc_version(self, _xch: Any, cmd: int, arg: bytearray | None) -> int:
        """The version, or one of its texts into ``arg``."""
        major, minor, extra = self.state.hypervisor.version()
        if arg is None:
            return int(major) << 16 | int(minor)
        capabilities = "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 "
        texts = {self.XENVER_extraversion: extra, self.XENVER_capabilities: capabilities}
        text = texts.get(cmd, "").encode()
        arg[: len(text)] = text
        return 0

    def xc_physinfo(self, _xch: Any, info: Any) -> int:
        """``struct xen_sysctl_physinfo``, filled."""
        return self.hypercall("xc_physinfo", 0, lambda: vars(info).update(self._physinfo()))

    def _physinfo(self) -> dict[str, int]:
        host = self.state.hypervisor.physinfo()
        capabilities = self.XLSR_PHYSCAP_gnttab_v1 | self.XLSR_PHYSCAP_gnttab_v2
        for name in ("pv", "hvm", "hap", "shadow"):
            if host.pop(name):
                capabilities |= getattr(self, f"XEN_SYSCTL_PHYSCAP_{name}")
        return {**host, "capabilities": capabilities}

    # Domains.

    def xlsr_domain_create(self, _xch: Any, domid: list[int], config: Any) -> int:
        """xc_domain_create with DOMID_ANY."""

        def create() -> int:
            domid[0] = self.state.hypervisor.domain_create(
                bytes(config.handle).hex(),
                config.flags,
                config.max_vcpus,
                config.emulation_flags,
                config.cpupool_id,
            )
            return 0

        return self.hypercall("xc_domain_create", 0, create)

    def xc_domain_max_vcpus(self, _xch: Any, domid: int, vcpus: int) -> int:
        host = self.state.hypervisor
        return self.hypercall(
            "xc_domain_max_vcpus", domid, lambda: host.domain_max_vcpus(domid, vcpus)
        )

    def xc_domain_setmaxmem(self, _xch: Any, domid: int, max_memkb: int) -> int:
        host = self.state.hypervisor
        return self.hypercall(
            "xc_domain_setmaxmem", domid, lambda: host.domain_setmaxmem(domid, max_memkb)
        )

    def xc_domain_set_memmap_limit(self, _xch: Any, domid: int, limit_kb: int) -> int:
        host = self.state.hypervisor
        return self.hypercall(
            "xc_domain_set_memmap_limit",
            domid,
            lambda: host.domain_set_memmap_limit(domid, limit_kb),
        )

    def xc_domain_set_tsc_info(
        self, _xch: Any, domid: int, mode: int, _elapsed: int, _khz: int, _incarnation: int
    ) -> int:
        host = self.state.hypervisor
        return self.hypercall(
            "xc_domain_set_tsc_info", domid, lambda: host.domain_set_tsc_info(domid, mode)
        )

    def xc_domain_set_time_offset(self, _xch: Any, domid: int, seconds: int) -> int:
        host = self.state.hypervisor
        return self.hypercall(
            "xc_domain_set_time_offset",
            domid,
            lambda: host.domain_set_time_offset(domid, seconds),
        )

    def xlsr_set_paging_mempool_size(self, _xch: Any, domid: int, nbytes: int) -> int:
        host = self.state.hypervisor
        return self.hypercall(
            "xc_set_paging_mempool_size",
            domid,
            lambda: host.set_paging_mempool_size(domid, nbytes),
        )

    def xc_domain_sethandle(self, _xch: Any, domid: int, handle: bytes) -> int:
        host, text = self.state.hypervisor, bytes(handle).hex()
        return self.hypercall(
            "xc_domain_sethandle", domid, lambda: host.domain_sethandle(domid, text)
        )

    def xc_domain_pause(self, _xch: Any, domid: int) -> int:
        host = self.state.hypervisor
        return self.hypercall("xc_domain_pause", domid, lambda: host.domain_pause(domid))

    def xc_domain_unpause(self, _xch: Any, domid: int) -> int:
        host = self.state.hypervisor
        return self.hypercall("xc_domain_unpause", domid, lambda: host.domain_unpause(domid))

    def xc_domain_shutdown(self, _xch: Any, domid: int, reason: int) -> int:
        host = self.state.hypervisor
        return self.hypercall(
            "xc_domain_shutdown", domid, lambda: host.domain_shutdown(domid, reason)
        )

    def xc_domain_destroy(self, _xch: Any, domid: int) -> int:
        """And xenstored hears of it."""

        def destroy() -> None:
            self.state.hypervisor.domain_destroy(domid)
            self.state.xenstored.domain_gone(domid)

        return self.hypercall("xc_domain_destroy", domid, destroy)

    def xlsr_domain_getinfo(self, _xch: Any, domid: int, info: Any) -> int:
        """``struct xen_domctl_getdomaininfo``, filled."""

        def fill() -> None:
            vars(info).update(self._domaininfo(self.state.hypervisor.domain_info(domid)))

        return self.hypercall("xc_domain_getinfo", domid, fill)

    def xc_domain_getinfolist(self, _xch: Any, first: int, maximum: int, infos: list[Any]) -> int:
        """As many as there is room for, from ``first`` on."""

        def fill() -> int:
            found = self.state.hypervisor.domain_infos(first)[:maximum]
            for info, domain in zip(infos, found):
                vars(info).update(self._domaininfo(domain))
            return len(found)

        return self.hypercall("xc_domain_getinfolist", first, fill)

    def _domaininfo(self, domain: dict[str, Any]) -> dict[str, Any]:
        flags = 0
        for name in ("dying", "hvm_guest", "hap", "paused", "running"):
            if domain.pop(name):
                flags |= getattr(self, f"XEN_DOMINF_{name}")
        reason = domain.pop("shutdown_reason")
        if reason is not None:
            flags |= self.XEN_DOMINF_shutdown | reason << self.XEN_DOMINF_shutdownshift
        handle = bytes.fromhex(domain.pop("handle"))
        return {**domain, "flags": flags, "handle": handle, "outstanding_pages": 0, "cpu_time": 0}

    # Event channels and HVM parameters.

    def xc_evtchn_alloc_unbound(self, _xch: Any, domid: int, remote: int) -> int:
        host = self.state.hypervisor
        return self.hypercall(
            "xc_evtchn_alloc_unbound", domid, lambda: host.evtchn_alloc_unbound(domid, remote)
        )

    def xc_hvm_param_set(self, _xch: Any, domid: int, param: int, value: int) -> int:
        host = self.state.hypervisor
        return self.hypercall(
            "xc_hvm_param_set", domid, lambda: host.hvm_param_set(domid, param, int(value))
        )

    def xc_hvm_param_get(self, _xch: Any, domid: int, param: int, value: list[int]) -> int:
        """Into ``value``."""

        def fill() -> None:
            value[0] = self.state.hypervisor.hvm_param_get(domid, param)

        return self.hypercall("xc_hvm_param_get", domid, fill)

    # Processors.

    def xc_cpupool_getinfo(self, _xch: Any, pool: int) -> Any:
        """``xc_cpupoolinfo_t`` of the one pool."""

        def find() -> Any:
            name = self.state.hypervisor.scheduler_of_pool(pool)
            return SimpleNamespace(sched_id=SCHEDULERS[name])

        return self.attempt("xc_cpupool_getinfo", pool, find, None)

    def xc_cpupool_infofree(self, _xch: Any, _info: Any) -> None:
        pass

    def xc_sched_credit_domain_get(self, _xch: Any, domid: int, params: Any) -> int:
        return self._sched_get("credit", domid, params)

    def xc_sched_credit_domain_set(self, _xch: Any, domid: int, params: Any) -> int:
        return self._sched_set("credit", domid, params)

    def xc_sched_credit2_domain_get(self, _xch: Any, domid: int, params: Any) -> int:
        return self._sched_get("credit2", domid, params)

    def xc_sched_credit2_domain_set(self, _xch: Any, domid: int, params: Any) -> int:
        return self._sched_set("credit2", domid, params)

    def xc_sched_rtds_domain_get(self, _xch: Any, domid: int, params: Any) -> int:
        return self._sched_get("rtds", domid, params)

    def xc_sched_rtds_domain_set(self, _xch: Any, domid: int, params: Any) -> int:
        return self._sched_set("rtds", domid, params)

    def _sched_get(self, scheduler: str, domid: int, params: Any) -> int:
        host = self.state.hypervisor
        return self.hypercall(
            f"xc_sched_{scheduler}_domain_get",
            domid,
            lambda: vars(params).update(host.sched_get(domid, scheduler)),
        )

    def _sched_set(self, scheduler: str, domid: int, params: Any) -> int:
        host = self.state.hypervisor
        return self.hypercall(
            f"xc_sched_{scheduler}_domain_set",
            domid,
            lambda: host.sched_set(domid, scheduler, vars(params)),
        )

    def xc_get_cpumap_size(self, _xch: Any) -> int:
        return 8

    def xc_get_nodemap_size(self, _xch: Any) -> int:
        return 8

    def xc_vcpu_setaffinity(
        self, _xch: Any, domid: int, vcpu: int, hard: bytes, soft: bytes, flags: int
    ) -> int:
        masks = [
            bytes(mask).hex() if flags & flag else None for mask, flag in ((hard, 1), (soft, 2))
        ]
        host = self.state.hypervisor
        return self.hypercall(
            "xc_vcpu_setaffinity", domid, lambda: host.vcpu_setaffinity(domid, vcpu, *masks)
        )

    def xc_domain_node_setaffinity(self, _xch: Any, domid: int, nodes: bytes) -> int:
        host, mask = self.state.hypervisor, bytes(nodes).hex()
        return self.hypercall(
            "xc_domain_node_setaffinity",
            domid,
            lambda: host.domain_node_setaffinity(domid, mask),
        )
