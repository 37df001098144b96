"""Which of Xen's calls and fields the module uses with the headers of each version.

The headers here are made up, in the shapes of Xen's (xenctrl.h, xenguest.h, xenstore.h,
xen/domctl.h of each release). Their calls say what they are given, and the module's C runs against
them.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from cffi_build import probe, xenctrl, xenguest, xenstore


class Shape(NamedTuple):
    """What differs: a declaration, and what printf is given to say that it was used."""

    declaration: str
    say: str


class Version(NamedTuple):
    """What a release declares, and what the module then does."""

    altp2m: Shape
    memflags: Shape
    calls: tuple[str, ...]
    flags: set[str]
    does: list[str]


NO_ALTP2M = Shape("", r'"create domain %#x\n", *d')
ALTP2M_OPTS = Shape("uint32_t altp2m_opts;", r'"create domain %#x opts %u\n", *d, c->altp2m_opts')
ALTP2M_NR = Shape(
    "struct { uint16_t opts; uint16_t nr; } altp2m;",
    r'"create domain %#x opts %u nr %u\n", *d, c->altp2m.opts, c->altp2m.nr',
)
NO_MEMFLAGS = Shape("", r'"restore\n"')
MEMFLAGS = Shape(", unsigned memflags", r'"restore memflags %u\n", memflags')
GETINFO, POOL = "xc_domain_getinfo_single", "xc_set_paging_mempool_size"
HAS_GETINFO, HAS_POOL = "HAS_XC_DOMAIN_GETINFO_SINGLE", "HAS_XC_SET_PAGING_MEMPOOL_SIZE"
SETS_POOL = "set_paging_mempool_size 2097153"
FEATURES, QUOTA = "xs_set_features_domain", "xs_set_domain_quota"
HAS_FEATURES, HAS_QUOTA = "HAS_XS_SET_FEATURES_DOMAIN", "HAS_XS_SET_DOMAIN_QUOTA"
NO_FEATURES, SETS_FEATURES = "no features", "set_features 7 0x3 of 0xf"
NO_QUOTA, SETS_QUOTA = "no quota", "set_quota 7 nodes 1000"

VERSIONS = {
    "4.16": Version(
        NO_ALTP2M,
        NO_MEMFLAGS,
        (),
        set(),
        [
            "create domain 0x7ff5",
            "getinfolist",
            "shadow_control 3 MiB",
            "restore",
            NO_FEATURES,
            NO_QUOTA,
        ],
    ),
    "4.17": Version(
        NO_ALTP2M,
        NO_MEMFLAGS,
        (POOL,),
        {HAS_POOL},
        ["create domain 0x7ff5", "getinfolist", SETS_POOL, "restore", NO_FEATURES, NO_QUOTA],
    ),
    "4.19": Version(
        ALTP2M_OPTS,
        NO_MEMFLAGS,
        (POOL, GETINFO),
        {HAS_POOL, HAS_GETINFO, "HAS_CREATEDOMAIN_ALTP2M_OPTS"},
        [
            "create domain 0x7ff5 opts 2",
            "getinfo_single",
            SETS_POOL,
            "restore",
            NO_FEATURES,
            NO_QUOTA,
        ],
    ),
    "4.21": Version(
        ALTP2M_NR,
        NO_MEMFLAGS,
        (POOL, GETINFO, FEATURES),
        {HAS_POOL, HAS_GETINFO, "HAS_CREATEDOMAIN_ALTP2M_NR", HAS_FEATURES},
        [
            "create domain 0x7ff5 opts 2 nr 5",
            "getinfo_single",
            SETS_POOL,
            "restore",
            SETS_FEATURES,
            NO_QUOTA,
        ],
    ),
    "4.22": Version(
        ALTP2M_NR,
        MEMFLAGS,
        (POOL, GETINFO, FEATURES, QUOTA),
        {
            HAS_POOL,
            HAS_GETINFO,
            "HAS_CREATEDOMAIN_ALTP2M_NR",
            HAS_FEATURES,
            HAS_QUOTA,
            "HAS_XC_DOMAIN_RESTORE_MEMFLAGS",
        },
        [
            "create domain 0x7ff5 opts 2 nr 5",
            "getinfo_single",
            SETS_POOL,
            "restore memflags 0",
            SETS_FEATURES,
            SETS_QUOTA,
        ],
    ),
}

XENCTRL = """
#pragma once
#include <stdint.h>
#include <stdio.h>
typedef struct xc_interface xc_interface;
typedef uint64_t xen_pfn_t;
#define XEN_DOMCTL_GRANT_version(v) (v)
#define XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION 31
struct xen_domctl_createdomain {
    uint32_t ssidref; uint8_t handle[16]; uint32_t flags; uint32_t iommu_opts; uint32_t max_vcpus;
    uint32_t max_evtchn_port; int32_t max_grant_frames; int32_t max_maptrack_frames;
    uint32_t grant_opts; uint32_t vmtrace_size; uint32_t cpupool_id; %(declaration)s
    struct { uint32_t emulation_flags; uint32_t misc_flags; } arch;
};
typedef struct { uint16_t domain; } xc_domaininfo_t;
static inline int xc_domain_create(xc_interface *x, uint32_t *d, struct xen_domctl_createdomain *c)
{ printf(%(say)s); return 0; }
static inline int xc_domain_getinfolist(xc_interface *x, uint32_t d, unsigned n, xc_domaininfo_t *i)
{ printf("getinfolist\\n"); i->domain = d; return 1; }
static inline int xc_shadow_control(xc_interface *x, uint32_t d, unsigned op, unsigned *mb,
                                    unsigned mode)
{ printf("shadow_control %%u MiB\\n", *mb); return 0; }
"""
XENSTORE = """
#pragma once
#include <stdint.h>
#include <stdio.h>
struct xs_handle;
typedef uint32_t xs_transaction_t;
enum xs_perm_type { XS_PERM_NONE };
struct xs_permissions { unsigned int id; enum xs_perm_type perms; };
static inline _Bool xs_set_permissions(struct xs_handle *h, xs_transaction_t t, const char *path,
                                       struct xs_permissions *perms, unsigned int num)
{ return 1; }
"""
XENSTORE_CALLS = {
    FEATURES: """
static inline _Bool xs_get_features_supported(struct xs_handle *h, unsigned int *features)
{ *features = 0xf; return 1; }
static inline _Bool xs_set_features_domain(struct xs_handle *h, unsigned int d, unsigned int f)
{ printf("set_features %u %#x of 0xf\\n", d, f); return 1; }
""",
    QUOTA: """
static inline _Bool xs_set_domain_quota(struct xs_handle *h, unsigned int d, const char *quota,
                                        unsigned int value)
{ printf("set_quota %u %s %u\\n", d, quota, value); return 1; }
""",
}
CALLS = {
    GETINFO: """
static inline int xc_domain_getinfo_single(xc_interface *x, uint32_t d, xc_domaininfo_t *i)
{ printf("getinfo_single\\n"); return 0; }
""",
    POOL: """
static inline int xc_set_paging_mempool_size(xc_interface *x, uint32_t d, uint64_t size)
{ printf("set_paging_mempool_size %lu\\n", (unsigned long)size); return 0; }
""",
}
XENGUEST = """
#pragma once
typedef enum { XC_STREAM_PLAIN, XC_STREAM_REMUS, XC_STREAM_COLO } xc_stream_type_t;
struct restore_callbacks {
    int (*static_data_done)(unsigned int, void *);
    int (*suspend)(void *); int (*postcopy)(void *); int (*checkpoint)(void *);
    int (*wait_checkpoint)(void *);
    void (*restore_results)(xen_pfn_t, xen_pfn_t, void *);
    void *data;
};
static inline int xc_domain_restore(
    xc_interface *x, int fd, uint32_t dom, unsigned sp, unsigned long *sm, uint32_t sd,
    unsigned cp, unsigned long *cm, uint32_t cd, xc_stream_type_t type,
    struct restore_callbacks *callbacks, int back%(declaration)s)
{ printf(%(say)s); return 0; }
"""
# What cffi makes of extern "Python", and a run through each function that versions differ in.
MAIN = """
static int xlsr_restore_static_data_done(unsigned int missing, void *data) { return 0; }
static int xlsr_restore_checkpoint(void *data) { return 0; }

int main(void)
{
    struct xlsr_createdomain wanted = { .altp2m_mode = 2, .altp2m_count = 5 };
    xc_domaininfo_t info;
    uint32_t domid = 0;
    unsigned int features = 0;

    if (xlsr_domain_create(0, &domid, &wanted) || xlsr_domain_getinfo(0, 7, &info) ||
        xlsr_set_paging_mempool_size(0, 7, (2 << 20) + 1) ||
        xlsr_domain_restore(0, 0, 7, 0, 0, 0, 0, 0, 0, XC_STREAM_PLAIN, 0) ||
        !xlsr_set_permissions(0, 0, "/", 0, 0, 0))
        return 1;
    if (!xlsr_get_features_supported(0, &features) || !xlsr_set_features_domain(0, 7, 3)) {
        if (errno != ENOSYS)
            return 1;
        printf("no features\\n");
    }
    if (!xlsr_set_domain_quota(0, 7, "nodes", 1000)) {
        if (errno != ENOSYS)
            return 1;
        printf("no quota\\n");
    }
    return 0;
}
"""


def write_headers(directory: Path, version: Version) -> None:
    calls = (CALLS[name] for name in version.calls if name in CALLS)
    store_calls = (XENSTORE_CALLS[name] for name in version.calls if name in XENSTORE_CALLS)
    (directory / "xenctrl.h").write_text("".join([XENCTRL % version.altp2m._asdict(), *calls]))
    (directory / "xenguest.h").write_text(XENGUEST % version.memflags._asdict())
    (directory / "xenstore.h").write_text("".join([XENSTORE, *store_calls]))
    params = directory / "xen" / "hvm" / "params.h"
    params.parent.mkdir(parents=True)
    params.write_text("#define HVM_PARAM_ALTP2M 35\n")


@pytest.mark.parametrize("name", VERSIONS)
def test_a_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    version = VERSIONS[name]
    write_headers(tmp_path, version)
    monkeypatch.setattr(probe, "pkg_config", lambda *_arguments: [f"-I{tmp_path}"])
    fragments = (xenctrl, xenguest, xenstore)
    probes = {name: code for fragment in fragments for name, code in fragment.PROBES.items()}
    flags = {flag: int(probe.compiles(program)) for flag, program in probes.items()}
    assert {flag for flag, there in flags.items() if there} == {
        "HAS_HVM_PARAM_ALTP2M",
        *version.flags,
    }

    source = tmp_path / "module.c"
    source.write_text(
        "\n".join(
            [
                *(fragment.INCLUDES for fragment in fragments),
                *(f"#define {flag} {value}" for flag, value in flags.items()),
                *(fragment.SOURCE for fragment in fragments),
                MAIN,
            ]
        )
    )
    program = tmp_path / "module"
    command = ["cc", "-Werror", f"-I{tmp_path}", str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == version.does
