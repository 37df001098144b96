"""xenguest.h: the blocking restore of the libxc stream, and CPU policies.

``xc_domain_restore`` gained ``memflags`` as its last parameter in 4.22. The callbacks must be a
real struct even for a plain stream, and it and ``data`` live on the stack of the one call that
uses them. Those that libxenguest calls for COLO alone are left NULL, and COLO is not offered: it
asserts that they are set (xg_sr_restore.c, xc_domain_restore).
"""

from __future__ import annotations

INCLUDES = """
#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xenctrl.h>
#include <xenguest.h>
"""

PROBES = {
    "HAS_XC_DOMAIN_RESTORE_MEMFLAGS": """
        #include <xenctrl.h>
        #include <xenguest.h>
        int probe(xc_interface *x, unsigned long *m, struct restore_callbacks *c)
        { return xc_domain_restore(x, 0, 0, 0, m, 0, 0, m, 0, XC_STREAM_PLAIN, c, -1, 0); }
    """,
}

CDEF = """
#define XC_STREAM_PLAIN ...
#define XC_STREAM_REMUS ...
#define XGR_SDD_MISSING_CPUID ...
#define XGR_SDD_MISSING_MSR ...
#define XGR_CHECKPOINT_ERROR ...
#define XGR_CHECKPOINT_SUCCESS ...
#define XGR_CHECKPOINT_FAILOVER ...

void xlsr_reserve_heap(size_t size);
int xlsr_domain_restore(xc_interface *, int io_fd, uint32_t domid,
                        unsigned int store_evtchn, unsigned long *store_gfn, uint32_t store_domid,
                        unsigned int console_evtchn, unsigned long *console_gfn,
                        uint32_t console_domid, int stream_type, void *handle);

extern "Python" {
    int xlsr_restore_static_data_done(unsigned int missing, void *handle);
    int xlsr_restore_checkpoint(void *handle);
}

int xc_cpuid_apply_policy(xc_interface *, uint32_t domid, bool restore,
                          const uint32_t *featureset, unsigned int nr_features,
                          bool pae, bool itsc, bool nested_virt,
                          const struct xc_xend_cpuid *xend, const struct xc_msr *msr);

typedef struct xen_cpuid_leaf { uint32_t leaf, subleaf, a, b, c, d; } xen_cpuid_leaf_t;
typedef struct xen_msr_entry { uint32_t idx; uint32_t flags; uint64_t val; } xen_msr_entry_t;
int xc_set_domain_cpu_policy(xc_interface *, uint32_t domid,
                             uint32_t nr_leaves, xen_cpuid_leaf_t *leaves,
                             uint32_t nr_msrs, xen_msr_entry_t *msrs,
                             uint32_t *err_leaf, uint32_t *err_subleaf, uint32_t *err_msr);
"""

SOURCE = """
static int xlsr_restore_static_data_done(unsigned int, void *);
static int xlsr_restore_checkpoint(void *);

static void xlsr_reserve_heap(size_t size)
{
    void *block;

#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, (int)(4 * size));
    mallopt(M_TRIM_THRESHOLD, (int)(4 * size));
#endif
    block = malloc(size);
    if (block) {
        memset(block, 1, size);
        free(block);
    }
}

static int xlsr_domain_restore(xc_interface *xch, int io_fd, uint32_t domid,
                               unsigned int store_evtchn, unsigned long *store_gfn,
                               uint32_t store_domid, unsigned int console_evtchn,
                               unsigned long *console_gfn, uint32_t console_domid,
                               int stream_type, void *handle)
{
    struct restore_callbacks callbacks = {
        .static_data_done = xlsr_restore_static_data_done,
        .checkpoint = xlsr_restore_checkpoint,
        .data = handle,
    };

    return xc_domain_restore(xch, io_fd, domid, store_evtchn, store_gfn, store_domid,
                             console_evtchn, console_gfn, console_domid,
                             (xc_stream_type_t)stream_type, &callbacks, -1
#if HAS_XC_DOMAIN_RESTORE_MEMFLAGS
                             , 0
#endif
                             );
}
"""
