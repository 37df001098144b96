"""What the compiled module looks like to Python: typed Protocols over cffi's ``lib`` and ``ffi``.

The declarations themselves are in cffi_build/, one fragment per header, and the argument names
here are theirs. Only the modules of this package use these; above it nobody sees C.
"""

from __future__ import annotations

from typing import Any, Callable, Protocol

CData = Any
"""A C object as cffi hands it out; cffi gives its types no static types."""


class FFI(Protocol):
    """The part of cffi's FFI object that this package uses."""

    NULL: CData
    errno: int

    def new(self, cdecl: str, init: object = ...) -> CData: ...
    def new_handle(self, obj: object) -> CData: ...
    def from_handle(self, handle: CData) -> Any: ...
    def cast(self, cdecl: str, value: object) -> CData: ...
    def string(self, cdata: CData) -> bytes: ...
    def buffer(self, cdata: CData, size: int = ...) -> Any: ...
    def from_buffer(self, cdecl: str, data: object) -> CData: ...
    def sizeof(self, cdecl: str) -> int: ...
    def def_extern(
        self, *, name: str = ..., error: Any = ..., onerror: Any = ...
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...


class ToollogLib(Protocol):
    """cffi_build/toollog.py."""

    XTL_DEBUG: int
    XTL_VERBOSE: int
    XTL_DETAIL: int
    XTL_PROGRESS: int
    XTL_INFO: int
    XTL_NOTICE: int
    XTL_WARN: int
    XTL_ERROR: int
    XTL_CRITICAL: int

    def xlsr_logger_init(self, logger: CData, handle: CData) -> None: ...
    def xlsr_logger_vtable(self, logger: CData) -> CData: ...
    def xlsr_logger_say(
        self, logger: CData, level: int, errnoval: int, context: bytes, text: bytes
    ) -> None: ...


class XenctrlLib(Protocol):
    """cffi_build/xenctrl.py."""

    HAS_CREATEDOMAIN_ALTP2M_OPTS: int
    HAS_CREATEDOMAIN_ALTP2M_NR: int
    HAS_XC_DOMAIN_GETINFO_SINGLE: int
    HAS_XC_SET_PAGING_MEMPOOL_SIZE: int
    HAS_HVM_PARAM_ALTP2M: int
    XENVER_version: int
    XENVER_extraversion: int
    XENVER_capabilities: int
    XENVER_changeset: int
    XEN_SYSCTL_PHYSCAP_hvm: int
    XEN_SYSCTL_PHYSCAP_pv: int
    XEN_SYSCTL_PHYSCAP_directio: int
    XEN_SYSCTL_PHYSCAP_hap: int
    XEN_SYSCTL_PHYSCAP_shadow: int
    XLSR_PHYSCAP_gnttab_v1: int
    XLSR_PHYSCAP_gnttab_v2: int
    XEN_DOMCTL_CDF_hvm: int
    XEN_DOMCTL_CDF_hap: int
    XEN_DOMCTL_CDF_oos_off: int
    XEN_DOMCTL_CDF_iommu: int
    XEN_DOMCTL_CDF_nested_virt: int
    XEN_DOMCTL_CDF_vpmu: int
    XEN_X86_EMU_LAPIC: int
    XEN_X86_EMU_USE_PIRQ: int
    XEN_X86_EMU_VPCI: int
    XEN_X86_EMU_ALL: int
    XEN_X86_MSR_RELAXED: int
    XEN_DOMINF_dying: int
    XEN_DOMINF_hvm_guest: int
    XEN_DOMINF_shutdown: int
    XEN_DOMINF_paused: int
    XEN_DOMINF_blocked: int
    XEN_DOMINF_running: int
    XEN_DOMINF_hap: int
    XEN_DOMINF_shutdownmask: int
    XEN_DOMINF_shutdownshift: int
    HVM_PARAM_STORE_PFN: int
    HVM_PARAM_STORE_EVTCHN: int
    HVM_PARAM_CONSOLE_PFN: int
    HVM_PARAM_CONSOLE_EVTCHN: int
    HVM_PARAM_TIMER_MODE: int
    HVM_PARAM_HPET_ENABLED: int
    HVM_PARAM_VPT_ALIGN: int
    HVM_PARAM_MCA_CAP: int
    XLSR_HVM_PARAM_ALTP2M: int
    XEN_SCHEDULER_CREDIT: int
    XEN_SCHEDULER_CREDIT2: int
    XEN_VCPUAFFINITY_HARD: int
    XEN_VCPUAFFINITY_SOFT: int

    def xc_interface_open(self, logger: CData, dombuild_logger: CData, flags: int) -> CData: ...
    def xc_interface_close(self, xch: CData) -> int: ...
    def xc_version(self, xch: CData, cmd: int, arg: CData) -> int: ...
    def xc_physinfo(self, xch: CData, info: CData) -> int: ...
    def xlsr_domain_create(self, xch: CData, domid: CData, config: CData) -> int: ...
    def xc_domain_max_vcpus(self, xch: CData, domid: int, maximum: int) -> int: ...
    def xc_domain_setmaxmem(self, xch: CData, domid: int, max_memkb: int) -> int: ...
    def xc_domain_set_memmap_limit(self, xch: CData, domid: int, limit_kb: int) -> int: ...
    def xc_domain_set_tsc_info(
        self, xch: CData, domid: int, mode: int, elapsed: int, khz: int, incarnation: int
    ) -> int: ...
    def xc_domain_set_time_offset(self, xch: CData, domid: int, seconds: int) -> int: ...
    def xlsr_set_paging_mempool_size(self, xch: CData, domid: int, nbytes: int) -> int: ...
    def xc_domain_sethandle(self, xch: CData, domid: int, handle: CData) -> int: ...
    def xc_domain_pause(self, xch: CData, domid: int) -> int: ...
    def xc_domain_unpause(self, xch: CData, domid: int) -> int: ...
    def xc_domain_shutdown(self, xch: CData, domid: int, reason: int) -> int: ...
    def xc_domain_destroy(self, xch: CData, domid: int) -> int: ...
    def xlsr_domain_getinfo(self, xch: CData, domid: int, info: CData) -> int: ...
    def xc_domain_getinfolist(self, xch: CData, first: int, maximum: int, info: CData) -> int: ...
    def xc_evtchn_alloc_unbound(self, xch: CData, domid: int, remote_domid: int) -> int: ...
    def xc_hvm_param_set(self, xch: CData, domid: int, param: int, value: int) -> int: ...
    def xc_hvm_param_get(self, xch: CData, domid: int, param: int, value: CData) -> int: ...
    def xc_sched_id(self, xch: CData, sched_id: CData) -> int: ...
    def xc_sched_credit_domain_get(self, xch: CData, domid: int, params: CData) -> int: ...
    def xc_sched_credit_domain_set(self, xch: CData, domid: int, params: CData) -> int: ...
    def xc_sched_credit2_domain_get(self, xch: CData, domid: int, params: CData) -> int: ...
    def xc_sched_credit2_domain_set(self, xch: CData, domid: int, params: CData) -> int: ...
    def xc_get_cpumap_size(self, xch: CData) -> int: ...
    def xc_get_nodemap_size(self, xch: CData) -> int: ...
    def xc_vcpu_setaffinity(
        self, xch: CData, domid: int, vcpu: int, hard: CData, soft: CData, flags: int
    ) -> int: ...
    def xc_domain_node_setaffinity(self, xch: CData, domid: int, nodemap: CData) -> int: ...


class XenguestLib(Protocol):
    """cffi_build/xenguest.py."""

    HAS_XC_DOMAIN_RESTORE_MEMFLAGS: int
    XC_STREAM_PLAIN: int
    XC_STREAM_REMUS: int
    XC_STREAM_COLO: int
    XGR_SDD_MISSING_CPUID: int
    XGR_SDD_MISSING_MSR: int
    XGR_CHECKPOINT_ERROR: int
    XGR_CHECKPOINT_SUCCESS: int
    XGR_CHECKPOINT_FAILOVER: int

    def xlsr_reserve_heap(self, size: int) -> None: ...
    def xlsr_domain_restore(
        self,
        xch: CData,
        io_fd: int,
        domid: int,
        store_evtchn: int,
        store_gfn: CData,
        store_domid: int,
        console_evtchn: int,
        console_gfn: CData,
        console_domid: int,
        stream_type: int,
        send_back_fd: int,
        handle: CData,
    ) -> int: ...
    def xc_cpuid_apply_policy(
        self,
        xch: CData,
        domid: int,
        restore: bool,
        featureset: CData,
        nr_features: int,
        pae: bool,
        itsc: bool,
        nested_virt: bool,
        xend: CData,
        msr: CData,
    ) -> int: ...
    def xc_set_domain_cpu_policy(
        self,
        xch: CData,
        domid: int,
        nr_leaves: int,
        leaves: CData,
        nr_msrs: int,
        msrs: CData,
        err_leaf: CData,
        err_subleaf: CData,
        err_msr: CData,
    ) -> int: ...


class XenstoreLib(Protocol):
    """cffi_build/xenstore.py."""

    XS_PERM_NONE: int
    XS_PERM_READ: int
    XS_PERM_WRITE: int

    def xs_open(self, flags: int) -> CData: ...
    def xs_close(self, xsh: CData) -> None: ...
    def xs_directory(self, xsh: CData, t: int, path: bytes, num: CData) -> CData: ...
    def xs_read(self, xsh: CData, t: int, path: bytes, length: CData) -> CData: ...
    def xs_write(self, xsh: CData, t: int, path: bytes, data: bytes, length: int) -> bool: ...
    def xs_mkdir(self, xsh: CData, t: int, path: bytes) -> bool: ...
    def xs_rm(self, xsh: CData, t: int, path: bytes) -> bool: ...
    def xs_get_permissions(self, xsh: CData, t: int, path: bytes, num: CData) -> CData: ...
    def xlsr_set_permissions(
        self, xsh: CData, t: int, path: bytes, ids: CData, perms: CData, count: int
    ) -> bool: ...
    def xs_transaction_start(self, xsh: CData) -> int: ...
    def xs_transaction_end(self, xsh: CData, t: int, abort: bool) -> bool: ...
    def xs_watch(self, xsh: CData, path: bytes, token: bytes) -> bool: ...
    def xs_unwatch(self, xsh: CData, path: bytes, token: bytes) -> bool: ...
    def xs_fileno(self, xsh: CData) -> int: ...
    def xs_check_watch(self, xsh: CData) -> CData: ...
    def xs_introduce_domain(self, xsh: CData, domid: int, gfn: int, port: int) -> bool: ...
    def xs_release_domain(self, xsh: CData, domid: int) -> bool: ...
    def xs_is_domain_introduced(self, xsh: CData, domid: int) -> bool: ...
    def xs_get_domain_path(self, xsh: CData, domid: int) -> CData: ...
    def free(self, pointer: CData) -> None: ...


class Lib(ToollogLib, XenctrlLib, XenguestLib, XenstoreLib, Protocol):
    """The whole of ``lib``."""

    def xlsr_built_for_xen(self) -> CData: ...


class XenlightLib(Protocol):
    """cffi_build/xenlight.py: the ``lib`` of the second module."""

    XLSR_VFB: int
    XLSR_VKB: int
    XLSR_DISK: int
    XLSR_NIC: int

    def xlsr_light_open(self, logger: CData) -> CData: ...
    def xlsr_light_close(self, light: CData) -> None: ...
    def xlsr_light_read_devices(self, light: CData, json: bytes) -> int: ...
    def xlsr_light_count(self, light: CData, kind: int) -> int: ...
    def xlsr_light_add(self, light: CData, domid: int, kind: int, number: int) -> int: ...
    def xlsr_light_destroy(self, light: CData, domid: int) -> int: ...
    def xlsr_light_error(self, rc: int) -> CData: ...
