"""xentoollog.h: libxenctrl's and libxenguest's log lines and progress, handed to Python.

A message comes as a format and a va_list, which only C can read: it is formatted here, and
Python gets one string. A message that is too long for memory is handed over unformatted rather
than lost.
"""

from __future__ import annotations

INCLUDES = """
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <xentoollog.h>
"""

PROBES: dict[str, str] = {}

CDEF = """
#define XTL_DEBUG ...
#define XTL_VERBOSE ...
#define XTL_DETAIL ...
#define XTL_PROGRESS ...
#define XTL_INFO ...
#define XTL_NOTICE ...
#define XTL_WARN ...
#define XTL_ERROR ...
#define XTL_CRITICAL ...

typedef ... xentoollog_logger;
struct xlsr_logger { void *handle; ...; };

void xlsr_logger_init(struct xlsr_logger *logger, void *handle);
xentoollog_logger *xlsr_logger_vtable(struct xlsr_logger *logger);
void xlsr_logger_say(struct xlsr_logger *logger, int level, int errnoval, const char *context,
                     const char *text);

extern "Python" {
    void xlsr_on_message(void *handle, int level, int errnoval, char *context, char *text);
    void xlsr_on_progress(void *handle, char *context, char *doing_what, int percent,
                          unsigned long done, unsigned long total);
}
"""

SOURCE = """
struct xlsr_logger {
    xentoollog_logger vtable;   /* first: a pointer to it is a pointer to the whole */
    void *handle;
};

static void xlsr_on_message(void *, int, int, char *, char *);
static void xlsr_on_progress(void *, char *, char *, int, unsigned long, unsigned long);

static void xlsr_vmessage(xentoollog_logger *logger, xentoollog_level level, int errnoval,
                          const char *context, const char *format, va_list al)
{
    char line[512];
    char *text = line;
    va_list again;
    int needed;

    va_copy(again, al);
    needed = vsnprintf(line, sizeof(line), format, al);
    if (needed < 0) {
        text = (char *)format;
    } else if ((size_t)needed >= sizeof(line)) {
        text = malloc((size_t)needed + 1);
        if (text)
            vsnprintf(text, (size_t)needed + 1, format, again);
        else
            text = line;
    }
    va_end(again);
    xlsr_on_message(((struct xlsr_logger *)logger)->handle, (int)level, errnoval,
                    (char *)(context ? context : ""), text);
    if (text != line && text != format)
        free(text);
}

static void xlsr_progress(xentoollog_logger *logger, const char *context, const char *doing_what,
                          int percent, unsigned long done, unsigned long total)
{
    xlsr_on_progress(((struct xlsr_logger *)logger)->handle, (char *)(context ? context : ""),
                     (char *)(doing_what ? doing_what : ""), percent, done, total);
}

static void xlsr_logger_destroy(xentoollog_logger *logger)
{
    (void)logger;               /* the memory is Python's */
}

static void xlsr_logger_init(struct xlsr_logger *logger, void *handle)
{
    logger->vtable.vmessage = xlsr_vmessage;
    logger->vtable.progress = xlsr_progress;
    logger->vtable.destroy = xlsr_logger_destroy;
    logger->handle = handle;
}

static xentoollog_logger *xlsr_logger_vtable(struct xlsr_logger *logger)
{
    return &logger->vtable;
}

/* A message through the whole path, for tests. */
static void xlsr_logger_say(struct xlsr_logger *logger, int level, int errnoval,
                            const char *context, const char *text)
{
    xtl_log(&logger->vtable, (xentoollog_level)level, errnoval, context, "%s", text);
}
"""
