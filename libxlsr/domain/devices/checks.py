"""What can be known of a domain's devices before it is made: files, bridges, scripts, users."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from libxlsr.domain.config import DomainConfig
from libxlsr.domain.config.devices import Disk
from libxlsr.domain.devices import hotplug
from libxlsr.domain.devices.backend import in_qemu
from libxlsr.domain.devices.plan import JSON_MAX, disk_words, json_length, plan
from libxlsr.domain.host import XenHost
from libxlsr.formats.text import printable
from libxlsr.xen.xenstore import Xenstore

DOM0 = (None, 0, "", "0", "Domain-0")
"""How a configuration says that a backend is in dom0."""

DISK_SCRIPT = "block"
"""The script that a disk without one of its own gets; it takes files and block devices."""

NIC_SCRIPT = "vif-bridge"


def problems(config: DomainConfig, host: XenHost, xenstore: Xenstore) -> Iterator[str]:
    """What stands in the way, each as a part of a sentence."""
    planned = plan(config)
    for device in (*planned.before_device_model, *planned.after_device_model):
        if json_length(device) > JSON_MAX:
            yield f"the configuration of its {device.words} is longer than {JSON_MAX} characters"
    disks = config.disks
    users = list(disks_of_others(xenstore)) if disks else []
    for disk in disks:
        yield from disk_problems(disk, host, users)
    for number, nic in enumerate(config.json.get("nics", ())):
        yield from nic_problems(number, nic, host)
    for kind in ("vfbs", "vkbs"):
        for item in config.json.get(kind, ()):
            yield from _backend_problems(item, "framebuffer" if kind == "vfbs" else "keyboard")


# Disks.


def disk_problems(disk: Disk, host: XenHost, users: list[tuple[int, str, bool]]) -> Iterator[str]:
    """What is wrong with one disk. ``users`` is what `disks_of_others` found."""
    words = printable(disk_words(disk), 200)
    if disk.place is None:
        yield f"{words} has no name that Xen knows for a disk"
    if disk.virtio:
        yield f"{words} is a virtio disk, which can't be restored"
        return
    if disk.backend_domain not in DOM0:
        yield f"{words} is served by domain {disk.backend_domain}, which can't be restored"
        return
    if disk.script is not None:
        yield from script_problems(disk.script, words, host)
        if os.path.basename(disk.script) != DISK_SCRIPT:
            return  # what its path means is between the configuration and the script
    elif not in_qemu(disk):
        yield from script_problems(DISK_SCRIPT, words, host)
    if disk.path is None:
        if not disk.cdrom:
            yield f"{words} names no file"
        return
    try:
        yield from _file_problems(disk, disk.path, words, host, users)
    except OSError as error:
        yield f"{words}: {os.strerror(error.errno or errno.EIO)}"


def _file_problems(
    disk: Disk, path: str, words: str, host: XenHost, users: list[tuple[int, str, bool]]
) -> Iterator[str]:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISBLK(status.st_mode):
        yield f"{words} is neither a file nor a block device"
        return
    if not os.access(path, os.R_OK):
        yield f"{words} can't be read"
    if disk.readwrite and not os.access(path, os.W_OK):
        yield f"{words} can't be written to"
    for domid, other, writes in users:
        if (disk.readwrite or writes) and _same_file(path, other):
            yield f"{words} is in use by domain {domid}"
            return
    if disk.readwrite:
        busy = [path] if stat.S_ISBLK(status.st_mode) else []
        busy += [device for device, _file in hotplug.loops_over([path], host.sys)]
        for device in busy:
            if is_claimed(device):
                yield f"{words} is in use here (mounted, or part of another device)"
                return


def _same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other) or (
            stat.S_ISBLK(os.stat(one).st_mode) and os.stat(one).st_rdev == os.stat(other).st_rdev
        )
    except OSError:
        return False


def is_claimed(device: str) -> bool:
    """Whether the kernel has given the block device to a user of its own (open(2), O_EXCL)."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def disks_of_others(xenstore: Xenstore) -> Iterator[tuple[int, str, bool]]:
    """(domain, file, whether it writes) of each disk of each domain, as libxl notes them."""
    for domid in xenstore.directory("/libxl") or ():
        devices = f"/libxl/{domid}/device/vbd"
        for device in xenstore.directory(devices) or ():
            params = xenstore.read(f"{devices}/{device}/params")
            if domid.isdigit() and params:
                # Those of QEMU's start with the format: "qcow2:/srv/disk".
                path = params if params.startswith("/") else params.partition(":")[2]
                mode = xenstore.read(f"{devices}/{device}/mode") or "w"
                yield int(domid), path, mode.startswith("w")


# Network cards.


def nic_problems(number: int, nic: Mapping[str, Any], host: XenHost) -> Iterator[str]:
    """What is wrong with one network card, in libxl's JSON."""
    words = f"network card {number}"
    for member in ("bridge", "script", "ifname", "gatewaydev", "model", "ip"):
        value = nic.get(member)
        if value is not None and (not isinstance(value, str) or not value.isprintable()):
            yield f"the {member} of {words} is not a printable string"
            return
    backend = list(_backend_problems(nic, words))
    if backend:
        yield from backend
        return
    script = nic.get("script") or NIC_SCRIPT
    yield from script_problems(script, words, host)
    bridge = nic.get("bridge") or "xenbr0"
    # Other scripts have their own idea of what the name stands for (Open vSwitch: no device).
    if os.path.basename(script) == NIC_SCRIPT and not is_bridge(bridge, host):
        yield f"{words} wants the bridge {printable(bridge, 40)}, which does not exist here"
    ifname = nic.get("ifname")
    if ifname and _in_sys_net(ifname, host).exists():
        yield f"the name {printable(ifname, 40)} of {words} is taken"


def is_bridge(name: str, host: XenHost) -> bool:
    """Whether there is a network bridge of that name."""
    return (_in_sys_net(name, host) / "bridge").is_dir()


def _in_sys_net(name: str, host: XenHost) -> Path:
    # No interface's name has a slash (dev_valid_name, net/core/dev.c): one must not lead elsewhere.
    return host.sys / "class/net" / name.replace("/", "!")


# Both.


def script_problems(script: str, words: str, host: XenHost) -> Iterator[str]:
    """A script is a path, or a name in Xen's directory of them (libxl__abs_path)."""
    shown = printable(script, 80)
    if not os.path.isabs(script) and ".." in Path(script).parts:
        yield f"the hotplug script {shown} of {words} is not in {host.script_dir}"
        return
    path = host.script_dir / script
    if not path.is_file():
        yield f"the hotplug script {shown} of {words} is not here"
    elif not os.access(path, os.X_OK):
        yield f"the hotplug script {shown} of {words} can't be run"


def _backend_problems(item: Mapping[str, Any], words: str) -> Iterator[str]:
    domain = item.get("backend_domname") or item.get("backend_domid")
    if domain not in DOM0:
        yield f"{words} is served by domain {printable(str(domain), 40)}, which can't be restored"
