"""``ffibuilder`` for libxlsr.xen._xen, made of the fragments beside this file.

setup.py hands it to setuptools where Xen's headers are installed. Each fragment has INCLUDES,
PROBES (flag name -> a program that compiles where this Xen has it), CDEF (what Python sees)
and SOURCE (C of our own). A flag is 1 or 0 in SOURCE and in ``lib``. How to add a symbol:
docs/adding-a-xen-symbol.md.
"""

from __future__ import annotations

import os
import sys

import cffi

# setuptools runs this file by its path, without the project's directory on sys.path.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cffi_build import probe, toollog, xenctrl, xenguest, xenstore

FRAGMENTS = (toollog, xenctrl, xenguest, xenstore)


def make_ffibuilder() -> cffi.FFI:
    """The builder for the Xen whose headers are installed."""
    flags = {
        name: int(probe.compiles(program))
        for fragment in FRAGMENTS
        for name, program in fragment.PROBES.items()
    }
    builder = cffi.FFI()
    builder.cdef("const char *xlsr_built_for_xen(void);")
    builder.cdef("".join(f"#define {name} ...\n" for name in flags))
    for fragment in FRAGMENTS:
        builder.cdef(fragment.CDEF)
    source = [
        *(fragment.INCLUDES for fragment in FRAGMENTS),
        *(f"#define {name} {value}\n" for name, value in flags.items()),
        "static const char *xlsr_built_for_xen(void)\n"
        f'{{\n    return "{probe.xen_version()}";\n}}\n',
        *(fragment.SOURCE for fragment in FRAGMENTS),
    ]
    libraries = probe.pkg_config("--libs", *probe.PKG_CONFIG_NAMES)
    builder.set_source(
        "libxlsr.xen._xen",
        "".join(source),
        # Thin wrappers over calls: optimising them gains nothing, and a slow host builds them in
        # half the time.
        extra_compile_args=[
            *probe.pkg_config("--cflags", *probe.PKG_CONFIG_NAMES),
            "-O0",
            "-g0",
            "-U_FORTIFY_SOURCE",
        ],
        extra_link_args=libraries,
    )
    return builder


ffibuilder = make_ffibuilder()
