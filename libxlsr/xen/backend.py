"""Finds the compiled modules, and says what is missing where they can't be used.

They are linked to one Xen release: libxenctrl's and libxenguest's sonames and structs change with
each. They are therefore built on the host that they run on, and compared with the hypervisor
before anything else is asked of them.
"""

from __future__ import annotations

import importlib
import re
from typing import Any, NamedTuple, cast

from libxlsr.errors import BackendUnavailable
from libxlsr.xen.rawlib import FFI, Lib, XenlightLib

_HOW_TO_BUILD = (
    "install Xen's development files, pkg-config and a C compiler (Debian: "
    "apt install libxen-dev pkg-config gcc python3-dev) and reinstall libxlsr from source "
    "(pip install --force-reinstall --no-binary libxlsr libxlsr)"
)


class Backend(NamedTuple):
    """The compiled module: cffi's two objects, typed."""

    ffi: FFI
    lib: Lib


class XenlightBackend(NamedTuple):
    """The compiled module over libxenlight, which only some children load."""

    ffi: FFI
    lib: XenlightLib


_loaded: Backend | None = None


def load() -> Backend:
    """The compiled module, loaded once.

    Raises ``BackendUnavailable``, saying what to install, where it was not built or where the
    Xen libraries that it was built for are gone.
    """
    global _loaded
    if _loaded is None:
        module = _import("libxlsr.xen._xen")
        _loaded = Backend(cast(FFI, module.ffi), cast(Lib, module.lib))
    return _loaded


def load_xenlight() -> XenlightBackend:
    """The module over libxenlight. Raises as ``load``."""
    module = _import("libxlsr.xen._xenlight")
    return XenlightBackend(cast(FFI, module.ffi), cast(XenlightLib, module.lib))


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _unavailable(error) from error


def available() -> bool:
    """Whether the compiled module can be loaded (not whether Xen runs)."""
    try:
        load()
    except BackendUnavailable:
        return False
    return True


def built_for(backend: Backend | None = None) -> str:
    """The Xen version that the module was compiled for, such as "4.17.0"."""
    ffi, lib = backend or load()
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


def require_same_release(running: str, backend: Backend | None = None) -> None:
    """Compare the module with the hypervisor's version ("4.17.5"), major and minor.

    Raises ``BackendUnavailable`` where they differ: Xen's control interface is stable within a
    release only (XEN_DOMCTL_INTERFACE_VERSION, xen/domctl.h).
    """
    built = built_for(backend)
    if built.split(".")[:2] != running.split(".")[:2]:
        raise BackendUnavailable(
            f"libxlsr was built for Xen {built}, but Xen {running} is running",
            remedy=_HOW_TO_BUILD,
        )
