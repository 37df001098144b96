"""xenstore.h: libxenstore. Its soname (libxenstore.so.4) has been stable since Xen 4.2.

A domain's features (4.21) and its quota (4.22) are younger. Where the installed header lacks them
our functions fail with ENOSYS, as a xenstored does that doesn't know the request.
"""

from __future__ import annotations

INCLUDES = """
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <xenstore.h>
"""

PROBES = {
    "HAS_XS_SET_FEATURES_DOMAIN": """
        #include <stdbool.h>
        #include <xenstore.h>
        bool probe(struct xs_handle *h, unsigned *f)
        { return xs_get_features_supported(h, f) && xs_set_features_domain(h, 0, *f); }
    """,
    "HAS_XS_SET_DOMAIN_QUOTA": """
        #include <stdbool.h>
        #include <xenstore.h>
        bool probe(struct xs_handle *h, const char *q) { return xs_set_domain_quota(h, 0, q, 0); }
    """,
}

CDEF = """
struct xs_handle;
typedef uint32_t xs_transaction_t;

#define XS_PERM_NONE ...
#define XS_PERM_READ ...
#define XS_PERM_WRITE ...
struct xs_permissions { unsigned int id; int perms; ...; };

struct xs_handle *xs_open(unsigned long flags);
void xs_close(struct xs_handle *);
char **xs_directory(struct xs_handle *, xs_transaction_t, const char *path, unsigned int *num);
void *xs_read(struct xs_handle *, xs_transaction_t, const char *path, unsigned int *len);
bool xs_write(struct xs_handle *, xs_transaction_t, const char *path, const void *, unsigned len);
bool xs_mkdir(struct xs_handle *, xs_transaction_t, const char *path);
bool xs_rm(struct xs_handle *, xs_transaction_t, const char *path);
struct xs_permissions *xs_get_permissions(struct xs_handle *, xs_transaction_t, const char *path,
                                          unsigned int *num);
bool xlsr_set_permissions(struct xs_handle *, xs_transaction_t, const char *path,
                          unsigned int *ids, unsigned int *perms, unsigned int count);
xs_transaction_t xs_transaction_start(struct xs_handle *);
bool xs_transaction_end(struct xs_handle *, xs_transaction_t, bool abort);
bool xs_watch(struct xs_handle *, const char *path, const char *token);
bool xs_unwatch(struct xs_handle *, const char *path, const char *token);
int xs_fileno(struct xs_handle *);
char **xs_check_watch(struct xs_handle *);
bool xs_introduce_domain(struct xs_handle *, unsigned int domid, unsigned long gfn,
                         unsigned int port);
bool xs_release_domain(struct xs_handle *, unsigned int domid);
bool xs_is_domain_introduced(struct xs_handle *, unsigned int domid);
bool xlsr_get_features_supported(struct xs_handle *, unsigned int *features);
bool xlsr_set_features_domain(struct xs_handle *, unsigned int domid, unsigned int features);
bool xlsr_set_domain_quota(struct xs_handle *, unsigned int domid, const char *quota,
                           unsigned int value);
char *xs_get_domain_path(struct xs_handle *, unsigned int domid);
void free(void *);
"""

SOURCE = """
/* struct xs_permissions holds an enum whose type and extra members differ between versions. */
static bool xlsr_set_permissions(struct xs_handle *h, xs_transaction_t t, const char *path,
                                 unsigned int *ids, unsigned int *perms, unsigned int count)
{
    struct xs_permissions entries[16] = { { 0 } };
    unsigned int i;

    if (count > sizeof(entries) / sizeof(entries[0])) {
        errno = E2BIG;
        return false;
    }
    for (i = 0; i < count; i++) {
        entries[i].id = ids[i];
        entries[i].perms = perms[i];
    }
    return xs_set_permissions(h, t, path, entries, count);
}

static bool xlsr_get_features_supported(struct xs_handle *h, unsigned int *features)
{
#if HAS_XS_SET_FEATURES_DOMAIN
    return xs_get_features_supported(h, features);
#else
    errno = ENOSYS;
    return false;
#endif
}

static bool xlsr_set_features_domain(struct xs_handle *h, unsigned int domid,
                                     unsigned int features)
{
#if HAS_XS_SET_FEATURES_DOMAIN
    return xs_set_features_domain(h, domid, features);
#else
    errno = ENOSYS;
    return false;
#endif
}

static bool xlsr_set_domain_quota(struct xs_handle *h, unsigned int domid, const char *quota,
                                  unsigned int value)
{
#if HAS_XS_SET_DOMAIN_QUOTA
    return xs_set_domain_quota(h, domid, quota, value);
#else
    errno = ENOSYS;
    return false;
#endif
}
"""
