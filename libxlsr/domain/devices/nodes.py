"""A device's nodes: frontend, backend and libxl's own (libxl__device_generic_add, libxl_device.c).

libxl__device_add writes the same first values for every kind of device.
"""

from __future__ import annotations

from collections.abc import Mapping

from libxlsr.xen.xenstore import Nodes, Perm, Permission, Transaction

XENBUS_STATE_INITIALISING = 1


def add(
    nodes: Transaction,
    frontend: str,
    backend: str,
    libxl: str,
    *,
    domid: int,
    backend_domid: int,
    of_frontend: Mapping[str, str],
    of_backend: Mapping[str, str],
    read_only: Mapping[str, str] | None = None,
    frontend_is_read_only: bool = False,
) -> None:
    """Make the nodes. ``read_only`` are those of the frontend that the guest must not change."""
    domains = [Permission(domid, Perm.NONE), Permission(backend_domid, Perm.READ)]
    backends = [Permission(backend_domid, Perm.NONE), Permission(domid, Perm.READ)]

    nodes.rm(libxl)
    nodes.write(f"{libxl}/frontend", frontend)
    nodes.write(f"{libxl}/backend", backend)

    nodes.rm(frontend)
    nodes.mkdir(frontend)
    nodes.set_permissions(frontend, backends if frontend_is_read_only else domains)
    nodes.write(f"{frontend}/backend", backend)
    _write(nodes, frontend, of_frontend, domains)
    _write(nodes, frontend, read_only or {}, backends)

    nodes.rm(backend)
    nodes.mkdir(backend)
    nodes.set_permissions(backend, backends)
    nodes.write(f"{backend}/frontend", frontend)
    _write(nodes, backend, of_backend, None)
    _write(nodes, libxl, of_backend, None)


def add_keyboard(nodes: Transaction, domid: int) -> None:
    """An HVM guest's keyboard and mouse, which the device model backs (libxl_vkb.c)."""
    state = str(XENBUS_STATE_INITIALISING)
    add(
        nodes,
        f"/local/domain/{domid}/device/vkbd/0",
        f"/local/domain/0/backend/vkbd/{domid}/0",
        f"/libxl/{domid}/device/vkbd/0",
        domid=domid,
        backend_domid=0,
        of_frontend={"backend-id": "0", "state": state},
        of_backend={"frontend-id": str(domid), "online": "1", "state": state},
    )


def _write(
    nodes: Nodes, under: str, values: Mapping[str, str], permissions: list[Permission] | None
) -> None:
    for key, value in values.items():
        nodes.write(f"{under}/{key}", value)
        if permissions is not None:
            nodes.set_permissions(f"{under}/{key}", permissions)
