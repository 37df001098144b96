"""Finds the compiled module, and says what is missing where it can't be used.

The module is linked to one Xen release: libxenctrl's and libxenguest's sonames and structs change
with each. It is therefore built on the host that it runs on, and compared with the hypervisor
before anything else is asked of it.
"""

from __future__ import annotations

import importlib
import re
from typing import NamedTuple, cast

from libxlsr.errors import BackendUnavailable
from libxlsr.xen.rawlib import FFI, Lib

_HOW_TO_BUILD = (
    "install Xen's development files, pkg-config and a C compiler (Debian: "
    "apt install libxen-dev pkg-config gcc python3-dev) and reinstall libxlsr from source "
    "(pip install --force-reinstall --no-binary libxlsr libxlsr)"
)


class Backend(NamedTuple):
    """The compiled module: cffi's two objects, typed."""

    ffi: FFI
    lib: Lib


_loaded: Backend | None = None


def load() -> Backend:
    """The compiled module, loaded once.

    Raises ``BackendUnavailable``, saying what to install, where it was not built or where the
    Xen libraries that it was built for are gone.
    """
    global _loaded
    if _loaded is None:
        try:
            module = importlib.import_module("libxlsr.xen._xen")
        except ImportError as error:
            raise _unavailable(error) from error
        _loaded = Backend(cast(FFI, module.ffi), cast(Lib, module.lib))
    return _loaded


def available() -> bool:
    """Whether the compiled module can be loaded (not whether Xen runs)."""
    try:
        load()
    except BackendUnavailable:
        return False
    return True


def built_for() -> str:
    """The Xen version that the module was compiled for, such as "4.17.0"."""
    ffi, lib = load()
    return ffi.string(lib.xlsr_built_for_xen()).decode()


def _unavailable(error: ImportError) -> BackendUnavailable:
    if isinstance(error, ModuleNotFoundError):
        if error.name == "_cffi_backend":
            return BackendUnavailable(
                "libxlsr's Xen module needs cffi at run time", remedy="pip install cffi"
            )
        return BackendUnavailable("libxlsr was built without Xen", remedy=_HOW_TO_BUILD)
    library = re.match(r"lib\w+\.so\S*(?=:)", str(error))
    if library:
        message = f"libxlsr was built for another Xen: {library.group()} is not on this host"
    else:
        message = f"libxlsr's Xen module can't be loaded: {error}"
    return BackendUnavailable(message, remedy=_HOW_TO_BUILD)


def require_same_release(running: str) -> None:
    """Compare the module with the hypervisor's version ("4.17.5"), major and minor.

    Raises ``BackendUnavailable`` where they differ: Xen's control interface is stable within a
    release only (XEN_DOMCTL_INTERFACE_VERSION, xen/domctl.h).
    """
    built = built_for()
    if built.split(".")[:2] != running.split(".")[:2]:
        raise BackendUnavailable(
            f"libxlsr was built for Xen {built}, but Xen {running} is running",
            remedy=_HOW_TO_BUILD,
        )
