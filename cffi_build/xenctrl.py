"""xenctrl.h: the host, domains, their limits, parameters and event channels.

Where Xen's versions differ, a function of our own (``xlsr_…``) has one signature for all of them.
The three layouts of ``struct xen_domctl_createdomain``: up to 4.18 without altp2m; 4.19 and 4.20
with ``altp2m_opts``; from 4.21 with ``altp2m.opts`` and ``altp2m.nr`` (xen/domctl.h).
"""

from __future__ import annotations

INCLUDES = """
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <xenctrl.h>
#include <xen/hvm/params.h>
"""

PROBES = {
    "HAS_CREATEDOMAIN_ALTP2M_OPTS": """
        #include <xenctrl.h>
        void probe(struct xen_domctl_createdomain *c) { c->altp2m_opts = 0; }
    """,
    "HAS_CREATEDOMAIN_ALTP2M_NR": """
        #include <xenctrl.h>
        void probe(struct xen_domctl_createdomain *c) { c->altp2m.opts = 0; c->altp2m.nr = 0; }
    """,
    "HAS_XC_DOMAIN_GETINFO_SINGLE": """
        #include <xenctrl.h>
        int probe(xc_interface *x, xc_domaininfo_t *i) { return xc_domain_getinfo_single(x, 0, i); }
    """,
    "HAS_XC_SET_PAGING_MEMPOOL_SIZE": """
        #include <xenctrl.h>
        int probe(xc_interface *x) { return xc_set_paging_mempool_size(x, 0, 0); }
    """,
    "HAS_HVM_PARAM_ALTP2M": """
        #include <xenctrl.h>
        #include <xen/hvm/params.h>
        int probe(void) { return HVM_PARAM_ALTP2M; }
    """,
}

CDEF = """
typedef ... xc_interface;

xc_interface *xc_interface_open(xentoollog_logger *, xentoollog_logger *, unsigned open_flags);
int xc_interface_close(xc_interface *);

/* The host. */
#define XENVER_version ...
#define XENVER_extraversion ...
#define XENVER_capabilities ...
#define XENVER_changeset ...
int xc_version(xc_interface *, int cmd, void *arg);

#define XEN_SYSCTL_PHYSCAP_hvm ...
#define XEN_SYSCTL_PHYSCAP_pv ...
#define XEN_SYSCTL_PHYSCAP_directio ...
#define XEN_SYSCTL_PHYSCAP_hap ...
#define XEN_SYSCTL_PHYSCAP_shadow ...
#define XLSR_PHYSCAP_gnttab_v1 ...
#define XLSR_PHYSCAP_gnttab_v2 ...
typedef struct xen_sysctl_physinfo {
    uint32_t nr_cpus;
    uint32_t max_cpu_id;
    uint32_t nr_nodes;
    uint32_t max_node_id;
    uint32_t cpu_khz;
    uint32_t capabilities;
    uint64_t total_pages;
    uint64_t free_pages;
    uint64_t scrub_pages;
    uint64_t outstanding_pages;
    ...;
} xc_physinfo_t;
int xc_physinfo(xc_interface *, xc_physinfo_t *);

/* Domains. */
#define XEN_DOMCTL_CDF_hvm ...
#define XEN_DOMCTL_CDF_hap ...
#define XEN_DOMCTL_CDF_oos_off ...
#define XEN_DOMCTL_CDF_iommu ...
#define XEN_DOMCTL_CDF_nested_virt ...
#define XEN_DOMCTL_CDF_vpmu ...
#define XEN_DOMCTL_IOMMU_no_sharept ...
#define XEN_X86_EMU_LAPIC ...
#define XEN_X86_EMU_USE_PIRQ ...
#define XEN_X86_EMU_VPCI ...
#define XEN_X86_EMU_ALL ...
#define XEN_X86_MSR_RELAXED ...
struct xlsr_createdomain {
    uint32_t flags;
    uint32_t iommu_opts;
    uint32_t max_vcpus;
    uint32_t max_evtchn_port;
    int32_t max_grant_frames;
    int32_t max_maptrack_frames;
    uint32_t max_grant_version;
    uint32_t altp2m_mode;
    uint32_t altp2m_count;
    uint32_t vmtrace_size;
    uint32_t cpupool_id;
    uint32_t ssidref;
    uint32_t emulation_flags;
    uint32_t misc_flags;
    uint8_t handle[16];
};
int xlsr_domain_create(xc_interface *, uint32_t *domid, const struct xlsr_createdomain *);

int xc_domain_max_vcpus(xc_interface *, uint32_t domid, unsigned int max);
int xc_domain_setmaxmem(xc_interface *, uint32_t domid, uint64_t max_memkb);
int xc_domain_set_memmap_limit(xc_interface *, uint32_t domid, unsigned long map_limitkb);
int xc_domain_set_tsc_info(xc_interface *, uint32_t domid, uint32_t tsc_mode,
                           uint64_t elapsed_nsec, uint32_t gtsc_khz, uint32_t incarnation);
int xc_domain_set_time_offset(xc_interface *, uint32_t domid, int32_t time_offset_seconds);
int xlsr_set_paging_mempool_size(xc_interface *, uint32_t domid, uint64_t bytes);
int xc_domain_sethandle(xc_interface *, uint32_t domid, uint8_t *handle);
int xc_domain_pause(xc_interface *, uint32_t domid);
int xc_domain_unpause(xc_interface *, uint32_t domid);
int xc_domain_shutdown(xc_interface *, uint32_t domid, int reason);
int xc_domain_destroy(xc_interface *, uint32_t domid);

#define XEN_DOMINF_dying ...
#define XEN_DOMINF_hvm_guest ...
#define XEN_DOMINF_shutdown ...
#define XEN_DOMINF_paused ...
#define XEN_DOMINF_blocked ...
#define XEN_DOMINF_running ...
#define XEN_DOMINF_hap ...
#define XEN_DOMINF_shutdownmask ...
#define XEN_DOMINF_shutdownshift ...
typedef struct xen_domctl_getdomaininfo {
    uint16_t domain;
    uint32_t flags;
    uint64_t tot_pages;
    uint64_t max_pages;
    uint64_t outstanding_pages;
    uint64_t shared_info_frame;
    uint64_t cpu_time;
    uint32_t nr_online_vcpus;
    uint32_t max_vcpu_id;
    uint8_t handle[16];
    uint32_t cpupool;
    ...;
} xc_domaininfo_t;
int xlsr_domain_getinfo(xc_interface *, uint32_t domid, xc_domaininfo_t *);
int xc_domain_getinfolist(xc_interface *, uint32_t first, unsigned int max, xc_domaininfo_t *);

/* Event channels and HVM parameters. */
int xc_evtchn_alloc_unbound(xc_interface *, uint32_t domid, uint32_t remote_domid);
#define HVM_PARAM_STORE_PFN ...
#define HVM_PARAM_STORE_EVTCHN ...
#define HVM_PARAM_CONSOLE_PFN ...
#define HVM_PARAM_CONSOLE_EVTCHN ...
#define HVM_PARAM_TIMER_MODE ...
#define HVM_PARAM_HPET_ENABLED ...
#define HVM_PARAM_VPT_ALIGN ...
#define HVM_PARAM_MCA_CAP ...
#define XLSR_HVM_PARAM_ALTP2M ...
int xc_hvm_param_set(xc_interface *, uint32_t domid, uint32_t param, uint64_t value);
int xc_hvm_param_get(xc_interface *, uint32_t domid, uint32_t param, uint64_t *value);

/* Scheduling. */
#define XEN_SCHEDULER_CREDIT ...
#define XEN_SCHEDULER_CREDIT2 ...
#define XEN_SCHEDULER_RTDS ...
#define XEN_DOMCTL_SCHEDRT_extra ...
#define XEN_VCPUAFFINITY_HARD ...
#define XEN_VCPUAFFINITY_SOFT ...
struct xen_domctl_sched_credit { uint16_t weight; uint16_t cap; ...; };
struct xen_domctl_sched_credit2 { uint16_t weight; uint16_t cap; ...; };
struct xen_domctl_sched_rtds { uint32_t period; uint32_t budget; uint32_t flags; ...; };
typedef struct xc_cpupoolinfo { uint32_t sched_id; ...; } xc_cpupoolinfo_t;
xc_cpupoolinfo_t *xc_cpupool_getinfo(xc_interface *, uint32_t poolid);
void xc_cpupool_infofree(xc_interface *, xc_cpupoolinfo_t *);
int xc_sched_credit_domain_get(xc_interface *, uint32_t, struct xen_domctl_sched_credit *);
int xc_sched_credit_domain_set(xc_interface *, uint32_t, struct xen_domctl_sched_credit *);
int xc_sched_credit2_domain_get(xc_interface *, uint32_t, struct xen_domctl_sched_credit2 *);
int xc_sched_credit2_domain_set(xc_interface *, uint32_t, struct xen_domctl_sched_credit2 *);
int xc_sched_rtds_domain_get(xc_interface *, uint32_t, struct xen_domctl_sched_rtds *);
int xc_sched_rtds_domain_set(xc_interface *, uint32_t, struct xen_domctl_sched_rtds *);
int xc_get_cpumap_size(xc_interface *);
int xc_get_nodemap_size(xc_interface *);
int xc_vcpu_setaffinity(xc_interface *, uint32_t domid, int vcpu, uint8_t *hard, uint8_t *soft,
                        uint32_t flags);
int xc_domain_node_setaffinity(xc_interface *, uint32_t domid, uint8_t *nodemap);
"""

SOURCE = """
/* 4.17 and newer; an older hypervisor has grant tables of both versions and doesn't say so. */
#ifdef XEN_SYSCTL_PHYSCAP_gnttab_v1
#define XLSR_PHYSCAP_gnttab_v1 XEN_SYSCTL_PHYSCAP_gnttab_v1
#define XLSR_PHYSCAP_gnttab_v2 XEN_SYSCTL_PHYSCAP_gnttab_v2
#else
#define XLSR_PHYSCAP_gnttab_v1 0
#define XLSR_PHYSCAP_gnttab_v2 0
#endif

#if HAS_HVM_PARAM_ALTP2M
#define XLSR_HVM_PARAM_ALTP2M HVM_PARAM_ALTP2M
#else
#define XLSR_HVM_PARAM_ALTP2M (-1)
#endif

struct xlsr_createdomain {
    uint32_t flags;
    uint32_t iommu_opts;
    uint32_t max_vcpus;
    uint32_t max_evtchn_port;
    int32_t max_grant_frames;
    int32_t max_maptrack_frames;
    uint32_t max_grant_version;
    uint32_t altp2m_mode;
    uint32_t altp2m_count;
    uint32_t vmtrace_size;
    uint32_t cpupool_id;
    uint32_t ssidref;
    uint32_t emulation_flags;
    uint32_t misc_flags;
    uint8_t handle[16];
};

/* Xen chooses the id. Up to 4.21 0 and every reserved id ask for that, from 4.22 this one alone. */
#ifndef DOMID_ANY
#define DOMID_ANY 0x7FF5
#endif

static int xlsr_domain_create(xc_interface *xch, uint32_t *domid,
                              const struct xlsr_createdomain *wanted)
{
    struct xen_domctl_createdomain create = {
        .ssidref = wanted->ssidref,
        .flags = wanted->flags,
        .iommu_opts = wanted->iommu_opts,
        .max_vcpus = wanted->max_vcpus,
        .max_evtchn_port = wanted->max_evtchn_port,
        .max_grant_frames = wanted->max_grant_frames,
        .max_maptrack_frames = wanted->max_maptrack_frames,
        .grant_opts = XEN_DOMCTL_GRANT_version(wanted->max_grant_version),
        .vmtrace_size = wanted->vmtrace_size,
        .cpupool_id = wanted->cpupool_id,
        .arch.emulation_flags = wanted->emulation_flags,
        .arch.misc_flags = wanted->misc_flags,
    };

#if HAS_CREATEDOMAIN_ALTP2M_NR
    create.altp2m.opts = (uint16_t)wanted->altp2m_mode;
    create.altp2m.nr = (uint16_t)wanted->altp2m_count;
#elif HAS_CREATEDOMAIN_ALTP2M_OPTS
    create.altp2m_opts = wanted->altp2m_mode;
#endif
    memcpy(create.handle, wanted->handle, sizeof(create.handle));
    *domid = DOMID_ANY;
    return xc_domain_create(xch, domid, &create);
}

static int xlsr_domain_getinfo(xc_interface *xch, uint32_t domid, xc_domaininfo_t *info)
{
#if HAS_XC_DOMAIN_GETINFO_SINGLE
    return xc_domain_getinfo_single(xch, domid, info);
#else
    /* The list starts at the first domain that is not below domid. */
    int got = xc_domain_getinfolist(xch, domid, 1, info);

    if (got < 0)
        return got;
    if (got == 0 || info->domain != domid) {
        errno = ESRCH;
        return -1;
    }
    return 0;
#endif
}

static int xlsr_set_paging_mempool_size(xc_interface *xch, uint32_t domid, uint64_t bytes)
{
#if HAS_XC_SET_PAGING_MEMPOOL_SIZE
    return xc_set_paging_mempool_size(xch, domid, bytes);
#else
    unsigned int mebibytes = (unsigned int)((bytes + (1u << 20) - 1) >> 20);

    return xc_shadow_control(xch, domid, XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION, &mebibytes, 0);
#endif
}
"""
