"""The domain's nodes in xenstore, with libxl's permissions.

Sources: libxl__domain_make (libxl_create.c) for the nodes of a new domain, libxl__build_post
(libxl_dom.c) and domcreate_stream_done (libxl_create.c) for its parts. libxl writes the parts after
the stream; here all is written while libxenguest reads it, but what the stream tells.
A node that gets no permissions of its own inherits those of the node above.
"""

from __future__ import annotations

import re
import struct
import time
import uuid
from dataclasses import dataclass
from typing import Callable

from libxlsr.domain import console
from libxlsr.domain.config import DomainConfig
from libxlsr.domain.create import BuildState
from libxlsr.domain.devices import nodes as device_nodes
from libxlsr.domain.identity import require_unclaimed
from libxlsr.xen.xenstore import Nodes, Perm, Permission, Transaction, Xenstore

DEVICE_MODEL_VERSION = "qemu_xen"
"""What libxl takes for its default where a configuration has none or "unknown"; no other runs."""


@dataclass(frozen=True)
class Paths:
    """Where a domain's nodes are."""

    domain: str
    vm: str
    libxl: str

    @classmethod
    def of(cls, domid: int, handle: uuid.UUID) -> Paths:
        return cls(f"/local/domain/{domid}", f"/vm/{handle}", f"/libxl/{domid}")


def toolstack_only() -> list[Permission]:
    """Dom0's alone."""
    return [Permission(0, Perm.NONE)]


def domain_reads(domid: int) -> list[Permission]:
    """Dom0's, and the domain may read."""
    return [Permission(0, Perm.NONE), Permission(domid, Perm.READ)]


def domain_writes(domid: int) -> list[Permission]:
    """The domain's own."""
    return [Permission(domid, Perm.NONE)]


def make_node(nodes: Nodes, path: str, permissions: list[Permission], value: str = "") -> None:
    """Write the node and give it its permissions."""
    nodes.write(path, value)
    nodes.set_permissions(path, permissions)


def create(
    xenstore: Xenstore,
    config: DomainConfig,
    state: BuildState,
    *,
    is_alive: Callable[[int], bool],
) -> None:
    """Make the nodes of a new domain, all or none: those that don't depend on its memory.

    Raises TargetError where another domain has taken the name or the UUID meanwhile; for
    ``is_alive`` see `require_unclaimed`.
    """

    def all_nodes(nodes: Transaction) -> None:
        require_unclaimed(nodes, config, state.domid, is_alive)
        _add_domain(nodes, config, state.domid)
        _add_parts(nodes, config, state)
        console.add_nodes(nodes, state)
        if config.hvm is not None and config.hvm.vkb:
            device_nodes.add_keyboard(nodes, state.domid)

    xenstore.transact(all_nodes)


def _add_domain(nodes: Transaction, config: DomainConfig, domid: int) -> None:
    paths = Paths.of(domid, config.uuid)
    reads, writes = domain_reads(domid), domain_writes(domid)
    for path, permissions in (
        (paths.domain, reads),
        (paths.vm, reads),
        (paths.libxl, toolstack_only()),
    ):
        nodes.rm(path)
        make_node(nodes, path, permissions)
    make_node(nodes, f"{paths.libxl}/device", toolstack_only())
    nodes.write(f"{paths.domain}/vm", paths.vm)
    nodes.write(f"{paths.domain}/name", config.name)
    nodes.write(f"{paths.vm}/name", config.name)
    for name in ("cpu", "memory"):
        make_node(nodes, f"{paths.domain}/{name}", reads)
    if config.xend_suspend_evtchn_compat:
        # Its drivers look for devices there, and take "suspend" for one (f18f8d9d63).
        make_node(nodes, f"{paths.domain}/device", writes)
    else:
        make_node(nodes, f"{paths.domain}/device", reads)
        make_node(nodes, f"{paths.domain}/device/suspend/event-channel", writes)
    make_node(nodes, f"{paths.domain}/control", reads)
    if config.hvm is not None:
        make_node(nodes, f"{paths.domain}/hvmloader", reads)
    controls = ["shutdown", "feature-poweroff", "feature-reboot", "feature-suspend"]
    controls += ["feature-s3", "feature-s4"] if config.hvm is not None else []
    controls += ["sysrq"]
    for name in controls:
        make_node(nodes, f"{paths.domain}/control/{name}", writes)
    own = ["data", "drivers", "feature", "attr", "error"]
    own += ["libxl", "device-model"] if config.driver_domain else []
    for name in own:
        make_node(nodes, f"{paths.domain}/{name}", writes)
    nodes.write(f"{paths.vm}/uuid", str(config.uuid))
    for key, value in config.xsdata:
        nodes.write(f"{paths.domain}/{key}", value)
    for key, value in config.platformdata:
        nodes.write(f"{paths.domain}/platform/{key}", value)
    nodes.write(f"{paths.domain}/control/platform-feature-multiprocessor-suspend", "1")
    nodes.write(f"{paths.domain}/control/platform-feature-xs_reset_watches", "1")
    nodes.write(f"{paths.libxl}/type", config.domain_type)
    nodes.write(f"{paths.libxl}/dm-version", DEVICE_MODEL_VERSION)


def _add_parts(nodes: Transaction, config: DomainConfig, state: BuildState) -> None:
    paths = Paths.of(state.domid, config.uuid)
    hvm = config.hvm
    for key, value in (
        ("memory/static-max", config.max_memkb),
        ("memory/target", config.target_memkb - config.targetmem_fudge_memkb),
        ("memory/videoram", config.video_memkb),
        ("domid", state.domid),
        ("store/port", state.store_port),
    ):
        nodes.write(f"{paths.domain}/{key}", str(value))
    for vcpu in range(config.max_vcpus):
        online = "online" if vcpu in config.avail_vcpus else "offline"
        nodes.write(f"{paths.domain}/cpu/{vcpu}/availability", online)
    if hvm is not None:
        nodes.write(f"{paths.vm}/rtc/timeoffset", hvm.timeoffset)
        if hvm.generation_id is not None:
            # The guest's memory has it as well, from the image (libxl__ms_vm_genid_set).
            halves = struct.unpack("<QQ", hvm.generation_id)
            nodes.write(f"{paths.domain}/platform/generation-id", "{}:{}".format(*halves))
        nodes.write(f"{paths.vm}/image/ostype", "hvm")
    elif config.domain_type == "pv":
        nodes.write(f"{paths.vm}/image/ostype", "linux")
    now = time.time()
    nodes.write(f"{paths.vm}/start_time", f"{int(now)}.{int(now % 1 * 100):02d}")


def remove(xenstore: Xenstore, config: DomainConfig, state: BuildState) -> None:
    """Remove every node of the domain (libxl_domain.c, devices_destroy_cb), all or none.

    ``/vm/UUID`` only where it is still this domain's: once libxl has destroyed it with its devices
    the UUID is free, and may be another's.
    """
    xenstore.transact(lambda nodes: _remove(nodes, config, state))


def _remove(nodes: Transaction, config: DomainConfig, state: BuildState) -> None:
    domid = state.domid
    paths = Paths.of(domid, config.uuid)
    # Devices that libxl attached and could not take back.
    for kind in nodes.directory(f"{paths.libxl}/device") or ():
        for device in nodes.directory(f"{paths.libxl}/device/{kind}") or ():
            backend = nodes.read(f"{paths.libxl}/device/{kind}/{device}/backend") or ""
            found = re.match(r"(/local/domain/\d+/backend/[a-z0-9_]+)/(\d+)/\d+\Z", backend)
            if found and found[2] == str(domid):
                nodes.rm(f"{found[1]}/{domid}")
                if nodes.directory(found[1]) == []:
                    nodes.rm(found[1])
    if nodes.read(f"{paths.domain}/vm") == paths.vm:
        nodes.rm(paths.vm)
    for path in (paths.domain, paths.libxl):
        nodes.rm(path)
    _remove_backend(nodes, f"/local/domain/{state.console_domid}/backend", "console", domid)
    _remove_backend(nodes, "/local/domain/0/backend", "vkbd", domid)


def _remove_backend(nodes: Transaction, backends: str, kind: str, domid: int) -> None:
    nodes.rm(f"{backends}/{kind}/{domid}")
    # The first backend of a kind has made these, the last one takes them along
    # (libxl__xs_path_cleanup).
    for path in (f"{backends}/{kind}", backends):
        if nodes.directory(path) == []:
            nodes.rm(path)
