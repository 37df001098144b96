"""Hands cffi_modules to setuptools, which ignores it in setup.cfg; everything else stands there.

The compiled modules are built only where Xen's headers are; elsewhere the package installs without
them, and `libxlsr.errors.BackendUnavailable` says what to install.
"""

from __future__ import annotations

import shutil
import subprocess

from setuptools import setup


def xen_headers_found() -> bool:
    """Whether Xen's development files (Debian: libxen-dev, pkg-config, a C compiler) are here."""
    if shutil.which("pkg-config") is None or shutil.which("cc") is None:
        return False
    found = subprocess.run(
        ["pkg-config", "--exists", "xencontrol", "xenguest", "xenstore", "xenlight"], check=False
    )
    return found.returncode == 0


MODULES = ["cffi_build/build.py:ffibuilder", "cffi_build/build_xenlight.py:ffibuilder"]

setup(cffi_modules=MODULES if xen_headers_found() else [])
