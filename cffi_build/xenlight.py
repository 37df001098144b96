"""libxl.h: devices of an existing domain, and the destruction of one with its devices.

libxenlight's structs grow with each release and hold memory that it has allocated. Python sees none
of them: devices go in as libxl's own JSON, and each call names one of them by kind and number.
"""

from __future__ import annotations

INCLUDES = """
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <libxl.h>
"""

PROBES: dict[str, str] = {}

CDEF = """
enum { XLSR_VFB, XLSR_VKB, XLSR_DISK, XLSR_NIC };
struct xlsr_light;

struct xlsr_light *xlsr_light_open(void *logger);
void xlsr_light_close(struct xlsr_light *);
int xlsr_light_read_devices(struct xlsr_light *, const char *json);
int xlsr_light_count(const struct xlsr_light *, int kind);
int xlsr_light_add(struct xlsr_light *, uint32_t domid, int kind, int number);
int xlsr_light_destroy(struct xlsr_light *, uint32_t domid);
const char *xlsr_light_error(int rc);
"""

SOURCE = """
enum { XLSR_VFB, XLSR_VKB, XLSR_DISK, XLSR_NIC };

struct xlsr_light {
    libxl_ctx *ctx;
    libxl_domain_config config;     /* its lists of devices are all that is used */
};

static void xlsr_light_close(struct xlsr_light *light)
{
    libxl_domain_config_dispose(&light->config);
    libxl_ctx_free(light->ctx);
    free(light);
}

static struct xlsr_light *xlsr_light_open(void *logger)
{
    struct xlsr_light *light = calloc(1, sizeof(*light));

    if (!light)
        return NULL;
    if (libxl_ctx_alloc(&light->ctx, LIBXL_VERSION, 0, (xentoollog_logger *)logger)) {
        free(light);
        return NULL;
    }
    libxl_domain_config_init(&light->config);
    return light;
}

static int xlsr_light_read_devices(struct xlsr_light *light, const char *json)
{
    libxl_domain_config_dispose(&light->config);
    libxl_domain_config_init(&light->config);
    return libxl_domain_config_from_json(light->ctx, &light->config, json);
}

static int xlsr_light_count(const struct xlsr_light *light, int kind)
{
    switch (kind) {
    case XLSR_VFB: return light->config.num_vfbs;
    case XLSR_VKB: return light->config.num_vkbs;
    case XLSR_DISK: return light->config.num_disks;
    case XLSR_NIC: return light->config.num_nics;
    }
    return 0;
}

static int xlsr_light_add(struct xlsr_light *light, uint32_t domid, int kind, int number)
{
    if (number < 0 || number >= xlsr_light_count(light, kind))
        return ERROR_INVAL;
    switch (kind) {
    case XLSR_VFB:
        return libxl_device_vfb_add(light->ctx, domid, &light->config.vfbs[number], NULL);
    case XLSR_VKB:
        return libxl_device_vkb_add(light->ctx, domid, &light->config.vkbs[number], NULL);
    case XLSR_DISK:
        return libxl_device_disk_add(light->ctx, domid, &light->config.disks[number], NULL);
    default:
        return libxl_device_nic_add(light->ctx, domid, &light->config.nics[number], NULL);
    }
}

static int xlsr_light_destroy(struct xlsr_light *light, uint32_t domid)
{
    return libxl_domain_destroy(light->ctx, domid, NULL);
}

static const char *xlsr_light_error(int rc)
{
    const char *name = libxl_error_to_string(rc);

    return name ? name : "";
}
"""
