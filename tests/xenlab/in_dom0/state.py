"""What of the host a restore that failed must leave as it was."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from libxlsr.xen.xenctrl import Xenctrl

# The first domain of a host brings these, whoever makes it, and no toolstack takes them away.
_LASTING_NODES = ('/libxl = ""', '/vm = ""')
_LASTING_FILE = "/var/run/xen/domid-history"


@dataclass(frozen=True)
class HostState:
    """Domains, xenstore, libxl's files and sockets, device models, loop devices, network
    interfaces, our children, orphans and fds."""

    domains: frozenset[int]
    nodes: str
    files: frozenset[str]
    models: frozenset[int]
    loops: frozenset[str]
    interfaces: frozenset[str]
    children: frozenset[int]
    orphans: frozenset[str]
    fds: frozenset[str]

    @classmethod
    def now(cls) -> HostState:
        with Xenctrl() as xenctrl:
            domains = frozenset(info.domid for info in xenctrl.domains())
        listed = subprocess.run(
            ["xenstore-ls", "-fp"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        return cls(
            domains,
            "\n".join(line for line in listed if not line.startswith(_LASTING_NODES)),
            frozenset(_files()) - {_LASTING_FILE},
            frozenset(_device_models()),
            frozenset(path.parts[3] for path in Path("/sys/block").glob("loop*/loop")),
            frozenset(path.name for path in Path("/sys/class/net").iterdir()),
            frozenset(_children()),
            frozenset(_orphans()),
            frozenset(os.listdir("/proc/self/fd")),
        )


def _files() -> Iterator[str]:
    for directory in (Path("/var/lib/xen"), Path("/var/run/xen")):
        if directory.is_dir():
            yield from map(str, directory.iterdir())


def _device_models() -> Iterator[int]:
    for process in Path("/proc").glob("[1-9]*"):
        try:
            argv = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        if b"-xen-domid" in argv:
            yield int(process.name)


def _children() -> Iterator[int]:
    """This process's own, those included that have ended and were not waited for."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)


class _Process(NamedTuple):
    parent: int
    started: str
    name: str
    command: str
    """Empty for a kernel thread, and for a process that has ended."""


def _orphans() -> Iterator[str]:
    """What tests have started and nobody looks after any more: a process whose parent was killed
    becomes init's child, as a hotplug script's does.

    They are told by their cgroup, in which a process stays whoever its parent is: systemd gives
    udev's workers, timers and daemons cgroups of their own. What sshd has above it is another
    command's in dom0, and what this process has above it is the business of a child of its. xl
    leaves a process behind to watch a guest, which goes in its own time when the guest has gone.
    """
    ours = Path("/proc/self/cgroup").read_text()
    processes = dict(_processes_of(ours))

    def is_looked_after(pid: int) -> bool:
        while pid in processes:
            if pid == os.getpid() or processes[pid].name.startswith("sshd"):
                return True
            pid = processes[pid].parent
        return False

    for pid, process in processes.items():
        if process.command and process.name != "xl" and not is_looked_after(pid):
            yield f"{pid}, started at {process.started}: {process.command}"


def _processes_of(cgroup: str) -> Iterator[tuple[int, _Process]]:
    for path in Path("/proc").glob("[1-9]*"):
        try:
            if (path / "cgroup").read_text() != cgroup:
                continue
            name, _, rest = (path / "stat").read_text().partition("(")[2].rpartition(")")
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        fields = rest.split()
        # proc(5), stat: the state, the parent, …; the 22nd of all is when it started.
        yield int(path.name), _Process(int(fields[1]), fields[19], name, command)
