"""``ffibuilder`` for libxlsr.xen._xenlight, the compiled module over libxenlight.

A module of its own: libxenlight brings libraries of its own along, and the child that reads a
guest's memory would start later for them (docs/performance.md). Only the children that attach
devices and that destroy a domain load it.
"""

from __future__ import annotations

import os
import sys

import cffi

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cffi_build import probe, xenlight


def make_ffibuilder() -> cffi.FFI:
    """The builder for the Xen whose headers are installed."""
    builder = cffi.FFI()
    builder.cdef(xenlight.CDEF)
    builder.set_source(
        "libxlsr.xen._xenlight",
        xenlight.INCLUDES + xenlight.SOURCE,
        extra_compile_args=[
            *probe.pkg_config("--cflags", probe.XENLIGHT),
            "-O0",
            "-g0",
            "-U_FORTIFY_SOURCE",
        ],
        extra_link_args=probe.pkg_config("--libs", probe.XENLIGHT),
    )
    return builder


ffibuilder = make_ffibuilder()
